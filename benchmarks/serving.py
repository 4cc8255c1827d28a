"""Serving: `frostline serve` against MLflow's stock Keras flavour, and against the bare model.

    FROSTLINE_TEST_ASSETS=.../assets python benchmarks/serving.py

Both servers are MLflow's scoring server in a process of its own, on the same network (MobileNetV2 1.0 at 160 px with a
head for ten classes). Ours is sent JPEG files in base64, the stock one the pixels as JSON arrays, as its users have to.
They take turns; then ours gets 10,000 requests of which 5% are garbage. The clients run on the same cores.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import os
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import crowd
import numpy as np
import workspace
from table import show

ASSETS = Path(os.environ.get("FROSTLINE_TEST_ASSETS", "assets")).resolve()
SIZE, CLASSES = 160, tuple("abcdefghij")
CLIENTS = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement of images a second")
    parser.add_argument("--requests", type=int, default=10_000, help="of the run with garbage")
    chosen = parser.parse_args()
    files = sorted((ASSETS / "clothing-small" / "validation").rglob("*.jpg"))[:64]
    if not files:
        sys.exit("FROSTLINE_TEST_ASSETS is not set: the photos and weights are not part of this repository")
    photos = [path.read_bytes() for path in files]
    with tempfile.TemporaryDirectory() as scratch:
        build(Path(scratch))
        bare = bare_call(Path(scratch) / "bundle", photos)
        ours = [split("image", base64.b64encode(photo).decode()) for photo in photos]
        stock = [json.dumps({"inputs": [pixels(photo).tolist()]}).encode() for photo in photos]
        latencies: dict[str, list[float]] = {"bare": [], "ours": [], "stock": []}
        rates: dict[str, list[float]] = {"ours": [], "stock": []}
        with serving(Path(scratch) / "ours") as (our_port, process), serving(Path(scratch) / "stock") as (port, _):
            for _ in range(chosen.rounds):
                latencies["bare"].append(median_ms(bare, 60))
                latencies["ours"].append(median_ms(one_by_one(our_port, ours), 60))
                latencies["stock"].append(median_ms(one_by_one(port, stock), 20))
                rates["ours"].append(images_a_second(our_port, ours, chosen.seconds))
                rates["stock"].append(images_a_second(port, stock, chosen.seconds))
            answers, memory = abuse(our_port, photos, ours, chosen.requests, process.pid)
    report(latencies, rates, answers, memory, chosen)


def build(folder: Path) -> None:
    """The bundle, and both MLflow models."""
    from frostline.models import backend

    with backend.quiet():
        import keras
        import mlflow
        from mlflow.models import ModelSignature
        from mlflow.types import Schema, TensorSpec

        from frostline.data import shards
        from frostline.models import assembly, backbones, bundles, heads
        from frostline.serving import packaging

    keras.utils.set_random_seed(1)
    weights = ASSETS / "weights" / "mobilenet_v2_1.0_224_no_top.h5"
    backbone = backbones.build("MobileNetV2", str(weights), SIZE)
    head = heads.build(backbone.model.output.shape[1:], len(CLASSES), "avg", [], "relu", False)
    whole = assembly.whole(backbone, head)
    (folder / "bundle").mkdir()
    made_from = workspace.made_from("MobileNetV2", "none")
    bundles.save(folder / "bundle", bundles.Bundle(whole, shards.Layout(CLASSES, SIZE, "crop"), made_from))
    packaging.save(folder / "bundle", folder / "ours")
    signature = ModelSignature(
        Schema([TensorSpec(np.dtype(np.uint8), (-1, SIZE, SIZE, 3))]),
        Schema([TensorSpec(np.dtype(np.float32), (-1, len(CLASSES)))]),
    )
    requirements = [f"keras=={keras.__version__}"]
    mlflow.keras.save_model(whole, str(folder / "stock"), signature=signature, pip_requirements=requirements)


def pixels(photo: bytes) -> np.ndarray:
    """As the clients of the stock server have to prepare an image."""
    from frostline.data import images

    return images.resize(images.decode(photo), SIZE, "crop")


def split(column: str, value: str) -> bytes:
    return json.dumps({"dataframe_split": {"columns": [column], "data": [[value]]}}).encode()


def bare_call(bundle: Path, photos: list[bytes]) -> Callable[[int], None]:
    """Decoding and `model(...)`, without any server."""
    import keras

    model = keras.saving.load_model(bundle / "model.keras", compile=False)

    def call(number: int) -> None:
        np.asarray(model(pixels(photos[number % len(photos)])[None], training=False))

    return call


@contextmanager
def serving(model: Path) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """MLflow's scoring server on a model, as `mlflow models serve` starts it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "__pyfunc_model_path__": str(model)}
    command = [sys.executable, "-m", "uvicorn", "--port", str(port), "--log-level", "warning"]
    process = subprocess.Popen([*command, "mlflow.pyfunc.scoring_server.app:app"], env=environment)
    try:
        while True:
            try:
                if request(http.client.HTTPConnection("127.0.0.1", port), b"", "/ping", "GET")[0] == 200:
                    break
            except OSError:
                if process.poll() is not None:
                    sys.exit(f"the server on {model.name} ended with {process.returncode}")
                time.sleep(0.2)
        yield port, process
    finally:
        process.terminate()
        process.wait()


