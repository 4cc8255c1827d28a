"""Calls that a server did not answer, kept in the project until it does.

An outbox is a folder. `to.json` says for which run its calls are, `calls.jsonl` has one call in each line, in their
order, and the folders beside it have the files that calls name, as hard links if the disk allows them. A process may be
killed between a call and its removal from the outbox. So a call may be made twice, and its receiver must allow for
that.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frostline.core import atomic

TO, CALLS, LOCK = "to.json", "calls.jsonl", "lock"


@dataclass(frozen=True)
class Call:
    """A method's name, its arguments (JSON values) by name, and the files and folders that it takes."""

    method: str
    arguments: Mapping[str, Any]
    paths: Sequence[Path] = ()


@dataclass(frozen=True)
class Outbox:
    """An outbox. to: the run that its calls are for, in JSON values. The folder is created with the first call."""

    folder: Path
    to: Mapping[str, Any]

    @property
    def is_empty(self) -> bool:
        return not (self.folder / CALLS).exists()

    def put(self, call: Call) -> None:
        """Add a call, and keep the files that it names as they are now."""
        if not (self.folder / TO).exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            atomic.write_json(self.folder / TO, dict(self.to))
        links = []
        for path in call.paths:
            place = self.folder / str(len(list(self.folder.iterdir()))) / path.name
            place.parent.mkdir()
            _link(path, place)
            links.append(str(place.relative_to(self.folder)))
        line = json.dumps({"method": call.method, "arguments": dict(call.arguments), "paths": links})
        with (self.folder / CALLS).open("a", encoding="utf-8") as calls:
            calls.write(line + "\n")

    def calls(self) -> list[Call]:
        """The calls in their order, without a last line that a power cut broke."""
        try:
            lines = (self.folder / CALLS).read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        calls = []
        for number, line in enumerate(lines):
            try:
                call = json.loads(line)
            except ValueError:
                if number == len(lines) - 1:
                    break
                raise
            calls.append(Call(call["method"], call["arguments"], [self.folder / path for path in call["paths"]]))
        return calls

    def readdress(self, to: Mapping[str, Any]) -> None:
        """Give its calls to another run."""
        atomic.write_json(self.folder / TO, dict(to))

    def clear(self) -> None:
        """Remove all calls."""
        (self.folder / CALLS).unlink(missing_ok=True)  # first, so that a kill leaves no calls without their files
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Whether this process has the outbox for itself during the block. One in use is sent by its own process."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic.try_lock(self.folder / LOCK) as holder:
            yield holder is None


def boxes(folder: Path) -> list[Outbox]:
    """All outboxes with calls, the oldest first."""
    files = sorted(folder.glob(f"*/{CALLS}"), key=lambda path: path.stat().st_mtime)
    return [
        Outbox(path.parent, json.loads((path.parent / TO).read_text(encoding="utf-8")))
        for path in files
        if (path.parent / TO).exists()
    ]


def _link(path: Path, place: Path) -> None:
    """Keep a file or folder under another name. Files are replaced by renaming, so a hard link keeps the content."""
    if path.is_dir():
        shutil.copytree(path, place, copy_function=_link_file)
    else:
        _link_file(str(path), str(place))


def _link_file(path: str, place: str) -> None:
    try:
        os.link(path, place)
    except OSError:  # another disk, or one without hard links
        shutil.copyfile(path, place)
