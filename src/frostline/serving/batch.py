"""Many files at once: which ones are asked for, the answers in their order, and the forms in which they are written."""

from __future__ import annotations

import csv
import glob
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, Protocol

from frostline.core import machine, progress
from frostline.core.escaping import cell, printable
from frostline.data import images
from frostline.errors import DataError
from frostline.ingest.folders import IMAGES

if TYPE_CHECKING:
    from frostline.data.images import Pixels
    from frostline.serving.scoring import Scorer

STDIN = "-"
SUFFIXES = {*IMAGES, ".heic", ".heif", ".pbm", ".pgm", ".ppm"}
Form = Literal["table", "json", "csv"]

# The name of a file, or `-`, and where its bytes are.
Request = tuple[str, Path | bytes]
# path, and either label, probability and probabilities, or error.
Answer = dict[str, Any]


def requested(asked: Sequence[str]) -> list[Request]:
    """The images that were asked for, in the order of the arguments and of their names."""
    wanted: list[Request] = []
    for name in asked:
        path = Path(name)
        if name == STDIN:
            wanted += _standard_input()
        elif path.is_dir():
            below = sorted(_images_below(path))
            if not below:
                raise DataError(f"{path}: no images are below it; name a folder that has some")
            wanted += [(str(each), each) for each in below]
        elif path.exists() or not glob.has_magic(name):
            wanted.append((name, path))
        else:
            matching = sorted(each for each in glob.glob(name, recursive=True) if Path(each).is_file())  # noqa: PTH207
            if not matching:
                raise DataError(f"{name}: matches no file; fix the pattern")
            wanted += [(each, Path(each)) for each in matching]
    return wanted


def _images_below(folder: Path) -> Iterator[Path]:
    """Files whose names say that they are images; hidden ones aside, links to folders not followed."""
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES:
                yield Path(parent) / name


def _standard_input() -> list[Request]:
    data = sys.stdin.buffer.read()
    if not data:
        raise DataError("standard input: is empty; pipe an image or the names of files into it")
    try:
        lines = data.decode("utf-8").splitlines()
    except UnicodeDecodeError:
        return [(STDIN, data)]
    return [(line, Path(line)) for line in lines if line]


def answers(scorer: Scorer, wanted: Sequence[Request]) -> Iterator[Answer]:
    """Answers in the order of the images, decoded by all cores ahead of the network, some batches at a time."""
    from frostline.serving.scoring import BATCH

    def prepared(request: Request) -> Pixels | str:
        try:
            return scorer.prepare(request[1])
        except images.UnreadableImageError as reason:
            return str(reason)

    def answered() -> Iterable[list[Answer]]:
        with ThreadPoolExecutor(machine.cores()) as pool:
            for start in range(0, len(wanted), BATCH):
                part = wanted[start : start + BATCH]
                read = list(pool.map(prepared, part))
                answers = iter(scorer.answers([each for each in read if not isinstance(each, str)]))
                yield [
                    {"path": name, **({"error": each} if isinstance(each, str) else next(answers))}
                    for (name, _), each in zip(part, read, strict=True)
                ]

    for rows in progress.track(answered(), len(wanted), "predict", BATCH):
        yield from rows


class Writer(Protocol):
    """Writes rows as they come."""

    def __init__(self, out: IO[str], classes: Sequence[str]) -> None: ...
    def row(self, row: Answer) -> None: ...
    def end(self) -> None: ...


class Lines:
    """Label, probability and path, for a person; what could not be read is on standard error."""

    def __init__(self, out: IO[str], classes: Sequence[str]) -> None:
        self.out, self.width = out, max(len(printable(name)) for name in classes)

    def row(self, row: Answer) -> None:
        if "error" not in row:
            label, path = printable(row["label"]), printable(row["path"])
            print(f"{label:<{self.width}}  {row['probability']:.4f}  {path}", file=self.out)

    def end(self) -> None: ...


class JsonArray:
    """A JSON array, one object a line."""

    def __init__(self, out: IO[str], classes: Sequence[str]) -> None:
        self.out, self.before = out, "["

    def row(self, row: Answer) -> None:
        text = json.dumps(row, ensure_ascii=False)
        print(self.before, text if text.isprintable() else json.dumps(row), sep="\n", end="", file=self.out)
        self.before = ","

    def end(self) -> None:
        print("\n]" if self.before == "," else "[]", file=self.out)


class Csv:
    """path, label, probability, error, then the probability of each class in a column of its own."""

    def __init__(self, out: IO[str], classes: Sequence[str]) -> None:
        self.writer, self.classes = csv.writer(out, lineterminator="\n"), classes
        self.writer.writerow(["path", "label", "probability", "error", *(cell(f"p({name})") for name in classes)])

    def row(self, row: Answer) -> None:
        named = row.get("probabilities", {})
        texts = [cell(row.get(key, "")) for key in ("path", "label", "error")]
        own = [*texts[:2], row.get("probability", ""), texts[2]]
        self.writer.writerow([*own, *(named.get(name, "") for name in self.classes)])

    def end(self) -> None: ...


WRITERS: dict[Form, type[Writer]] = {"table": Lines, "json": JsonArray, "csv": Csv}
