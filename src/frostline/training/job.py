"""The identity of a training: the digest of everything that its result depends on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from frostline import paths
from frostline.core import atomic, digest, own_code
from frostline.data import shards
from frostline.errors import StateError
from frostline.models import hub_presets, weights
from frostline.params.schema import Params

# The packages that a training's result depends on. An edit of code that only plots or logs must not discard a snapshot.
PACKAGE = Path(__file__).parents[1]
CODE = ("core", "params", "data", "models", "features", "training")
SUFFIXES = {".py", ".npz"}


def settings(params: Params) -> dict[str, Any]:
    """The settings that a training depends on: all except those of records, evaluation, sweeps and cache sizes, and the
    number of devices, which changes no more than rounding: a training goes on, or is repeated, on another machine."""
    unrelated: Any = {
        "tracking": True,
        "evaluate": True,
        "sweep": True,
        "registry": True,
        "cache": {"disk_gb", "memory_gb"},
        "finetune": {"devices"},
    }
    return params.model_dump(exclude=unrelated)


def key(params: Params, sets: Sequence[shards.Shards], locate: weights.Locate = str) -> str:
    """Digest of settings, images, weights and of the code that trains. A snapshot is valid for one key.

    locate: gives the place of `backbone.weights` on this machine.
    """
    named = (params.backbone.name, params.head.layers, params.finetune.loss)
    references = [each for each in named if each and own_code.is_reference(each)]
    preset = hub_presets.folder(params.backbone.name) if hub_presets.is_name(params.backbone.name) else None
    files = [path for folder in CODE for path in sorted(PACKAGE.joinpath(folder).rglob("*")) if path.suffix in SUFFIXES]
    return digest.of_value(
        {
            "params": settings(params),
            "own": [own_code.content(each) for each in references],
            "preset": digest.of_folder(preset) if preset else None,
            "weights": weights.content(locate(params.backbone.weights)),
            "data": [images.digest for images in sets],
            "package": [digest.of_file(path) for path in files],
            "keras": version("keras"),
        }
    )[:32]


def note_origin(job: str, values: Mapping[str, str]) -> None:
    """Record what a training will repeat: `study` with `trial`, or with `soup`, whose weights it averages."""
    atomic.require_writable(paths.origins())
    atomic.write_json(paths.origins() / f"{job}.json", dict(values))


def origin(job: str) -> dict[str, str]:
    """What this training repeats of a sweep, as tags; empty if it repeats nothing."""
    try:
        values = json.loads((paths.origins() / f"{job}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {f"frostline.{key}": str(value) for key, value in values.items()}


@contextmanager
def alone() -> Iterator[None]:
    """Allow one training at a time in a folder: two would share a run in MLflow and overwrite each other's bundle.

    Raises StateError if another training works in the folder.
    """
    lock = paths.training_lock()
    atomic.require_writable(lock.parent)
    with atomic.try_lock(lock) as holder:
        if holder is not None:
            raise StateError(
                f"{paths.BUNDLE}: another training works in this folder ({holder}); wait for its end, or stop it"
            )
        yield
