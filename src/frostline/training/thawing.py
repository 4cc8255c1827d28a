"""The blocks of a backbone: when each of them thaws, and its learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import keras

from frostline.models import freezing
from frostline.models.freeze_rules import FreezeRule
from frostline.models.made_from import LayerGroup


def blocks(model: keras.Model) -> list[int]:
    """Where the blocks of a backbone end, from the bottom up, as numbers of layers; the last one counts all layers.

    A block has weights and consists of the layers at one resolution, up to the last cut point there. It is a reduction
    of timm's `feature_info`, or a block in the layer names of VGG and ResNet.
    """
    resolutions = {tuple(cut.tensor.shape[1:-1]): cut.depth for cut in freezing.cut_points(model)}
    block_ends: list[int] = []
    for end in sorted({*resolutions.values(), len(model.layers)}):
        if any(layer.weights for layer in model.layers[block_ends[-1] if block_ends else 0 : end]):
            block_ends.append(end)
    return [*block_ends[:-1], len(model.layers)]


def from_top(model: keras.Model) -> dict[str, int]:
    """The depth of each weight of a backbone below the head, in blocks, by its path: 1 in the last block."""
    ends = blocks(model)
    starts = [0, *ends[:-1]]
    return {
        weight.path: len(ends) - number
        for number, (start, end) in enumerate(zip(starts, ends, strict=True))
        for layer in model.layers[start:end]
        for weight in layer.weights
    }


def stages(model: keras.Model, rule: FreezeRule, epochs: int) -> list[tuple[int, range]]:
    """The number of frozen layers, with the epochs (from 0) for which it holds. Gradual thawing begins with the last
    block and gives each block about the same number of epochs; no block is frozen again."""
    line = freezing.depth(model, rule.line)
    if not rule.is_gradual:
        return [(line, range(epochs))]
    depths = [*(end for end in reversed(blocks(model)[:-1]) if end > line), line]
    begins = {number * epochs // len(depths): frozen for number, frozen in enumerate(depths)}
    ends = [*list(begins)[1:], epochs]
    return [(frozen, range(begin, end)) for (begin, frozen), end in zip(begins.items(), ends, strict=True)]


def groups(model: keras.Model, stages: Sequence[tuple[int, range]], rate: float, decay: float) -> list[LayerGroup]:
    """The layer groups of a backbone from the bottom up: its blocks, divided in two if a freeze line crosses a block.
    stages: the value of `stages`; rate: the learning rate above the blocks; decay: see `Phase.layer_decay`."""
    last = stages[-1][0]
    ends = sorted({*blocks(model), *(frozen for frozen, _ in stages)} - {0})
    tops = blocks(model)
    result = []
    for start, end in pairwise([0, *ends]):
        layers = model.layers[start:end]
        depth = sum(top > start for top in tops)
        start_epoch = next((span.start + 1 for frozen, span in stages if frozen <= start), 0)
        parameters = sum(layer.count_params() for layer in layers)
        group_rate = rate * decay**depth if start >= last else 0.0
        result.append(
            LayerGroup(f"{layers[0].name}..{layers[-1].name}", len(layers), parameters, group_rate, start_epoch)
        )
    return result
