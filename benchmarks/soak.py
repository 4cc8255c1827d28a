"""A long run of `frostline serve --follow`: good, hostile, slow and large requests while the champion moves twice.

    FROSTLINE_TEST_ASSETS=.../assets python benchmarks/soak.py [--requests 20000]

16 clients send real photos; every twentieth request is garbage of one of several kinds. Two more clients send a whole
request a few bytes at a time, and others leave in the middle of it. The versions have other classes, and each answer is
compared with the label that the version in its header gives. At a third and at two thirds of the requests the champion
moves. The memory is that of the server's process.
"""

from __future__ import annotations

import argparse
import http.client
import io
import itertools
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import champions
import hostile_requests
import numpy as np
import workspace
from hostile_requests import Case
from PIL import Image
from ruamel.yaml import YAML
from table import show

ASSETS = Path(os.environ.get("FROSTLINE_TEST_ASSETS", "assets")).resolve()
NAME, SIZE, CLIENTS, PARTS = "soak", 96, 16, 10
CLASSES = {1: tuple(f"red {number}" for number in range(10)), 2: tuple(f"blue {number}" for number in range(10))}
MARGIN = 1e-3  # between the two best classes of a photo that is used, so that rounding changes no label
HEAD = "POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n"
JPEG = {"Content-Type": "image/jpeg"}


@dataclass
class Tally:
    """What happened in a part of the run."""

    answered: Counter[int] = field(default_factory=Counter)  # right answers by version
    wrong: int = 0
    lost: int = 0  # good requests without status 200
    refused: Counter[int] = field(default_factory=Counter)  # garbage, by status
    unexplained: int = 0  # garbage that was not refused, or without a reason
    memory: list[float] = field(default_factory=list)  # MB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=20_000)
    chosen = parser.parse_args()
    files = sorted((ASSETS / "clothing-small" / "validation").rglob("*.jpg"))[:200]
    if not files:
        sys.exit("FROSTLINE_TEST_ASSETS is not set: the photos and weights are not part of this repository")
    with workspace.workspace() as project:
        settings = workspace.params({"tracking.uri": "auto"})
        YAML().dump(settings.model_dump(mode="json"), project / "params.yaml")
        bundles = [build(project / f"bundle{number}", names, number) for number, names in CLASSES.items()]
        champions.register(settings.tracking, NAME, bundles)
        photos, labels = known([path.read_bytes() for path in files], bundles)
        run = Soak(photos, labels, chosen.requests, lambda number: champions.crown(settings.tracking, NAME, number))
        seconds = run.all()
    report(run, seconds, chosen.requests)


def build(folder: Path, classes: tuple[str, ...], seed: int) -> Path:
    """A bundle of MobileNetV2 with a head of random weights."""
    from frostline.models import backend

    with backend.quiet():
        import keras

        from frostline.data import shards
        from frostline.models import assembly, backbones, bundles, heads

    keras.utils.set_random_seed(seed)
    weights = ASSETS / "weights" / "mobilenet_v2_1.0_224_no_top.h5"
    backbone = backbones.build("MobileNetV2", str(weights), SIZE)
    head = heads.build(backbone.model.output.shape[1:], len(classes), "avg", [], "relu", False)
    folder.mkdir()
    made_from = workspace.made_from("MobileNetV2", "none", seed=seed)
    layout = shards.Layout(classes, SIZE, "crop")
    bundles.save(folder, bundles.Bundle(assembly.whole(backbone, head), layout, made_from))
    return folder


def known(photos: list[bytes], bundles: list[Path]) -> tuple[list[bytes], dict[int, list[str]]]:
    """The photos that both versions are sure enough of, and the label that each version gives them."""
    from frostline.serving import loading

    sure = np.ones(len(photos), bool)
    labels = {}
    for number, bundle in enumerate(bundles, 1):
        scorer = loading.scorer_of(bundle)
        shares = scorer.probabilities([scorer.prepare(photo) for photo in photos])
        best = np.sort(shares, axis=1)
        sure &= best[:, -1] - best[:, -2] > MARGIN
        labels[number] = [scorer.classes[column] for column in shares.argmax(axis=1)]
    rows = np.flatnonzero(sure)
    return [photos[row] for row in rows], {number: [each[row] for row in rows] for number, each in labels.items()}


