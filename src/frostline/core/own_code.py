"""Functions of a user's own, which params.yaml names as `package.module:function`.

The package lies in the project's `src` folder, or is installed. What a function takes and gives is said by a protocol
in the module that calls it: `OwnBackbone`, `OwnHead`, `OwnAugmentation`, `OwnLoss` and `OwnMetric`.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from frostline.core import digest, suggest
from frostline.errors import ParamsError

SOURCES = Path("src")  # of a project
PATTERN = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"


def is_reference(value: str) -> bool:
    """Whether a value of params.yaml names a function of one's own."""
    return re.fullmatch(PATTERN, value) is not None


def function(reference: str, key: str) -> Callable[..., Any]:
    """The function. key: of params.yaml. Raises ParamsError, one line with the reason, if it can't be imported."""
    module, name = _parts(reference)
    make_importable()
    try:
        loaded = importlib.import_module(module)
    except Exception as error:  # the module is a user's own and may raise anything
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ParamsError(
            f"params.yaml: {key} {reference}: the module {module} can't be imported ({reason}); fix it, or the name; "
            f"it lies in {SOURCES}/ or is installed"
        ) from error
    found = getattr(loaded, name, None)
    if not callable(found):
        names = [each for each, value in vars(loaded).items() if callable(value)]
        fix = suggest.hint(name, names, otherwise="write it, or fix the name", cutoff=0.0)
        raise ParamsError(f"params.yaml: {key} {reference}: {module} has no function {name}; {fix}")
    function: Callable[..., Any] = found
    return function


def check(reference: str, key: str) -> None:
    """Raise ParamsError if the module of a function is nowhere. Its code is not run."""
    module, _ = _parts(reference)
    make_importable()
    try:
        is_there = find_spec(module) is not None
    except (ImportError, ValueError):  # a package above it is missing
        is_there = False
    if not is_there:
        raise ParamsError(
            f"params.yaml: {key} {reference}: there is no module {module} in {SOURCES}/, and none is installed; fix "
            "the name"
        )


def content(reference: str) -> str:
    """The digest of the code of a function: of all Python files of its package, or of its module's file.

    What a result depends on has it, so that an edit of the function is no unnoticed change.
    """
    module, _ = _parts(reference)
    make_importable()
    spec = find_spec(module.partition(".")[0])
    folders = list(spec.submodule_search_locations or []) if spec else []
    origin = [spec.origin] if spec and spec.origin else []
    files = [path for folder in folders for path in sorted(Path(folder).rglob("*.py"))] or list(map(Path, origin))
    return digest.of_value([[path.name, digest.of_file(path)] for path in files])


def failed(reference: str, key: str, error: Exception) -> ParamsError:
    """The error for a function that raised one, or gave something else than its protocol says."""
    reason = str(error).partition("\n")[0] or type(error).__name__
    return ParamsError(f"params.yaml: {key} {reference} failed ({type(error).__name__}: {reason}); fix the function")


def _parts(reference: str) -> tuple[str, str]:
    module, _, name = reference.partition(":")
    return module, name


def make_importable() -> None:
    """Let Python import what lies in the `src` folder of the working directory."""
    folder = str(SOURCES.resolve())
    if SOURCES.is_dir() and folder not in sys.path:
        sys.path.insert(0, folder)
        importlib.invalidate_caches()