def request(
    connection: http.client.HTTPConnection, body: bytes, path: str = "/invocations", method: str = "POST"
) -> tuple[int, bytes]:
    connection.request(method, path, body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    return answer.status, answer.read()


def one_by_one(port: int, bodies: list[bytes]) -> Callable[[int], None]:
    """One client that keeps its connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port)

    def call(number: int) -> None:
        status, answer = request(connection, bodies[number % len(bodies)])
        if status != 200:
            sys.exit(f"the server answered {status}: {answer[:300]!r}")

    return call


def median_ms(call: Callable[[int], None], times: int) -> float:
    call(0)
    spent = []
    for number in range(times):
        start = time.perf_counter()
        call(number)
        spent.append(1000 * (time.perf_counter() - start))
    return statistics.median(spent)


def images_a_second(port: int, bodies: list[bytes], seconds: float) -> float:
    """By clients in one process of their own, each waiting for its answer before it asks again."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(json.dumps([body.decode() for body in bodies]).encode())
        file.flush()
        command = [sys.executable, __file__, "clients", str(port), file.name, str(seconds)]
        return float(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def clients(port: int, file: str, seconds: float) -> None:
    """Prints the images a second that CLIENTS threads get."""
    bodies = [body.encode() for body in json.loads(Path(file).read_text())]
    done = Counter[int]()
    end = time.perf_counter() + seconds

    def work(number: int) -> None:
        call = one_by_one(port, bodies)
        while time.perf_counter() < end:
            call(number + CLIENTS * done[number])
            done[number] += 1

    seconds = crowd.seconds_of(work, CLIENTS)
    print(sum(done.values()) / seconds)


def garbage(photos: list[bytes], number: int) -> bytes:
    """What is no request for an image: truncated, of the wrong type, huge, empty, 50 MB."""
    photo = photos[number % len(photos)]
    chunk = b"IHDR" + struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    header = b"\x89PNG\r\n\x1a\n\x00\x00\x00\r" + chunk + struct.pack(">I", zlib.crc32(chunk)) + b"\x00\x00\x10\x00IDAT"
    kinds = [
        split("image", base64.b64encode(photo[: len(photo) // 2]).decode()),
        split("image", base64.b64encode(b"<html>not an image</html>").decode()),
        split("image", base64.b64encode(header).decode()),
        split("image", ""),
        b"",
        b'{"dataframe_split": ',
        split("image", "?" * 100),
        split("photo", base64.b64encode(photo).decode()),
        json.dumps({"dataframe_records": [{"pixels": [[1, 2], [3]]}]}).encode(),
    ]
    if number % 50 == 0:
        return split("image", "A" * (50 * 2**20))
    return kinds[number % len(kinds)]


def abuse(
    port: int, photos: list[bytes], good: list[bytes], requests: int, pid: int
) -> tuple[Counter[tuple[bool, int]], list[float]]:
    """Requests by eight clients, every twentieth of them garbage: how many got which status, and the server's memory in
    MB after each tenth of them."""
    answers = Counter[tuple[bool, int]]()
    memory = []
    numbers = iter(range(requests))
    lock = threading.Lock()

    def work() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        while True:
            with lock:
                number = next(numbers, None)
                if number and number % (requests // 10) == 0:
                    memory.append(resident(pid))
            if number is None:
                return
            is_garbage = number % 20 == 7
            body = garbage(photos, number // 20) if is_garbage else good[number % len(good)]
            try:
                status, answer = request(connection, body)
            except (OSError, http.client.HTTPException):  # it hung up on a body that was too large
                connection.close()
                status, answer = 413, b"reason"
            with lock:
                answers[is_garbage, status if answer else 0] += 1

    threads = [threading.Thread(target=work) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers, [*memory, resident(pid)]


def resident(pid: int) -> float:
    """Memory of a process in MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def report(
    latencies: dict[str, list[float]],
    rates: dict[str, list[float]],
    answers: Counter[tuple[bool, int]],
    memory: list[float],
    chosen: argparse.Namespace,
) -> None:
    middle = {name: statistics.median(found) for name, found in latencies.items()}
    speed = {name: statistics.median(found) for name, found in rates.items()}
    ratios = [one / other for one, other in zip(latencies["ours"], latencies["bare"], strict=True)]
    gains = [one / other for one, other in zip(rates["ours"], rates["stock"], strict=True)]
    rows = [
        ["decode and `model(...)`, no server", f"{middle['bare']:.1f} ms", "1.00x", "", ""],
        [
            "**frostline**, JPEG in base64",
            f"{middle['ours']:.1f} ms",
            f"{statistics.median(ratios):.2f}x",
            f"{speed['ours']:.0f}",
            f"{statistics.median(gains):.1f}x",
        ],
        [
            "MLflow's Keras flavour, JSON arrays",
            f"{middle['stock']:.1f} ms",
            f"{middle['stock'] / middle['bare']:.2f}x",
            f"{speed['stock']:.0f}",
            "1.0x",
        ],
    ]
    good = {status: count for (is_garbage, status), count in answers.items() if not is_garbage}
    bad = {status: count for (is_garbage, status), count in answers.items() if is_garbage}
    show(
        "serving",
        f"One image a request (MobileNetV2 1.0, {SIZE} px; photos of clothing-small): p50 latency of one client, and "
        f"images a second at {CLIENTS} clients; medians of {chosen.rounds} rounds in turn, clients on the same cores. "
        f"Then {chosen.requests:,} requests to ours at {CLIENTS} clients, 5% of them garbage (truncated, of the "
        f"wrong type, 50,000 pixels wide, empty, 50 MB): answers to images by status {good}, to garbage {bad}; "
        f"the server's memory after each tenth of them, in MB: {', '.join(f'{each:.0f}' for each in memory)}.",
        ["", "p50 latency", "x bare", "images/s", "x stock"],
        rows,
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["clients"]:
        clients(int(sys.argv[2]), sys.argv[3], float(sys.argv[4]))
    else:
        main()
