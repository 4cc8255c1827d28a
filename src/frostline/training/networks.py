"""Networks, with their compiled learners and trained heads, that are kept for the next training."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import keras
import numpy as np
from numpy.typing import NDArray

from frostline.core.history import HistoryRow
from frostline.features import prefix
from frostline.models import assembly, backbones, backend, heads
from frostline.models.devices import ONE, Devices
from frostline.training import live_variants, loop, thawing
from frostline.training.course import TrainingStage

# How many of them a network keeps at most.
LEARNERS, HEADS = 16, 64


# The weights that a training changed, by their place among the variables of the whole network.
Changed = Mapping[int, NDArray[Any]]


@dataclass(frozen=True)
class TrainedHead:
    """The result of the head's phase: the variables of the head, and the history."""

    variables: list[NDArray[Any]]
    history: list[HistoryRow]


class Network:
    """Backbone and head, with everything that is kept between trainings. whole: images -> probabilities; devices: they
    share each batch."""

    def __init__(
        self, backbone: backbones.Backbone, head: heads.Head, whole: keras.Model, devices: Devices = ONE
    ) -> None:
        self.backbone, self.head, self.whole, self.devices = backbone, head, whole, devices
        self.source = prefix.FeatureSource(backbone, head, devices)
        self.heads: Recent[TrainedHead] = Recent(HEADS)
        self._learners: Recent[loop.Learner] = Recent(LEARNERS)
        self._augmenters: dict[Hashable, live_variants.Variants] = {}
        self._initial = backend.values(whole.variables)

    def reset(self) -> None:
        """Set all variables, including the states of random generators, to their values before any training."""
        backend.assign(self.whole.variables, self._initial)
        for augmenter in self._augmenters.values():
            augmenter.reset()

    def changed(self) -> Changed:
        """The weights that differ from those before any training; states of random generators are none."""
        now = backend.values(self.whole.variables)
        return {
            place: value
            for place, (value, initial) in enumerate(zip(now, self._initial, strict=True))
            if np.issubdtype(value.dtype, np.floating) and not np.array_equal(value, initial)
        }

    def set_average(self, weights: Sequence[Changed], shares: Sequence[float]) -> None:
        """Set all weights to the average over several trainings; the shares add up to 1.

        It is taken in float64, so a weight that is the same in all of them stays the same to the last bit.
        """
        self.reset()
        for place in sorted(set().union(*weights)):
            parts = [changed.get(place, self._initial[place]) for changed in weights]
            total = sum(share * part.astype(np.float64) for share, part in zip(shares, parts, strict=True))
            backend.assign([self.whole.variables[place]], [np.asarray(total).astype(self._initial[place].dtype)])

    def learner(self, stage: TrainingStage, train_batch_norm: bool) -> loop.Learner:
        """The learner of a stage. The body must already be frozen for this stage."""
        key = (stage.phase.band, train_batch_norm, stage.policy, stage.phase.rule)
        learner = self._learners.get(key)
        if learner is None:
            body = self.backbone.model
            model = assembly.suffix(self.backbone, self.head, stage.line, self._augmenter(stage))
            blocks = thawing.from_top(body) if stage.phase.rule.has_layer_decay else {}
            learner = loop.Learner(model, stage.phase.rule, blocks, self.devices)
            self._learners.put(key, learner)
        return learner

    def _augmenter(self, stage: TrainingStage) -> live_variants.Variants | None:
        """The layer that draws the live variants of a stage; None if it has none."""
        if stage.policy is None:
            return None
        key = (stage.policy, stage.phase.seed)
        if key not in self._augmenters:
            self._augmenters[key] = live_variants.Variants(stage.policy, stage.phase.seed)
        return self._augmenters[key]


T = TypeVar("T")


class Recent(Generic[T]):
    """The values that were used last, at most `size` of them."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._values: dict[Hashable, T] = {}

    def get(self, key: Hashable) -> T | None:
        """The value of a key, which becomes the last used one; None if there is none."""
        if key not in self._values:
            return None
        self._values[key] = self._values.pop(key)
        return self._values[key]

    def put(self, key: Hashable, value: T) -> None:
        """Keep a value; if there are too many, the least recently used one is removed."""
        self._values[key] = value
        if len(self._values) > self.size:
            del self._values[next(iter(self._values))]
