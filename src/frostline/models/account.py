"""The description of a bundle, `bundle.json`, called its account. It is checked before the network is loaded.

It ends with `digest`, over the rest of it and the bytes of the networks, so that one changed bit is noticed.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frostline.core import digest
from frostline.data.shards import Layout
from frostline.errors import DataError
from frostline.models import answer_facts, answers, made_from, weight_files
from frostline.models.answer_facts import AnswerFacts
from frostline.models.made_from import MadeFrom

ACCOUNT, MODEL, ANSWER = answers.ACCOUNT, answers.MODEL, answers.ANSWER  # whose file travels with registered models
LONGEST = 2**26  # bytes of an account
SIDES = range(1, 8193)  # of images, in pixels
RESIZES = ["crop", "pad", "stretch"]


@dataclass(frozen=True)
class Account:
    """The content of bundle.json.

    layout: classes in label order, and how images are resized; made_from: all that the network was made from; answers:
    of `answer.keras`, None if there is none.
    """

    layout: Layout
    made_from: MadeFrom
    answers: AnswerFacts | None = None


def write(folder: Path, account: Account) -> None:
    """Write the account of the networks that are already in the folder."""
    values = {**account.layout.recorded(), "made_from": account.made_from.recorded()}
    if account.answers is not None:
        values["answers"] = account.answers.recorded()
    whole = {**values, "digest": _digest(folder, values)}
    (folder / ACCOUNT).write_text(json.dumps(whole, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read(folder: Path) -> Account:
    """Read the account of a bundle. Raises DataError if there is none, or if it is damaged or not safe to load."""
    try:
        values = _values(folder)
        account = _account(values)
        _check_model(folder, values)
    except (OSError, ValueError) as error:
        raise unusable(folder, getattr(error, "strerror", None) or first_line(error)) from error
    return account


def unusable(folder: Path, reason: str) -> DataError:
    """The error for a folder that holds no bundle, or a bundle that can't be loaded."""
    return DataError(f"{folder}: holds no classifier ({reason}); run `dvc repro`, or name another one")


def first_line(error: Exception) -> str:
    """The first line of an error's text, or its class if it has no text."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def peek(folder: Path) -> Account:
    """Like `read`, but does not check the network, which may be large. Raises OSError or ValueError."""
    return _account(_values(folder))


def _values(folder: Path) -> dict[str, Any]:
    path = folder / ACCOUNT
    status = path.stat()
    if not stat.S_ISREG(status.st_mode) or status.st_size > LONGEST:
        raise ValueError(f"{ACCOUNT} is not a regular file of at most {LONGEST // 2**20} MB")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{ACCOUNT} is damaged: {error}") from None
    return values if isinstance(values, dict) else {}


def _account(values: dict[str, Any]) -> Account:
    for is_wrong, reason in _faults(values):
        if is_wrong:
            raise ValueError(f"{reason} in {ACCOUNT}")
    try:
        facts = answer_facts.read(values.get("answers"))
        return Account(Layout.of(values), made_from.read(values["made_from"]), facts)
    except ValueError as error:
        raise ValueError(f"{error} in {ACCOUNT}") from None


def _check_model(folder: Path, values: dict[str, Any]) -> None:
    names = _networks(values)
    for name in names:
        if not stat.S_ISREG((folder / name).stat().st_mode):
            raise ValueError(f"{name} is not a regular file")
    rest = {key: value for key, value in values.items() if key != "digest"}
    if "digest" in values and values["digest"] != _digest(folder, rest):
        raise ValueError(f"{ACCOUNT} or {' or '.join(names)} is damaged: their digest differs")
    for name in names:
        weight_files.require_safe(folder / name)


def _networks(values: dict[str, Any]) -> list[str]:
    """The files of the networks of an account with these values."""
    return [MODEL, ANSWER] if values.get("answers") is not None else [MODEL]


def _faults(values: dict[str, Any]) -> Iterator[tuple[bool, str]]:
    missing_keys = [key for key in ("classes", "image_size", "resize", "made_from") if key not in values]
    yield bool(missing_keys), f"no {', '.join(missing_keys)}"
    classes, size, resize = values["classes"], values["image_size"], values["resize"]
    is_names = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
    yield not is_names or len(classes) < 2, "classes that are not a list of two or more names"
    yield len(set(classes)) < len(classes), "a class that is named twice"
    yield type(size) is not int or size not in SIDES, f"an image_size that is not 1 to {SIDES[-1]}"
    yield resize not in RESIZES, f"a resize that is not one of {', '.join(RESIZES)}"


def _digest(folder: Path, account: dict[str, Any]) -> str:
    return digest.of_value([account, *(digest.of_file(folder / name) for name in _networks(account))])
