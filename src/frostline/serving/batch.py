"""Predictions for many files: the files of the arguments, the answers in their order, and the output formats."""

from __future__ import annotations

import csv
import glob
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal, Protocol

from frostline.core import machine, progress
from frostline.core.escaping import cell, printable
from frostline.core.executors import Executor
from frostline.data import images
from frostline.errors import DataError
from frostline.ingest.folders import IMAGES
from frostline.ingest.listing import readable
from frostline.serving import loading
from frostline.serving.scoring import BATCH, UNKNOWN

if TYPE_CHECKING:
    from frostline.data.images import Pixels
    from frostline.models.account import Account
    from frostline.serving.scoring import Prediction, Scorer

STDIN = "-"
SUFFIXES = {*IMAGES, ".dcm", ".heic", ".heif", ".pbm", ".pgm", ".ppm"}
# Images in formats that are not read, of which a person should know.
UNREAD = re.compile(r"\.(arw|cr[23]|dds|dng|eps|exr|hdr|ico|j2k|jp2|jxl|nef|orf|psd|raf|rw2|svg|tga|xcf)")
Form = Literal["table", "json", "csv"]

# The name of a file, or `-`, and its path or bytes.
Request = tuple[str, Path | bytes]


@dataclass(frozen=True)
class Answer:
    """The answer for one image: a prediction, or the reason why the image could not be read."""

    path: str
    prediction: Prediction | None
    error: str = ""

    def as_json(self) -> dict[str, object]:
        """The keys path and those of `Prediction.as_json`, or path and error."""
        return {"path": self.path, **(self.prediction.as_json() if self.prediction else {"error": self.error})}


def find_images(names: Sequence[str]) -> list[Request]:
    """The images of the arguments, in the order of the arguments and, in folders and patterns, by name."""
    requests: list[Request] = []
    for name in names:
        path = Path(name)
        if name == STDIN:
            requests += _standard_input()
        elif path.is_dir():
            below = sorted(_files_below(path))
            files = [each for each in below if each.suffix.lower() in SUFFIXES]
            _warn_of_unread(path, [each for each in below if UNREAD.fullmatch(each.suffix.lower())])
            if not files:
                raise DataError(f"{path}: contains no images; give a folder that has some")
            requests += [(str(each), each) for each in files]
        elif path.exists() or not glob.has_magic(name):
            requests.append((name, path))
        else:
            matches = sorted(each for each in glob.glob(name, recursive=True) if Path(each).is_file())  # noqa: PTH207
            if not matches:
                raise DataError(f"{name}: matches no file; fix the pattern")
            requests += [(each, Path(each)) for each in matches]
    return requests


def _warn_of_unread(folder: Path, files: Sequence[Path]) -> None:
    counts = Counter(path.suffix.lower() for path in files)
    if counts:
        kinds = ", ".join(f"{count:,} {suffix}" for suffix, count in counts.most_common())
        print(
            f"warning: {folder}: left out images in formats that are not read ({kinds}); convert them", file=sys.stderr
        )


def _files_below(folder: Path) -> Iterator[Path]:
    """The files below a folder. Hidden files are skipped, and links to folders are not followed."""
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith("."):
                yield Path(parent) / name


def _standard_input() -> list[Request]:
    data = sys.stdin.buffer.read()
    if not data:
        raise DataError("standard input: is empty; pipe an image or the names of files into it")
    if b"\0" in data:  # an image; no name has a NUL
        return [(STDIN, data)]
    return [(line, Path(line)) for line in os.fsdecode(data).splitlines() if line]


def answers(scorer: Scorer, requests: Sequence[Request]) -> Iterator[Answer]:
    """The answers in the order of the images. All cores decode a batch before the network takes it."""
    with ThreadPoolExecutor(machine.cores()) as pool:
        parts = (_answered(scorer, part, pool) for part in _parts(requests))
        for rows in progress.track(parts, len(requests), "predict", BATCH):
            yield from rows


def answers_elsewhere(executor: Executor, bundle: Path, requests: Sequence[Request]) -> Iterator[Answer]:
    """The same by an executor, which must see the images and the folder of the bundle."""
    results = executor.map(RemoteScorer(bundle.resolve()), _parts(requests), on_gpu=True)
    for rows in progress.track(results, len(requests), "predict", BATCH):
        yield from rows


