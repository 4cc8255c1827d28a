"""When each block of a backbone thaws, and its learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import keras

from frostline.models import bands
from frostline.models.freeze_rules import Band, FreezeRule
from frostline.models.made_from import LayerGroup


def from_top(model: keras.Model) -> dict[str, int]:
    """The depth of each weight of a backbone below the head, in blocks, by its path: 1 in the last block."""
    ends = bands.blocks(model)
    starts = [0, *ends[:-1]]
    return {
        weight.path: len(ends) - number
        for number, (start, end) in enumerate(zip(starts, ends, strict=True))
        for layer in model.layers[start:end]
        for weight in layer.weights
    }


def stages(model: keras.Model, rule: FreezeRule, epochs: int) -> list[tuple[Band, range]]:
    """The band of trained layers, with the epochs (from 0) for which it holds. Gradual thawing begins with the last
    block and gives each block about the same number of epochs; no block is frozen again."""
    band = bands.of_rule(model, rule)
    if not rule.is_gradual:
        return [(band, range(epochs))]
    depths = [*(end for end in reversed(bands.blocks(model)[:-1]) if end > band.start), band.start]
    begins = {number * epochs // len(depths): frozen for number, frozen in enumerate(depths)}
    ends = [*list(begins)[1:], epochs]
    return [
        (Band.above(frozen, band.of), range(begin, end))
        for (begin, frozen), end in zip(begins.items(), ends, strict=True)
    ]


def groups(model: keras.Model, stages: Sequence[tuple[Band, range]], rate: float, decay: float) -> list[LayerGroup]:
    """The layer groups of a backbone from the bottom up: its blocks, divided where a band begins or ends within one.
    stages: the value of `stages`; rate: the learning rate above the blocks; decay: see `Phase.layer_decay`."""
    last = stages[-1][0]
    tops = bands.blocks(model)
    ends = sorted({*tops, *(end for band, _ in stages for end in (band.start, band.stop))} - {0})
    result = []
    for start, end in pairwise([0, *ends]):
        layers = model.layers[start:end]
        depth = sum(top > start for top in tops)
        start_epoch = next((span.start + 1 for band, span in stages if start in band.places), 0)
        parameters = sum(layer.count_params() for layer in layers)
        group_rate = rate * decay**depth if start in last.places else 0.0
        result.append(
            LayerGroup(f"{layers[0].name}..{layers[-1].name}", len(layers), parameters, group_rate, start_epoch)
        )
    return result
