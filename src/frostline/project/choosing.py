"""Pick recipe, body and image size for somebody's images, and say why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from frostline.core import suggest
from frostline.errors import UserError
from frostline.models import backbones, freeze_rules, layer_names
from frostline.params.schema import Params
from frostline.project.appearance import Appearance

BODY = "EfficientNetLite0"  # the best of the bodies whose weights come with pip and that a CPU trains in minutes
FEW = 50  # images a class, below which only the head is trained
MANY = 100_000  # images, from which on stored variants would fill a disk
SMALL = 64  # pixels: photos of at most this side gain nothing from the recipe's size
DRAWN_AS = 20_000  # variants, at most about so many


@dataclass(frozen=True)
class Pick:
    """recipe: its name, None for the params.yaml that this package comes with; changes: values by dotted key."""

    recipe: str | None
    changes: Mapping[str, Any]
    why: str


def choose(seen: Appearance | None) -> Pick:
    """The settings to begin with. seen: None for a source that could not be looked at."""
    if seen is None:
        return Pick("photos", {"backbone.name": BODY}, "photos are assumed, since the source was not opened")
    if seen.are_drawings or 0 < seen.side < 16:
        variants = max(1, min(12, DRAWN_AS // max(1, seen.images)))
        why = "it was pretrained on shapes and letters, and needs no more pixels"
        return Pick(None, {"augment.copies": variants}, why)
    size = {"data.image_size": 96} if 0 < seen.side <= SMALL else {}
    if seen.smallest < FEW:
        changes = {"backbone.name": BODY, "data.image_size": 160, **size}
        return Pick("small-similar", changes, f"fewer than {FEW} photos in a class, so only the head is trained")
    copies = {"augment.copies": 0} if seen.images >= MANY else {}
    return Pick("photos", {**size, **copies}, f"ImageNet shows photos, and from {FEW} a class on fine-tuning pays")


def with_body(params: Params, body: str) -> dict[str, Any]:
    """The values to change, by dotted key, so that params are for another body: its weights, size and freeze line.

    A freeze line that is a layer's name becomes the number of layers at the same share of the depth. Raises UserError
    for an unknown body.
    """
    if body not in backbones.TABLE:
        near = suggest.nearest(body.lower(), known := {name.lower(): name for name in backbones.TABLE}, cutoff=0.5)
        fix = f"did you mean {known[near]}?" if near else "`frostline backbones` lists them"
        raise UserError(f"--body: {body} is not known; {fix}")
    spec, before = backbones.TABLE[body], params.backbone.name
    if body == before:
        return {}
    weights = "builtin" if spec.top1 is None else "imagenet"
    size = spec.native if spec.top1 is None else max(params.data.image_size, spec.smallest)
    changes: dict[str, Any] = {"backbone.name": body, "backbone.weights": weights, "data.image_size": size}
    changes |= {"backbone.alpha": None, "backbone.until": None}
    freeze, names = params.finetune.freeze, layer_names.table()[before]
    rule = freeze_rules.parse(freeze) if freeze is not None else None
    if rule is not None and rule.line in names:
        share = (names.index(rule.line) + 1) / len(names)
        changes["finetune.freeze"] = round(share * backbones.sizes()[body].layers)
    return changes