@dataclass(frozen=True)
class RemoteScorer:
    """Answers in another process. bundle: its folder."""

    bundle: Path

    def __call__(self, requests: Sequence[Request]) -> list[Answer]:
        with ThreadPoolExecutor(1) as pool:
            return _answered(_scorer(self.bundle), requests, pool)


@cache
def _scorer(bundle: Path) -> Scorer:
    """The scorer of a bundle, loaded once in a process."""
    return loading.scorer_of(bundle)


def _parts(requests: Sequence[Request]) -> Iterator[Sequence[Request]]:
    return (requests[start : start + BATCH] for start in range(0, len(requests), BATCH))


def _answered(scorer: Scorer, requests: Sequence[Request], pool: ThreadPoolExecutor) -> list[Answer]:
    def prepare(request: Request) -> Pixels | str:
        try:
            return scorer.prepare(request[1])
        except images.UnreadableImageError as reason:
            return str(reason)

    results = list(pool.map(prepare, requests))
    predictions = iter(scorer.predictions([each for each in results if not isinstance(each, str)]))
    return [
        Answer(readable(name), None, each) if isinstance(each, str) else Answer(readable(name), next(predictions))
        for (name, _), each in zip(requests, results, strict=True)
    ]


class Writer(Protocol):
    """Writes answers one by one."""

    def __init__(self, out: IO[str], account: Account) -> None: ...
    def row(self, answer: Answer) -> None: ...
    def end(self) -> None: ...


class Lines:
    """Label, probability and path as text, and the set if it is not the label alone; errors are left to standard
    error. An unknown image has no probability, but the class that it is most like."""

    def __init__(self, out: IO[str], account: Account) -> None:
        self.out, self.width = out, max(len(printable(name)) for name in (*account.layout.classes, UNKNOWN))

    def row(self, answer: Answer) -> None:
        prediction = answer.prediction
        if prediction is None:
            return
        label, path, note = printable(prediction.label), printable(answer.path), ""
        if prediction.unknown:
            likeliest = max(prediction.probabilities, key=prediction.probabilities.__getitem__)
            note = f"  (of the classes most like {printable(likeliest)})"
        elif prediction.set is not None and prediction.set != [prediction.label]:
            note = f"  {{{', '.join(map(printable, prediction.set))}}}"
        number = "-     " if prediction.unknown else f"{prediction.probability:.4f}"
        print(f"{label:<{self.width}}  {number}  {path}{note}", file=self.out)

    def end(self) -> None: ...


class JsonArray:
    """A JSON array with one object on each line."""

    def __init__(self, out: IO[str], account: Account) -> None:
        self.out, self.before = out, "["

    def row(self, answer: Answer) -> None:
        text = json.dumps(answer.as_json(), ensure_ascii=False)
        print(
            self.before, text if text.isprintable() else json.dumps(answer.as_json()), sep="\n", end="", file=self.out
        )
        self.before = ","

    def end(self) -> None:
        print("\n]" if self.before == "," else "[]", file=self.out)


class Csv:
    """The columns path, label, probability and error; set (a JSON list) and unknown if the bundle says them; and one
    column for the probability of each class."""

    def __init__(self, out: IO[str], account: Account) -> None:
        self.writer, self.classes = csv.writer(out, lineterminator="\n"), account.layout.classes
        self.says = account.answers.says if account.answers else ()
        probabilities = (cell(f"p({name})") for name in self.classes)
        self.writer.writerow(["path", "label", "probability", "error", *self.says, *probabilities])

    def row(self, answer: Answer) -> None:
        prediction = answer.prediction
        columns = [cell(prediction.label), prediction.probability] if prediction else ["", ""]
        probabilities = [prediction.probabilities[name] if prediction else "" for name in self.classes]
        said = prediction.as_json() if prediction else {}
        says = [cell(json.dumps(said[name], ensure_ascii=False)) if name in said else "" for name in self.says]
        self.writer.writerow([cell(answer.path), *columns, cell(answer.error), *says, *probabilities])

    def end(self) -> None: ...


WRITERS: dict[Form, type[Writer]] = {"table": Lines, "json": JsonArray, "csv": Csv}
