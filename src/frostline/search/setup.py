"""What a sweep searches: the space, the settings and the name of a study, from params.yaml, data and backbone."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras

from frostline import paths
from frostline.core import digest
from frostline.errors import ParamsError
from frostline.models import backbones, bands, freeze_rules, freezing, weights
from frostline.params.schema import BackboneSection, Params
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

    name: of the study; shares: the share of parameters that each freeze rule freezes, empty if several backbones are
    searched; bodies: the backbones by their names in params.yaml.
    """

    name: str
    dimensions: Sequence[Dimension]
    settings: Settings
    shares: Mapping[str, float]
    bodies: Mapping[str, keras.Model]

    @property
    def folder(self) -> Path:
        """The folder of the study's own files."""
        return paths.sweeps() / self.name

    def believing(self, frozen: float, learning_rate: float, behind: Mapping[str, float]) -> SearchPlan:
        """The same search, with first points from a prior. See `prior.Prior` for the arguments.

        Raises ParamsError if the sampler has no use for a prior.
        """
        rules = next((each for each in self.dimensions if each.key == space.FREEZE), None)
        values: Sequence[Any] = rules.values if isinstance(rules, space.Choice) else ()
        if isinstance(rules, space.Interval):
            values = range(int(rules.low), int(rules.high) + 1)
        below = {name: freezing.compute_below(body) for name, body in self.bodies.items()}
        shares = {
            str(value): statistics.mean(below[name][freezing.depth(body, value)] for name, body in self.bodies.items())
            for value in values
        }
        settings = replace(self.settings, prior=Prior(frozen, learning_rate, shares, behind))
        sampling.require_sampler(settings, self.dimensions)
        return replace(self, settings=settings)

    def is_cheap(self, trial: Params) -> bool:
        """Whether a trial with these settings trains only the head."""
        body = self.bodies[trial.backbone.name]
        return not bands.of_rule(body, freeze_rules.parse(trial.finetune.freeze, trial.finetune.train)).places


def plan(params: Params, inputs: Inputs, locate: weights.Locate) -> SearchPlan:
    """Plan a search. Raises ParamsError if the space does not fit the backbones or the sampler, and the errors of
    `backbones.build`."""
    sections = searched(params)
    bodies = {each.name: _body(each, locate, inputs.train.layout.image_size) for each in sections}
    if not {space.FREEZE, space.TRAIN} & params.sweep.space.keys():
        for body in bodies.values():  # a layer that one of them lacks is refused now, and not in its first trial
            bands.of_rule(body, freeze_rules.parse(params.finetune.freeze, params.finetune.train))
    dimensions = space.dimensions(params, lambda spec: _automatic(bodies, spec))
    rules = [each for each in dimensions if each.key == space.FREEZE and isinstance(each, space.Choice)]
    frozen = {
        str(value): [freezing.frozen_share(body, value) for body in bodies.values()]  # type: ignore[arg-type]
        for dimension in rules
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
    shares = {value: each[0] for value, each in frozen.items()} if len(bodies) == 1 else {}
    return SearchPlan(_name(params, inputs, dimensions, locate), dimensions, settings, shares, bodies)


def searched(params: Params) -> list[BackboneSection]:
    """The backbones of a search: that of params.yaml, or those that the space names.

    Raises ParamsError for a range, and for a name that is not known.
    """
    spec = params.sweep.space.get(space.BODY)
    if spec is None:
        return [params.backbone]
    if not isinstance(spec, list) or not all(isinstance(name, str) for name in spec):
        raise ParamsError(f"params.yaml: sweep.space.{space.BODY} needs a list of names; give [frostnet, MobileNetV2]")
    return [space.with_values(params, {space.BODY: name}).backbone for name in spec]


def _body(section: BackboneSection, locate: weights.Locate, size: int) -> keras.Model:
    backbones.require(section.name, section.weights)
    return backbones.of_section(section, locate, size).model


def _automatic(bodies: Mapping[str, keras.Model], spec: Auto | Blocks) -> list[int | str]:
    """The values that `{auto: n}` and `{blocks: auto}` stand for; of several backbones, shares of their compute."""
    body = next(iter(bodies.values()))
    if isinstance(spec, Auto):
        if len(bodies) > 1:
            inner = [f"{round(100 * number / (spec.auto - 1))}%" for number in range(1, spec.auto - 1)]
            return ["none", *inner, "all"]
        return freezing.spread(body, spec.auto)
    if len(bodies) > 1:
        raise ParamsError(
            f"params.yaml: sweep.space.{space.TRAIN}: {{blocks: auto}} counts the blocks of one backbone; remove "
            f"{space.BODY} from sweep.space"
        )
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
    name = params.backbone.name
    content: Any = weights.content(locate(params.backbone.weights))
    if space.BODY in params.sweep.space:
        fixed = {key: value for key, value in fixed.items() if not key.startswith("backbone.")}
        each = searched(params)
        name, content = "bodies", [[one.model_dump(), weights.content(locate(one.weights))] for one in each]
    described = [fixed, content, images, [repr(dimension) for dimension in dimensions], params.sweep.metric]
    return f"{name}-{digest.of_value(described)[:10]}"
