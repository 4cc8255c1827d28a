"""The blocks of a backbone: how they thaw over the epochs, and how fast each learns."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import keras

from frostline.models import freezing
from frostline.models.made_from import LayerGroup


def blocks(model: keras.Model) -> list[int]:
    """Where the blocks of a backbone end, from the bottom up, as counts of layers; the last is all of them.

    A block is what works at one resolution, up to the last cut point there, and has weights: the reductions of timm's
    `feature_info`, or the blocks that VGG's and ResNet's layers are named by.
    """
    ends = {tuple(cut.tensor.shape[1:-1]): cut.depth for cut in freezing.cut_points(model)}
    found: list[int] = []
    for end in sorted({*ends.values(), len(model.layers)}):
        if any(layer.weights for layer in model.layers[found[-1] if found else 0 : end]):
            found.append(end)
    return [*found[:-1], len(model.layers)]


def from_top(model: keras.Model) -> dict[str, int]:
    """How many blocks each weight of a backbone lies below the head, by its path: 1 in the last block."""
    ends = blocks(model)
    starts = [0, *ends[:-1]]
    return {
        weight.path: len(ends) - number
        for number, (start, end) in enumerate(zip(starts, ends, strict=True))
        for layer in model.layers[start:end]
        for weight in layer.weights
    }


def stages(model: keras.Model, rule: freezing.FreezeRule, epochs: int) -> list[tuple[int, range]]:
    """How many layers are frozen in which epochs (from 0). Gradual thawing begins with the last block, and gives each
    block about the same number of epochs; nothing is frozen again."""
    line = freezing.depth(model, rule.line)
    if not rule.is_gradual:
        return [(line, range(epochs))]
    depths = [*(end for end in reversed(blocks(model)[:-1]) if end > line), line]
    begins = {number * epochs // len(depths): frozen for number, frozen in enumerate(depths)}
    ends = [*list(begins)[1:], epochs]
    return [(frozen, range(begin, end)) for (begin, frozen), end in zip(begins.items(), ends, strict=True)]


def groups(model: keras.Model, stages: Sequence[tuple[int, range]], rate: float, decay: float) -> list[LayerGroup]:
    """The blocks of a backbone from the bottom up. stages: as the function of that name gives them; rate: the learning
    rate above the blocks; decay: a block's over that of the one above it. A line may divide a block into two groups."""
    last = stages[-1][0]
    ends = sorted({*blocks(model), *(frozen for frozen, _ in stages)} - {0})
    tops = blocks(model)
    found = []
    for start, end in pairwise([0, *ends]):
        layers = model.layers[start:end]
        below = sum(top > start for top in tops)
        since = next((span.start + 1 for frozen, span in stages if frozen <= start), 0)
        parameters = sum(layer.count_params() for layer in layers)
        learning = rate * decay**below if start >= last else 0.0
        found.append(LayerGroup(f"{layers[0].name}..{layers[-1].name}", len(layers), parameters, learning, since))
    return found
