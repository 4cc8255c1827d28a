"""What a training is: the digest of all that its result depends on, by which it is known before and after."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from frostline import digest, shards, weights
from frostline.params import Params


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
    """Digest of settings, pictures, weights, and of this package's own files: what a checkpoint belongs to.

    locate: where `backbone.weights` lies on this machine.
    """
    package = Path(shards.__file__).parent
    files = [path for path in sorted(package.rglob("*")) if path.suffix in {".py", ".npz"}]
    return digest.of_value(
        {
            "params": settings(params),
            "weights": weights.content(locate(params.backbone.weights)),
            "data": [pictures.digest for pictures in sets],
            "package": [digest.of_file(path) for path in files],
            "keras": version("keras"),
        }
    )[:32]
