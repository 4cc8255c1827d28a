"""`frostline sweep`: search the space of params.yaml on the validation split; the test split is not opened."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from frostline import paths
from frostline.core import atomic, digest
from frostline.data import shards
from frostline.errors import DataError
from frostline.features import store
from frostline.models import backbones, backend, weights
from frostline.params import edit, variables
from frostline.params.schema import Auto, Params
from frostline.search import rungs, sampling, space, storages
from frostline.search import study as search
from frostline.search.sampling import Settings
from frostline.search.space import Dimension
from frostline.search.study import Tried
from frostline.stages import augment
from frostline.stages.finetune import augmented
from frostline.tracking import registry, tracker
from frostline.training import job

VARIANTS_KEPT = 12  # data sets augmented otherwise than params.yaml says, of as many trials as a bracket has

if TYPE_CHECKING:
    from frostline.training.trainer import TrainingData


def run(params: Params, apply: bool = False, as_json: bool = False) -> str:
    """Search until the budget is used up; a few lines that say what was found.

    apply: write the best values into params.yaml; as_json: say it in JSON, and on the way only on standard error.
    """
    say = partial(print, flush=True, file=sys.stderr if as_json else sys.stdout)
    locate = registry.locator(params.tracking)
    named = params.backbone
    backbones.check(named.name, locate(named.weights), params.data.image_size, named.alpha)
    _bring_data_up_to_date()
    with backend.quiet():
        from frostline.models import freezing
        from frostline.search import report as sweep_report
        from frostline.search.study_log import study_log
        from frostline.search.worker import Worker
        from frostline.training import trainer as transfer

    features = store.opened(params.cache)
    train, validation = (shards.open_folder(paths.PREPARED / name, features.memory) for name in ("train", "val"))
    data = transfer.TrainingData([train, *augmented(train, params.augment)], validation)
    freeze = params.sweep.space.get(space.FREEZE)
    body = backbones.build(named.name, locate(named.weights), train.layout.image_size, named.until, named.alpha).model
    dimensions = space.dimensions(params, freezing.spread(body, freeze.auto) if isinstance(freeze, Auto) else [])
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
        maximize=params.sweep.direction == "maximize",
        seed=params.sweep.seed,
        pictures=len(train),
        epochs=params.finetune.epochs,
        rungs=_rungs(params, len(train)),
        by_loss=not space.IN_LOSS & params.sweep.space.keys(),
    )
    sampling.require_sampler(settings, dimensions)
    name = _name(params, data, dimensions, locate)
    folder = paths.sweeps() / name

    def data_of(trial: Params) -> TrainingData:
        if trial.augment.stored == params.augment.stored:
            return data
        if trial.augment.stored is None:
            return transfer.TrainingData([train], validation)
        place = folder / f"augmented-{digest.of_value(trial.augment.stored)[:24]}"
        with atomic.lock(paths.state() / "sweep-data.lock"):
            if not place.is_dir():
                made = sorted(folder.glob("augmented-*"), key=lambda path: path.stat().st_mtime)
                for old in made[: -VARIANTS_KEPT + 1]:  # made again, should a trial come back to it
                    shutil.rmtree(old)
                with atomic.folder(place) as temporary:
                    augment.write(trial, train, temporary)
        variants = [shards.open_folder(path, features.memory) for path in sorted(place.glob("variant-*"))]
        return transfer.TrainingData([train, *variants], validation)

    def is_cheap(trial: Params) -> bool:
        """Nothing but the head is trained."""
        return freezing.depth(body, trial.finetune.freeze) == len(body.layers)

    about = {**tracker.flat(job.settings(params)), **tracker.flat({"sweep": params.sweep.model_dump()})}
    storage = variables.expanded(params.sweep.storage, "sweep.storage")
    with (
        storages.opened(storage, paths.state(), params.sweep.patience) as opened,
        search.study(name, opened, folder, dimensions, settings) as study,
    ):
        log = study_log(tracker.tracker(params.tracking), study, about)
        say(f"sweep: study {name}, {settings.trials} trials")
        trainer = transfer.Trainer(features, locate)

        def report() -> None:
            with study.alone():
                with atomic.folder(paths.SWEEP) as reports:
                    sweep_report.write(reports, study, params.sweep.metric, shares)
                log.close(study.best(), paths.SWEEP, is_over=all(trial.is_finished for trial in study.tried()))

        _search(Worker(params, data_of, is_cheap, study, log, trainer, say).search, report)
        lines = [sweep_report.summary(study, params.sweep.metric, paths.SWEEP)]
        best = study.best()
        if apply and best is not None:
            lines.append(_apply(params, data_of, study.identity, best, locate))
        if as_json:
            return json.dumps(sweep_report.as_json(study, params.sweep.metric), indent=2)
        return "\n".join(lines)


def _search(search: Callable[[], None], report: Callable[[], None]) -> None:
    """Search, and report it; an interrupted search too, but then its error is the one to tell."""
    try:
        search()
    except BaseException:
        with contextlib.suppress(Exception):
            report()
        raise
    report()


def _rungs(params: Params, pictures: int) -> tuple[int, ...]:
    """Where trials pause, in pictures seen in the second phase; none for other pruners."""
    epochs = params.finetune.epochs
    if params.sweep.pruner != "halving" or epochs == 0:
        return ()
    levels = rungs.levels(epochs, math.ceil(pictures / params.finetune.batch_size))
    return tuple(round(level * pictures) for level in levels)


def _bring_data_up_to_date() -> None:
    """Let DVC run `prepare` and `augment` where they are out of date, in a project that has them."""
    if not Path("dvc.yaml").is_file():
        return
    atomic.require_writable(paths.state())
    with atomic.lock(paths.state() / "sweep-data.lock"):
        done = subprocess.run([sys.executable, "-m", "dvc", "repro", "--quiet", "augment"], check=False)
    if done.returncode:
        raise DataError("dvc.yaml: `dvc repro augment` failed; mend what it says above")


def _name(params: Params, data: TrainingData, dimensions: list[Dimension], locate: weights.Locate) -> str:
    """A study is its data, its settings and its space: where those change, another one is begun.

    What is searched counts as its space alone, so that the study stays the same when its best values are applied.
    """
    settings = tracker.flat(job.settings(params))
    fixed = {key: value for key, value in settings.items() if key not in params.sweep.space}
    pictures = [each.digest for each in (data.variants[0], data.validation)]
    content = weights.content(locate(params.backbone.weights))
    described = [fixed, content, pictures, [repr(dimension) for dimension in dimensions], params.sweep.metric]
    return f"{params.backbone.name}-{digest.of_value(described)[:10]}"


def _apply(
    params: Params, data_of: Callable[[Params], TrainingData], study: str, best: Tried, locate: weights.Locate
) -> str:
    """Write the best values into params.yaml, and note which trial the training that will have them repeats."""
    edit.change(paths.PARAMS, best.values)
    settings = space.with_values(params, best.values)
    data = data_of(settings)
    atomic.require_writable(paths.origins())
    origin = paths.origins() / f"{job.key(settings, [*data.variants, data.validation], locate)}.json"
    atomic.write_json(origin, {"study": study, "trial": best.number})
    return f"wrote {', '.join(best.values)} into {paths.PARAMS}; `dvc repro` trains it"
