"""What a sweep searches: the space, the settings and the name of a study, from params.yaml, data and backbone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import keras

from frostline import paths
from frostline.core import digest
from frostline.models import backbones, bands, freeze_rules, freezing, weights
from frostline.params.schema import Params
from frostline.params.sweep import Auto, Blocks
from frostline.search import rungs, sampling, space
from frostline.search.prior import Prior
from frostline.search.sampling import Settings
from frostline.search.space import Dimension
from frostline.tracking import run_log
from frostline.training import job
from frostline.training.inputs import Inputs


@dataclass(frozen=True)
class SearchPlan:
    """What to search.

    name: of the study; shares: the share of parameters that each freeze rule freezes; body: the backbone.
    """

    name: str
    dimensions: Sequence[Dimension]
    settings: Settings
    shares: Mapping[str, float]
    body: keras.Model

    @property
    def folder(self) -> Path:
        """The folder of the study's own files."""
        return paths.sweeps() / self.name

    def believing(self, frozen: float, learning_rate: float) -> SearchPlan:
        """The same search, with first points from a prior. frozen, learning_rate: see `prior.Prior`.

        Raises ParamsError if the sampler has no use for a prior.
        """
        below = freezing.compute_below(self.body)
        rules = next((each for each in self.dimensions if each.key == space.FREEZE), None)
        values = range(int(rules.low), int(rules.high) + 1) if isinstance(rules, space.Interval) else ()
        if isinstance(rules, space.Choice):
            values = rules.values  # type: ignore[assignment]
        shares = {str(value): float(below[freezing.depth(self.body, value)]) for value in values}
        settings = replace(self.settings, prior=Prior(frozen, learning_rate, shares))
        sampling.require_sampler(settings, self.dimensions)
        return replace(self, settings=settings)

    def is_cheap(self, trial: Params) -> bool:
        """Whether a trial with these settings trains only the head."""
        return not bands.of_rule(self.body, freeze_rules.parse(trial.finetune.freeze, trial.finetune.train)).places


def plan(params: Params, inputs: Inputs, locate: weights.Locate) -> SearchPlan:
    """Plan a search. Raises ParamsError if the space does not fit the backbone or the sampler."""
    body = backbones.of_section(params.backbone, locate, inputs.train.layout.image_size).model
    dimensions = space.dimensions(params, lambda spec: _automatic(body, spec))
    shares = {
        str(value): freezing.frozen_share(body, value)  # type: ignore[arg-type]
        for dimension in dimensions
        if dimension.key == space.FREEZE and isinstance(dimension, space.Choice)
        for value in dimension.values
    }
    settings = Settings(
        trials=params.sweep.trials,
        sampler=params.sweep.sampler,
        pruner=params.sweep.pruner,
        maximize=params.sweep.metric == "val_accuracy",
        seed=params.sweep.seed,
        images=len(inputs.train),
        epochs=params.finetune.epochs,
        rungs=_rungs(params, len(inputs.train)),
        by_loss=not space.IN_LOSS & params.sweep.space.keys(),
    )
    sampling.require_sampler(settings, dimensions)
    return SearchPlan(_name(params, inputs, dimensions, locate), dimensions, settings, shares, body)


def _automatic(body: keras.Model, spec: Auto | Blocks) -> list[int | str]:
    """The values that `{auto: n}` and `{blocks: auto}` stand for."""
    if isinstance(spec, Auto):
        return freezing.spread(body, spec.auto)
    return [f"{number}..{number}" for number in range(1, len(bands.blocks(body)) + 1)]


def _rungs(params: Params, images: int) -> tuple[int, ...]:
    """The numbers of images, of the second phase, after which trials pause; none for other pruners."""
    epochs = params.finetune.epochs
    if params.sweep.pruner != "halving" or epochs == 0:
        return ()
    levels = rungs.levels(epochs, math.ceil(images / params.finetune.batch_size))
    return tuple(round(level * images) for level in levels)


def _name(params: Params, inputs: Inputs, dimensions: Sequence[Dimension], locate: weights.Locate) -> str:
    """The name of the study of these data, settings and space: if one of them changes, it is another study.

    Of a searched key only the space counts, so that the study stays the same when its best values are applied.
    """
    settings = run_log.flat(job.settings(params))
    fixed = {key: value for key, value in settings.items() if key not in params.sweep.space}
    images = [inputs.train.digest, inputs.validation.digest]
    content = weights.content(locate(params.backbone.weights))
    described = [fixed, content, images, [repr(dimension) for dimension in dimensions], params.sweep.metric]
    return f"{params.backbone.name}-{digest.of_value(described)[:10]}"
