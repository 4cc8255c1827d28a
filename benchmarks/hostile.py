"""What images and requests of strangers do to the server: answers, time, memory.

    python benchmarks/hostile.py

Three tables. Each format that Pillow can write, in a file named .jpg, and a PostScript program that leaves a file where
Ghostscript runs it. Then the requests of hostile_requests.py against `frostline serve` in a process of its own, a
good one after each. Last the most pixels that the server allows, as 16-bit grey, colour and colour with alpha, eight at
once. Memory is the server's resident set, its peak where the system keeps one (Linux).
"""

from __future__ import annotations

import base64
import io
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import hostile_requests
import numpy as np
from PIL import Image
from table import show
from workspace import params, workspace

from frostline.data import images
from frostline.stages import augment, finetune, prepare

AT_ONCE = 8  # requests of the largest images
TINY = {
    "data.image_size": 32,
    "data.train_per_class": 3,
    "augment.copies": 0,
    "finetune.freeze": "all",
    "finetune.head_epochs": 1,
    "finetune.epochs": 0,
}


def main() -> None:
    with workspace() as folder:
        formats(folder)
        card(folder)
        settings = params(TINY)
        for stage in (prepare, augment, finetune):
            stage.run(settings)
        with serving(folder) as (process, port):
            requests(process, port)
            largest(process, port)


def card(folder: Path) -> None:
    """The source of params.yaml."""
    (folder / "data").mkdir()
    (folder / "data" / "digits.yaml").write_text("kind: digits\n")


def formats(folder: Path) -> None:
    """Every format of Pillow's in a file named .jpg."""
    Image.init()
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    rows = []
    for name in sorted(Image.SAVE):
        content = written(image, name)
        if content is None:
            rows.append((name, "Pillow could not write one here", ""))
            continue
        rows.append((name, *read(content, folder / "image.jpg")))
    trace = folder / "trace"
    program = f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n({trace}) (w) file closefile\nshowpage\n"
    outcome = read(program.encode(), folder / "image.jpg")
    loops = read(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n{} loop\n", folder / "image.jpg")
    rows.append((f"EPS that writes a file (it was{'' if trace.exists() else ' not'} written)", *outcome))
    rows.append(("EPS that never ends", *loops))
    found = subprocess.run(["gs", "--version"], capture_output=True, text=True).stdout.strip()
    show(
        "hostile_images",
        f"Each format that Pillow can write, in a file named image.jpg. Ghostscript here: {found or 'none'}.",
        ("format", "outcome", "time"),
        rows,
    )


def written(image: Image.Image, name: str) -> bytes | None:
    """An image in one of Pillow's formats, in the first mode that it takes."""
    for mode in ("RGB", "L", "1", "P", "F"):
        stream = io.BytesIO()
        try:
            image.convert(mode).save(stream, name)
        except Exception:  # each plugin has errors of its own
            continue
        return stream.getvalue()
    return None


def read(content: bytes, path: Path) -> tuple[str, str]:
    """What becomes of a file, and how long that takes."""
    path.write_bytes(content)
    started = time.monotonic()
    try:
        pixels = images.prepare(path, 32, "stretch")
        outcome = f"read, {pixels.shape[0]} px, {pixels.dtype}"
    except images.UnreadableImageError as error:
        outcome = f"refused: {error}"
    return outcome, f"{1000 * (time.monotonic() - started):.0f} ms"


@contextmanager
def serving(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """`frostline serve` as a process, once it answers, and its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "frostline", "serve", "models/classifier", "--port", str(port)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    try:
        wait(process, port, folder / "log")
        yield process, port
    finally:
        process.terminate()
        process.wait(30)


def wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Wait until the server answers."""
    while process.poll() is None:
        try:
            if hostile_requests.ask(port, hostile_requests.good())[0] == 200:
                return
        except ConnectionRefusedError:
            time.sleep(0.2)
    raise SystemExit(log.read_text())


def memory(process: subprocess.Popen[bytes], key: str) -> float:
    """Megabytes: VmRSS now, VmHWM at most so far."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    found = re.search(rf"{key}:\s+(\d+) kB", status)
    return int(found[1]) / 1000 if found else float("nan")


def requests(process: subprocess.Popen[bytes], port: int) -> None:
    """The hostile requests, one after another."""
    cases = hostile_requests.cases()
    before = memory(process, "VmRSS")
    rows, served = [], 0
    for case in cases:
        started = time.monotonic()
        status, answer = hostile_requests.ask(port, case)
        seconds = time.monotonic() - started
        served += hostile_requests.ask(port, hostile_requests.good())[0] == 200
        reason = " ".join(answer.decode(errors="replace").split())[:90].replace("|", "\\|")
        as_said = status == case.status and case.reason in answer.decode(errors="replace")
        rows.append(
            (case.name.replace("|", "\\|"), str(status), reason, f"{seconds:.2f} s", "yes" if as_said else "NO")
        )
    after, peak = memory(process, "VmRSS"), memory(process, "VmHWM")
    show(
        "hostile_requests",
        f"{len(cases)} hostile requests against `frostline serve`; {served} of {len(cases)} good requests after them "
        f"were answered. The server's memory: {before:.0f} MB before, {after:.0f} MB after, {peak:.0f} MB at most.",
        ("request", "status", "answer", "time", "as it must be"),
        rows,
    )


def largest(process: subprocess.Popen[bytes], port: int) -> None:
    """Eight images of as many pixels as are allowed, at once."""
    side = int((hostile_requests.MEGAPIXELS * 1e6) ** 0.5)
    rows = []
    for name, kind, shape in (("16-bit grey", np.uint16, ()), ("colour", np.uint8, (3,)), ("alpha", np.uint8, (4,))):
        stream = io.BytesIO()
        Image.fromarray(np.zeros((side, side, *shape), kind)).save(stream, "PNG")
        body = hostile_requests.split(base64.b64encode(stream.getvalue()).decode())
        case = hostile_requests.Case(name, 200, "", body)
        Path(f"/proc/{process.pid}/clear_refs").write_text("5")  # VmHWM begins anew
        before, started = memory(process, "VmRSS"), time.monotonic()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            statuses = list(pool.map(lambda case: hostile_requests.ask(port, case, 300)[0], [case] * AT_ONCE))
        seconds, peak = time.monotonic() - started, memory(process, "VmHWM")
        said = ", ".join(f"{statuses.count(status)} x {status}" for status in sorted(set(statuses)))
        rows.append(
            (name, f"{len(body) / 1000:.0f} KB", said, f"{seconds:.1f} s", f"{before:.0f} MB", f"{peak:.0f} MB")
        )
    show(
        "hostile_memory",
        f"{AT_ONCE} requests at once, each with a PNG of {side} x {side} pixels, the most that the server allows.",
        ("pixels", "body", "answers", "time", "memory before", "at most"),
        rows,
    )


if __name__ == "__main__":
    main()
