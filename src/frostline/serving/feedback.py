"""What people say an image really is: a table that `data.source` takes, with the images in a folder beside it."""

from __future__ import annotations

import csv
import hashlib
import threading
from dataclasses import dataclass
from pathlib import Path

from frostline.core import atomic
from frostline.errors import StateError, UserError, of_system
from frostline.serving.payload import RefusedRequestError

COLUMNS = ("path", "label")

# How files of an image format begin; other formats get no suffix, and are known by their content too.
SUFFIXES = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png", b"GIF8": ".gif", b"RIFF": ".webp", b"BM": ".bmp"}


@dataclass(frozen=True)
class Kept:
    """How much is kept: images, and bytes of all of them."""

    images: int = 10_000
    size: int = 2**30


class Feedback:
    """A table and its folder. The same image is one row, in which the last answer counts."""

    def __init__(self, table: Path, most: Kept) -> None:
        """Read what is there. Raises UserError if the table is another one, StateError if it cannot be written."""
        self.table, self.most = table, most
        self.folder = table.with_name(f"{table.stem}-images")
        self._lock = threading.Lock()
        atomic.require_writable(table.parent)
        try:
            self._labels = _read(table)
            atomic.require_writable(self.folder)
            self._size = sum(path.stat().st_size for path in self.folder.iterdir())
        except OSError as error:
            raise StateError(of_system(error)) from error

    def keep(self, image: bytes, label: str) -> None:
        """Keep an image and its label. Raises RefusedRequestError, status 507, if there is no room."""
        suffix = next((suffix for start, suffix in SUFFIXES.items() if image.startswith(start)), "")
        name = f"{self.folder.name}/{hashlib.sha256(image).hexdigest()}{suffix}"
        with self._lock:
            is_new = name not in self._labels
            if is_new and (len(self._labels) >= self.most.images or self._size + len(image) > self.most.size):
                raise RefusedRequestError(507, "the server keeps no more answers; its owner must make room")
            labels = {**self._labels, name: label}
            try:
                if is_new:
                    with atomic.file(self.table.parent / name) as path:
                        path.write_bytes(image)
                with atomic.file(self.table) as path, path.open("w", encoding="utf-8", newline="") as file:
                    csv.writer(file, lineterminator="\n").writerows([COLUMNS, *labels.items()])
            except (OSError, StateError) as error:
                raise RefusedRequestError(507, "the server cannot keep the answer: it has no room for it") from error
            self._labels = labels
            self._size += len(image) * is_new


def _read(table: Path) -> dict[str, str]:
    """The labels by path of a table that is there. Raises UserError if it has other columns, OSError."""
    if not table.exists():
        return {}
    with table.open(encoding="utf-8", newline="") as file:
        try:
            header, *rows = [*csv.reader(file)] or [[]]
            if tuple(header) != COLUMNS or any(len(row) != len(COLUMNS) for row in rows):
                raise ValueError
        except (ValueError, csv.Error):
            raise UserError(f"--feedback {table}: is another table; name a new file, or one with path,label") from None
    return dict(rows)