class Soak:
    """The run: what is sent, and what came back, by tenths of it."""

    def __init__(self, photos: list[bytes], labels: dict[int, list[str]], requests: int, crown: object) -> None:
        self.photos, self.labels, self.requests, self.crown = photos, labels, requests, crown
        self.parts = [Tally() for _ in range(PARTS)]
        self.slow = Counter[str]()
        self.numbers, self.lock, self.done = itertools.count(), threading.Lock(), threading.Event()
        self.garbage = garbage(photos)
        self.large = large()
        self.moved: list[float] = []

    def all(self) -> float:
        """Run it; the seconds it took."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            self.port = taken.getsockname()[1]
        options = ["--follow", "--follow-seconds", "1", "--port", str(self.port), "--max-seconds", "30"]
        command = [sys.executable, "-m", "frostline", "serve", f"models:/{NAME}@champion", *options]
        self.process = subprocess.Popen(command, env=os.environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            self._wait()
            started = time.monotonic()
            others = [threading.Thread(target=each) for each in (self._drip, self._drip, self._leave)]
            clients = [threading.Thread(target=self._client) for _ in range(CLIENTS)]
            for thread in (*others, *clients):
                thread.start()
            for thread in clients:
                thread.join()
            seconds = time.monotonic() - started
            self.done.set()
            for thread in others:
                thread.join()
            if self.process.poll() is not None:
                sys.exit(f"the server ended with {self.process.returncode}")
            self.parts[-1].memory.append(self._memory())
        finally:
            self.process.terminate()
            self.errors = self.process.communicate()[1].decode()
        return seconds

    def _wait(self) -> None:
        while True:
            with suppress(OSError):
                connection = http.client.HTTPConnection("127.0.0.1", self.port)
                connection.request("GET", "/ready")
                if connection.getresponse().status == 200:
                    return
            if self.process.poll() is not None:
                sys.exit(f"the server ended: {self.process.communicate()[1].decode()}")
            time.sleep(0.2)

    def _client(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        while (number := next(self.numbers)) < self.requests:
            part = self.parts[number * PARTS // self.requests]
            for move, version in ((1, 2), (2, 1)):
                if number == self.requests * move // 3:
                    self.crown(version)
            if number % 100 == 0:
                with self.lock:
                    part.memory.append(self._memory())
            if number % 20 == 7:
                self._send_garbage(number, part)
            else:
                self._send_photo(number, part, connection)

    def _send_photo(self, number: int, part: Tally, connection: http.client.HTTPConnection) -> None:
        is_large, row = number % 500 == 11, number % len(self.photos)
        try:
            connection.request("POST", "/invocations", self.large if is_large else self.photos[row], JPEG)
            answer = connection.getresponse()
            status, text, header = answer.status, answer.read(), answer.headers.get("X-Frostline-Model", "")
        except (OSError, http.client.HTTPException):
            connection.close()
            status, text, header = 0, b"", ""
        with self.lock:
            if status != 200:
                part.lost += 1
                return
            version = int(header.split(";")[0].rsplit("/", 1)[1])
            label = json.loads(text)["predictions"][0]["label"]
            if label in CLASSES[version] and (is_large or label == self.labels[version][row]):
                part.answered[version] += 1
            else:
                part.wrong += 1

    def _send_garbage(self, number: int, part: Tally) -> None:
        case = self.garbage[number // 20 % len(self.garbage)]
        status, text = hostile_requests.ask(self.port, case, 120)
        with self.lock:
            part.refused[status] += 1
            part.unexplained += status != case.status or case.reason not in text.decode("latin-1")

    def _drip(self) -> None:
        """Send whole requests, a piece at a time."""
        for row in itertools.cycle(range(len(self.photos))):
            photo = self.photos[row]
            whole = f"{HEAD}Connection: close\r\nContent-Length: {len(photo)}\r\n\r\n".encode() + photo
            with socket.create_connection(("127.0.0.1", self.port), timeout=60) as line:
                for start in range(0, len(whole), len(whole) // 20 + 1):
                    line.sendall(whole[start : start + len(whole) // 20 + 1])
                    if self.done.wait(0.15):
                        return
                answer = b"".join(iter(lambda line=line: line.recv(2**16), b""))
            version = 1 if b"/soak/1;" in answer else 2
            is_right = answer.startswith(b"HTTP/1.1 200 ") and self.labels[version][row].encode() in answer
            with self.lock:
                self.slow["right" if is_right else "wrong"] += 1

    def _leave(self) -> None:
        """Leave in the middle of a request."""
        while not self.done.wait(0.5):
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=60) as line:
                line.sendall(f"{HEAD}Content-Length: 100000\r\n\r\n".encode() + bytes(5000))
            with self.lock:
                self.slow["left"] += 1

    def _memory(self) -> float:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def garbage(photos: list[bytes]) -> list[Case]:
    """Requests that must be refused, with a reason."""
    return [
        Case("half a photo", 400, "row 0, image: ", photos[0][: len(photos[0]) // 2], headers=JPEG),
        Case("a page", 400, "not an image", b"<html>not an image</html>", headers=JPEG),
        Case("nothing", 400, "not an image", b"", headers=JPEG),
        Case("51 megapixels", 400, "too many pixels", hostile_requests.png(8500, 6000), headers=JPEG),
        Case("half of JSON", 400, "not valid JSON", b'{"dataframe_split": '),
        Case("base64 that is none", 400, "is not base64", hostile_requests.split("?" * 100)),
        Case("text", 415, "send application/json", b"hello", headers={"Content-Type": "text/plain"}),
        Case("33 MB", 413, "more than 32 MB", lambda: bytes(33 * 2**20), headers=JPEG),
        Case("another site's page", 403, "another site", photos[0], headers={**JPEG, "Origin": "http://evil.example"}),
        Case("another host", 421, "Host must be", photos[0], headers={**JPEG, "Host": "evil.example"}),
        Case("no address", 404, "not found", b"", path="/nowhere"),
    ]


def large() -> bytes:
    """A JPEG of 48 megapixels."""
    stream = io.BytesIO()
    Image.linear_gradient("L").resize((8000, 6000)).convert("RGB").save(stream, "JPEG")
    return stream.getvalue()


def report(run: Soak, seconds: float, requests: int) -> None:
    """The table, by tenths of the run."""
    rows = []
    for number, part in enumerate(run.parts, 1):
        refused = ", ".join(f"{count} x {status}" for status, count in sorted(part.refused.items()))
        memory = f"{np.median(part.memory):.0f} ({max(part.memory):.0f})"
        counts = (part.wrong, part.lost, refused, part.unexplained, memory)
        versions = [f"{part.answered[version]:,}" for version in CLASSES]
        rows.append([f"{number * 100 // PARTS}%", *versions, *map(str, counts)])
    before, after = (float(np.median(run.parts[place].memory)) for place in (1, -1))
    show(
        "soak",
        f"{requests:,} requests at {CLIENTS} clients to `frostline serve --follow` in {seconds:.0f} s (MobileNetV2, "
        f"{SIZE} px, photos of clothing-small, on cores that others use too), of which 5% are garbage and one in 500 "
        "a photo of 48 megapixels. The champion moved to version 2 at a third of them and back to 1 at two thirds. "
        "Meanwhile "
        f"{run.slow['right']:,} whole requests came a few bytes at a time and were answered right, {run.slow['wrong']} "
        f"wrong, and {run.slow['left']:,} clients left in the middle. Memory of the server after the warm-up (20%) and "
        f"at the end: {before:.0f} MB, {after:.0f} MB ({after / before - 1:+.1%}). In what the server "
        f"wrote to standard error, {len(re.findall('Traceback|warning:|ERROR', run.errors))} lines are errors.",
        [
            "",
            "right, by version 1",
            "by version 2",
            "wrong",
            "lost",
            "garbage, by status",
            "without its reason",
            "MB, median (most)",
        ],
        rows,
    )


if __name__ == "__main__":
    main()
