"""A bundle's folder before its network is loaded: its own account of itself, read and checked in one place.

`bundle.json` ends with `digest`, over the rest of it and the bytes of `model.keras`, so that one changed bit is
noticed. Bundles from before that have none.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from frostline.core import digest
from frostline.errors import DataError
from frostline.models import weight_files

ACCOUNT, MODEL = "bundle.json", "model.keras"
LONGEST = 2**26  # bytes of an account
SIDES = range(1, 8193)  # of images, in pixels
RESIZES = ["crop", "pad", "stretch"]


def write_account(folder: Path, account: dict[str, Any]) -> None:
    """Write the account of the network that already lies in the folder."""
    whole = {**account, "digest": _digest(folder, account)}
    (folder / ACCOUNT).write_text(json.dumps(whole, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def account(folder: Path) -> dict[str, Any]:
    """What a bundle says of itself: classes, image_size, resize, made_from. Raises DataError where it is damaged, is
    none, or holds what is not loaded from a stranger."""
    try:
        return _read(folder)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{folder}: holds no classifier ({reason}); run `dvc repro`, or name another one") from error


def unchecked(folder: Path) -> dict[str, Any]:
    """The values of a bundle's account as they stand there. Raises OSError or ValueError where there are none."""
    path = folder / ACCOUNT
    status = path.stat()
    if not stat.S_ISREG(status.st_mode) or status.st_size > LONGEST:
        raise ValueError(f"{ACCOUNT} is not a regular file of at most {LONGEST // 2**20} MB")
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{ACCOUNT} is damaged: {error}") from None
    return read if isinstance(read, dict) else {}


def _read(folder: Path) -> dict[str, Any]:
    read = unchecked(folder)
    for is_wrong, reason in _faults(read):
        if is_wrong:
            raise ValueError(f"{reason} in {ACCOUNT}")
    if not stat.S_ISREG((folder / MODEL).stat().st_mode):
        raise ValueError(f"{MODEL} is not a regular file")
    known = read.pop("digest", None)
    if known is not None and known != _digest(folder, read):
        raise ValueError(f"{ACCOUNT} or {MODEL} is damaged: their digest differs")
    weight_files.require_safe(folder / MODEL)
    return read


def _faults(read: dict[str, Any]) -> Iterator[tuple[bool, str]]:
    missing = [key for key in ("classes", "image_size", "resize", "made_from") if key not in read]
    yield bool(missing), f"no {', '.join(missing)}"
    classes, size, resize = read["classes"], read["image_size"], read["resize"]
    is_names = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
    yield not is_names or len(classes) < 2, "classes that are no list of two names or more"
    yield len(set(classes)) < len(classes), "a class that is named twice"
    yield type(size) is not int or size not in SIDES, f"an image_size that is not 1 to {SIDES[-1]}"
    yield resize not in RESIZES, f"a resize that is not one of {', '.join(RESIZES)}"
    yield not isinstance(read["made_from"], dict), "made_from that is no mapping"


def _digest(folder: Path, account: dict[str, Any]) -> str:
    return digest.of_value([account, digest.of_file(folder / MODEL)])
