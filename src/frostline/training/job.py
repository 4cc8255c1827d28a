"""What a training is: the digest of all that its result depends on, by which it is known before and after."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from frostline import paths
from frostline.core import atomic, digest
from frostline.data import shards
from frostline.errors import StateError
from frostline.models import weights
from frostline.params.schema import Params

# What a training's numbers come from; an edit of what draws or logs them throws no half-finished training away.
PACKAGE = Path(__file__).parents[1]
CODE = ("core", "params", "data", "models", "features", "training")
SUFFIXES = {".py", ".npz"}


def settings(params: Params) -> dict[str, Any]:
    """The settings that belong to a training; what only says where records go, or how it is measured, does not."""
    others: Any = {
        "tracking": True,
        "evaluate": True,
        "sweep": True,
        "registry": True,
        "cache": {"disk_gb", "memory_gb"},
    }
    return params.model_dump(exclude=others)


def key(params: Params, sets: Sequence[shards.Shards], locate: weights.Locate = str) -> str:
    """Digest of settings, images, weights, and of the code that trains: what a checkpoint belongs to.

    locate: where `backbone.weights` lies on this machine.
    """
    files = [path for folder in CODE for path in sorted(PACKAGE.joinpath(folder).rglob("*")) if path.suffix in SUFFIXES]
    return digest.of_value(
        {
            "params": settings(params),
            "weights": weights.content(locate(params.backbone.weights)),
            "data": [images.digest for images in sets],
            "package": [digest.of_file(path) for path in files],
            "keras": version("keras"),
        }
    )[:32]


def note_origin(job: str, study: str, trial: int) -> None:
    """Note which trial of a sweep a training will repeat."""
    atomic.require_writable(paths.origins())
    atomic.write_json(paths.origins() / f"{job}.json", {"study": study, "trial": trial})


def origin(job: str) -> dict[str, str]:
    """Which trial of a sweep this training repeats, as tags; none where it repeats none."""
    try:
        noted = json.loads((paths.origins() / f"{job}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {f"frostline.{key}": str(value) for key, value in noted.items()}


@contextmanager
def alone() -> Iterator[None]:
    """One training at a time works in a folder: two would join one run in MLflow and overwrite each other's bundle.

    Raises StateError where another one works.
    """
    lock = paths.training_lock()
    atomic.require_writable(lock.parent)
    with atomic.try_lock(lock) as holder:
        if holder is not None:
            raise StateError(
                f"{paths.BUNDLE}: another training works in this folder ({holder}); wait for its end, or end it"
            )
        yield
