"""What a training is: the digest of all that its result depends on, by which it is known before and after."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from frostline.core import digest
from frostline.data import shards
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
    """Digest of settings, pictures, weights, and of the code that trains: what a checkpoint belongs to.

    locate: where `backbone.weights` lies on this machine.
    """
    files = [path for folder in CODE for path in sorted(PACKAGE.joinpath(folder).rglob("*")) if path.suffix in SUFFIXES]
    return digest.of_value(
        {
            "params": settings(params),
            "weights": weights.content(locate(params.backbone.weights)),
            "data": [pictures.digest for pictures in sets],
            "package": [digest.of_file(path) for path in files],
            "keras": version("keras"),
        }
    )[:32]
