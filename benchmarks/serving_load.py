"""`frostline serve` at many clients: the code of this folder against that of a commit, alternated in one run.

    FROSTLINE_TEST_ASSETS=.../assets python benchmarks/serving_load.py [COMMIT] [--rounds 5] [--seconds 8]

Each version is a process of its own, with the packages of this environment, on the same bundle. Clients send the bytes
of real photos and wait for each answer before they ask again: one client for the latency, 16 for the images a second.
They run in a process of their own on the same cores. Shown is also what the server's process computes for an image, in
milliseconds of one core, since other programs may use the cores too. Answers of both versions are compared.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import crowd
import workspace
from PIL import Image
from table import show

ASSETS = Path(os.environ.get("FROSTLINE_TEST_ASSETS", "assets")).resolve()
CLASSES = tuple("abcdefghij")
CLIENTS = 16
BEFORE = "4b6c13c"  # the last commit with batches that are padded and wait for nothing
CASES = {
    "MobileNetV2, 224 px, photos": ("MobileNetV2", 224),
    "frostnet, 64 px, small images": ("frostnet", 64),
}


@dataclass
class Server:
    """A running server, and what was measured of it: seconds of one client, images a second of 16, ms of a core."""

    process: subprocess.Popen[bytes]
    port: int
    latency: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)
    cost: list[float] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("commit", nargs="?", default=BEFORE, help="the code to compare with")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement at 16 clients")
    chosen = parser.parse_args()
    files = sorted((ASSETS / "clothing-small" / "validation").rglob("*.jpg"))[:64]
    if not files:
        sys.exit("FROSTLINE_TEST_ASSETS is not set: the photos and weights are not part of this repository")
    rows, differences = [], []
    with tempfile.TemporaryDirectory() as scratch:
        before = Path(scratch) / "before"
        subprocess.run(["git", "clone", "--quiet", str(workspace.ROOT), str(before)], check=True)
        subprocess.run(["git", "-C", str(before), "checkout", "--quiet", chosen.commit], check=True)
        for case, (body, size) in CASES.items():
            bundle = build(Path(scratch) / body, body, size)
            images = [path.read_bytes() if size > 100 else small(path) for path in files]
            found, difference = measured(bundle, {"before": before, "now": workspace.ROOT}, images, chosen)
            rows += lines(case, found)
            differences.append(difference)
    show(
        "serving_load",
        f"One image a request, the commit {chosen.commit[:10]} against this code, each `frostline serve` in a process "
        f"of its own, {chosen.rounds} rounds in turn of 60 requests of one client and {chosen.seconds:g} s of {CLIENTS}"
        " clients, on the same cores as other programs of this shared machine; medians, and the median of the "
        "ratios of each round. Core ms: what the server's process computes for an image at "
        f"{CLIENTS} clients. The largest difference of a probability between the two: {max(differences):.1e}.",
        ["", "p50 of one client", "", f"images/s, {CLIENTS} clients", "", "core ms an image", ""],
        rows,
    )


def small(path: Path) -> bytes:
    """A photo as a JPEG of 64 pixels a side."""
    stream = BytesIO()
    Image.open(path).convert("RGB").resize((64, 64)).save(stream, "JPEG")
    return stream.getvalue()


def build(folder: Path, body: str, size: int) -> Path:
    """A bundle with the body's pretrained weights."""
    from frostline.models import backend

    with backend.quiet():
        import keras

        from frostline.data import shards
        from frostline.models import assembly, backbones, bundles, heads

    keras.utils.set_random_seed(1)
    weights = {"MobileNetV2": str(ASSETS / "weights" / "mobilenet_v2_1.0_224_no_top.h5")}.get(body, "builtin")
    backbone = backbones.build(body, weights, size)
    head = heads.build(backbone.model.output.shape[1:], len(CLASSES), "avg", [], "relu", False)
    whole = assembly.whole(backbone, head)
    folder.mkdir()
    made_from = workspace.made_from(body, "builtin")
    bundles.save(folder, bundles.Bundle(whole, shards.Layout(CLASSES, size, "crop"), made_from))
    return folder


def measured(
    bundle: Path, versions: dict[str, Path], images: list[bytes], chosen: argparse.Namespace
) -> tuple[dict[str, Server], float]:
    """What was measured of each version, and the largest difference of a probability between the two."""
    with ExitStack() as stack:
        servers = {name: stack.enter_context(serving(code, bundle)) for name, code in versions.items()}
        answers = [[ask(server.port, image) for image in images] for server in servers.values()]
        for turn in range(chosen.rounds + 1):
            for server in servers.values():
                latency = median_ms(server.port, images, 60)
                began = cpu_seconds(server.process.pid)
                rate, count = load(server.port, images, chosen.seconds if turn else 3.0)
                if turn:  # the first round is for warming up
                    server.latency.append(latency)
                    server.rate.append(rate)
                    server.cost.append(1000 * (cpu_seconds(server.process.pid) - began) / count)
    pairs = zip(*answers, strict=True)
    return servers, max(abs(one[name] - other[name]) for one, other in pairs for name in CLASSES)


