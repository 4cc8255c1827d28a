"""A process for each export: exports.py gives it tasks, and it answers with lines of JSON."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from frostline import paths
from frostline.data import images

ANSWER = "answer: "  # how the lines of a process begin that are not a library's
STARTING, LONGEST = 300, 120  # seconds for the start of a process, and for an answer


@dataclass(frozen=True)
class Variant:
    """One way of exporting."""

    form: str
    takes: str = "image"
    int8: bool = False

    @property
    def name(self) -> str:
        return " ".join([self.form, *(["INT8"] if self.int8 else []), *(["bytes"] if self.takes == "bytes" else [])])


class Child:
    """A process that runs one variant, or `predict` for None. It answers tasks with lines of JSON."""

    def __init__(self, folder: Path, variant: Variant | None) -> None:
        named = [variant.form, variant.takes, variant.name] if variant else ["", "image", str(paths.BUNDLE)]
        command = [sys.executable, __file__, str(folder), *named]
        quiet, self.is_hung = subprocess.DEVNULL, False
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=quiet, text=True)
        self.answers(1, STARTING)  # it says that it is ready

    def ask(self, task: str, count: int) -> list[Any]:
        """The answers to a task, fewer than `count` if the process ends or hangs."""
        print(task, file=self.process.stdin, flush=True)
        return self.answers(count, LONGEST)

    def answers(self, count: int, longest: float) -> list[Any]:
        """The next answers, each within `longest` seconds."""
        found = []
        while len(found) < count and (line := self.line(longest)):
            if line.startswith(ANSWER):
                found.append(json.loads(line.removeprefix(ANSWER)))
        return found

    def line(self, longest: float) -> str:
        """The next line; empty if the process has ended, or hangs and is ended."""
        watch = threading.Timer(longest, self.end)
        watch.start()
        line = self.process.stdout.readline()
        watch.cancel()
        return line

    def end(self) -> None:
        self.is_hung = True
        self.process.kill()

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        self.process.wait()


def work(folder: Path, form: str, takes: str, path: Path) -> None:
    """The work of `Child`."""
    run, given = runner(form, path), (lambda data: data) if takes == "bytes" else images.decode
    timed = [given(row.tobytes()) for row in np.load(folder / "timed.npy", allow_pickle=True)]
    say("ready")
    for task in sys.stdin:
        if task.strip() == "times":
            say(rate(run, timed))
            continue
        for row in np.load(folder / "odd.npy", allow_pickle=True)[int(task.split()[1]) :]:
            try:
                say(np.asarray(run(given(row.tobytes()))["probabilities"]).tolist())
            except Exception:  # each runtime has its own errors
                say(None)


def say(answer: Any) -> None:
    print(ANSWER + json.dumps(answer), flush=True)


def rate(run: Callable[[Any], Any], files: list[Any]) -> dict[str, float]:
    """The median of one image in seconds, and images a second."""
    for file in files[:5]:
        run(file)
    seconds = []
    for file in files:
        begin = time.perf_counter()
        run(file)
        seconds.append(time.perf_counter() - begin)
    return {"p50": statistics.median(seconds), "rate": len(seconds) / sum(seconds)}


def runner(form: str, path: Path) -> Callable[[Any], Any]:
    """A function from what is given to the answers. form: empty for `predict`."""
    if form:
        from frostline.exports.formats import FORMATS

        return FORMATS[form].load(path / FORMATS[form].file)
    from frostline.serving.scoring import Scorer

    scorer = Scorer(path)
    return lambda image: scorer.predictions([images.resize(image, scorer.image_size, scorer.resize)])


if __name__ == "__main__":
    place, form, takes, name = sys.argv[1:]
    work(Path(place), form, takes, Path(name))
