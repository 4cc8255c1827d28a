"""Run stages in a folder of their own, with the repository's params.yaml and a few keys changed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from frostline.models.made_from import Audit, BackboneOrigin, MadeFrom, SourceDigests
from frostline.params.schema import Params

ROOT = Path(__file__).resolve().parent.parent


def params(changes: dict[str, Any]) -> Params:
    """params.yaml with dotted keys changed and tracking off."""
    values = YAML(typ="safe", pure=True).load(ROOT / "params.yaml")
    for key, value in {"tracking.uri": "none", **changes}.items():
        *sections, name = key.split(".")
        section = values
        for part in sections:
            section = section[part]
        section[name] = value
    return Params.model_validate(values)


def made_from(
    backbone: str = "frostnet",
    weights: str = "builtin",
    alpha: float | None = None,
    frozen: int = 66,
    seed: int = 1,
    head: Mapping[str, Any] | None = None,
    temperature: float | None = None,
) -> MadeFrom:
    """The account of a classifier that params.yaml could have made."""
    given = params({})
    return MadeFrom(
        seed=seed,
        backbone=BackboneOrigin(backbone, weights, alpha),
        head=head or given.head.model_dump(),
        finetune=given.finetune.model_dump(),
        cache_dtype="float32",
        augment=given.augment.model_dump(include={"mode", "mixup", "cutmix"}),
        copies=2,
        audit=Audit(66, frozen, 5, 9, 0, 0, frozen),
        data=SourceDigests("a" * 64, "b" * 64),
        keras="3",
        temperature=temperature,
    )


@contextmanager
def workspace() -> Iterator[Path]:
    """A temporary working directory that is also the project root, so that nothing is read from an earlier run."""
    before, root = Path.cwd(), os.environ.get("DVC_ROOT")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["DVC_ROOT"] = folder
        try:
            yield Path(folder)
        finally:
            os.chdir(before)
            os.environ.pop("DVC_ROOT")
            if root is not None:
                os.environ["DVC_ROOT"] = root