@contextmanager
def serving(code: Path, bundle: Path) -> Iterator[Server]:
    """`frostline serve` of a folder with the code."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    command = [sys.executable, "-m", "frostline", "serve", str(bundle), "--port", str(port)]
    environment = {**os.environ, "PYTHONPATH": str(code / "src")}
    process = subprocess.Popen(command, env=environment, cwd=bundle, stdout=subprocess.DEVNULL)
    try:
        while True:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port)
                connection.request("GET", "/ping")
                if connection.getresponse().status == 200:
                    break
            except OSError:
                if process.poll() is not None:
                    sys.exit(f"the server of {code} ended with {process.returncode}")
                time.sleep(0.2)
        yield Server(process, port)
    finally:
        process.terminate()
        process.wait()


def ask(port: int, image: bytes, connection: http.client.HTTPConnection | None = None) -> dict[str, float]:
    """The probabilities of an image."""
    connection = connection or http.client.HTTPConnection("127.0.0.1", port)
    connection.request("POST", "/invocations", image, {"Content-Type": "image/jpeg"})
    answer = connection.getresponse()
    text = answer.read()
    if answer.status != 200:
        sys.exit(f"the server answered {answer.status}: {text[:300]!r}")
    return dict(json.loads(text)["predictions"][0]["probabilities"])


def median_ms(port: int, images: list[bytes], times: int) -> float:
    """The median time of one client that keeps its connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    spent = []
    for number in range(times):
        start = time.perf_counter()
        ask(port, images[number % len(images)], connection)
        spent.append(1000 * (time.perf_counter() - start))
    return statistics.median(spent)


def cpu_seconds(pid: int) -> float:
    """What all threads of a process have computed."""
    spent = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
    return sum(map(int, spent)) / os.sysconf("SC_CLK_TCK")


def load(port: int, images: list[bytes], seconds: float) -> tuple[float, int]:
    """Images a second, and images, of clients in a process of their own."""
    with tempfile.TemporaryDirectory() as folder:
        for number, image in enumerate(images):
            (Path(folder) / f"{number}.jpg").write_bytes(image)
        command = [sys.executable, __file__, "clients", str(port), folder, str(seconds)]
        rate, count = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.split()
    return float(rate), int(count)


def clients(port: int, folder: Path, seconds: float) -> None:
    """Print the images a second that all clients get, and how many they got. They write and read bytes and do nothing
    else, because they take the cores from the server."""
    head = f"POST /invocations HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: image/jpeg\r\nContent-Length: "
    images = [path.read_bytes() for path in sorted(folder.iterdir())]
    requests = [f"{head}{len(image)}\r\n\r\n".encode() + image for image in images]
    done: dict[int, int] = defaultdict(int)
    end = time.perf_counter() + seconds

    def work(client: int) -> None:
        with socket.create_connection(("127.0.0.1", port)) as line:
            while time.perf_counter() < end:
                line.sendall(requests[(client + CLIENTS * done[client]) % len(requests)])
                answer = b""
                while not answer.endswith(b"}]}"):
                    answer += line.recv(2**16) or sys.exit("the server hung up")
                if not answer.startswith(b"HTTP/1.1 200 "):
                    sys.exit(f"the server answered {answer[:300]!r}")
                done[client] += 1

    spent = crowd.seconds_of(work, CLIENTS)
    print(sum(done.values()) / spent, sum(done.values()))


def lines(case: str, found: dict[str, Server]) -> list[list[str]]:
    """The rows of a case: before, and now with the medians of the ratios."""
    before, now = found["before"], found["now"]

    def ratio(name: str) -> str:
        pairs = zip(getattr(now, name), getattr(before, name), strict=True)
        return f"{statistics.median(one / other for one, other in pairs):.2f}x"

    def row(title: str, server: Server, ratios: list[str]) -> list[str]:
        latency, rate, cost = (statistics.median(each) for each in (server.latency, server.rate, server.cost))
        cells = [f"{latency:.1f} ms", f"{rate:.0f}", f"{cost:.1f}"]
        return [title, *(cell for pair in zip(cells, ratios, strict=True) for cell in pair)]

    return [
        row(f"{case}: before", before, ["1.00x"] * 3),
        row(f"{case}: **now**", now, [f"**{ratio(name)}**" for name in ("latency", "rate", "cost")]),
    ]


if __name__ == "__main__":
    if sys.argv[1:2] == ["clients"]:
        clients(int(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4]))
    else:
        main()
