"""The blocks of a backbone, and the band of layers that a freeze rule trains."""

from __future__ import annotations

import re
from typing import Any

import keras

from frostline.errors import ParamsError
from frostline.models import freeze_rules, freezing
from frostline.models.freeze_rules import Band, FreezeRule

# The beginning of the names of a transformer's layers, in `vision_transformer`.
_TOKEN_BLOCK = re.compile(r"block\d+_")


def blocks(model: keras.Model) -> list[int]:
    """Where the blocks of a backbone end, from the bottom up, as numbers of layers; the last one counts all layers.

    A block has weights and consists of the layers at one resolution, up to the last cut point there. It is a reduction
    of timm's `feature_info`, or a block in the layer names of VGG and ResNet. Tokens have one resolution, so the blocks
    of a transformer are those that the names of its layers count; the first one is the embedding, and the last one has
    the norm behind it.
    """
    parts: dict[Any, int] = {}
    part = None
    for cut in freezing.cut_points(model):
        resolution = tuple(cut.tensor.shape[1:-1])
        if len(resolution) == 1 and (match := _TOKEN_BLOCK.match(cut.layer)):
            part = match[0]
        parts[resolution, part] = cut.depth
    block_ends: list[int] = []
    for end in sorted({*parts.values(), len(model.layers)}):
        if any(layer.weights for layer in model.layers[block_ends[-1] if block_ends else 0 : end]):
            block_ends.append(end)
    return [*block_ends[:-1], len(model.layers)]


def of_rule(model: keras.Model, rule: FreezeRule) -> Band:
    """The layers of a backbone that are trained at the end, by a freeze rule.

    Raises ParamsError for a layer or block that the backbone does not have, and for a band that ends before it begins.
    """
    total = len(model.layers)
    if rule.band is None:
        return Band.above(freezing.depth(model, rule.line), total)
    first, last = (_place(model, end) for end in rule.band)
    if last.stop <= first.start:
        raise ParamsError(f"params.yaml: finetune.train: {rule.band[1]} lies before {rule.band[0]}; swap them")
    if not any(layer.weights for layer in model.layers[first.start : last.stop]):
        raise ParamsError(f"params.yaml: finetune.train: {rule.band[0]} to {rule.band[1]} has no weights; widen it")
    return Band(first.start, last.stop, total)


def _place(model: keras.Model, end: int | str) -> range:
    """The numbers of the layers that an end of a band stands for: those of a block, or a single one."""
    if isinstance(end, int):
        ends = blocks(model)
        if not 1 <= end <= len(ends):
            raise ParamsError(
                f"params.yaml: finetune.train names block {end}, but {model.name} has blocks 1 to {len(ends)}; fix it"
            )
        return range(ends[end - 2] if end > 1 else 0, ends[end - 1])
    names = [operation.name for operation in model.operations]
    if end not in names:
        raise freeze_rules.unknown_end(end, model.name, names)
    before = sum(isinstance(each, keras.layers.Layer) for each in model.operations[: names.index(end)])
    return range(before, before + 1)
