"""`frostline sweep`: search the space of params.yaml on the validation split; the test split is not opened."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from frostline import paths
from frostline.choice import bodies, measuring, verdict
from frostline.models import backend, weights
from frostline.params import edit, variables
from frostline.params.schema import Params
from frostline.search import space, storages, study
from frostline.tracking import model_uris, run_log, tracker
from frostline.training import inputs, job

PROBED = 1000  # images at most that the prior is measured on, so that it costs seconds

if TYPE_CHECKING:
    from frostline.search.setup import SearchPlan
    from frostline.search.trial_data import TrialData


def run(params: Params, apply: bool = False, as_json: bool = False) -> str:
    """Search until the budget is used up. Returns a few lines with the result.

    apply: write the best values to params.yaml; as_json: return JSON, and print progress only to standard error.
    """
    print_line = partial(print, flush=True, file=sys.stderr if as_json else sys.stdout)
    locate = model_uris.locator(params.tracking)
    inputs.check(params, locate)
    inputs.bring_up_to_date()
    with backend.quiet():
        from frostline.search import report, setup, soup
        from frostline.search.study_log import study_log
        from frostline.search.trial_data import TrialData
        from frostline.search.worker import Worker
        from frostline.training.trainer import Trainer

    had_soup = params.finetune.soup is not None
    params = space.with_values(params, {"finetune.soup": None})  # a trial is one training
    training_inputs = inputs.open_all(params)
    plan = setup.plan(params, training_inputs, locate)
    if params.sweep.prior == "choose":
        plan = _believing(plan, params, locate, print_line)
    data = TrialData(params, training_inputs, plan.folder)
    about = {**run_log.flat(job.settings(params)), **run_log.flat({"sweep": params.sweep.model_dump()})}
    storage = variables.expanded(params.sweep.storage, "sweep.storage")
    with (
        storages.opened(storage, paths.state(), params.sweep.patience) as study_storage,
        study.join(plan.name, study_storage, plan.folder, plan.dimensions, plan.settings) as current_study,
    ):
        log = study_log(tracker.tracker(params.tracking), current_study, about)
        print_line(f"sweep: study {plan.name}, {plan.settings.trials} trials")
        trainer = Trainer(training_inputs.features, locate)
        soups = soup.soups(params, data.of, current_study, trainer, print_line)
        with report.written_at_the_end(paths.SWEEP, current_study, log, params.sweep.metric, plan.shares, soups):
            Worker(params, data.of, plan.is_cheap, current_study, log, trainer, print_line, soups.keep).search()
            soups.make()
        lines = [report.summary(current_study, params.sweep.metric, paths.SWEEP, log.view, soups.found)]
        best = current_study.best()
        if apply and best is not None:
            values, origin = dict[str, Any](best.values), {"study": current_study.identity, "trial": str(best.number)}
            if soups.found is not None:
                values["finetune.soup"] = soups.found.ingredients
                origin = {"study": current_study.identity, "soup": soups.found.words}
            elif had_soup:
                values["finetune.soup"] = None
            lines.append(_apply(params, data, values, origin, locate))
        if as_json:
            return json.dumps(report.as_json(current_study, params.sweep.metric, soups.found), indent=2)
        return "\n".join(lines)


def _believing(
    plan: SearchPlan, params: Params, locate: weights.Locate, print_line: Callable[[str], None]
) -> SearchPlan:
    """The search with a prior: where fine-tuning is believed to do well, by what frozen features are worth."""
    from frostline.search import setup

    candidates = bodies.of_sections(setup.searched(params))
    measured = measuring.measure(params, candidates, locate, PROBED)
    found = verdict.of(measured.bodies, measured.situation, params.finetune)
    belief = found.fine_tuning
    body = f"{found.body.candidate.name}, " if len(candidates) > 1 else ""
    print_line(
        f"prior: {found.scenario}: {body}{belief.frozen:.0%} of the compute frozen, learning rate about "
        f"{belief.learning_rate:.0e} ({measured.situation.images:,} images probed)"
    )
    top = max(each.best.ridge.accuracy for each in measured.bodies)
    behind = {each.candidate.section.name: top - each.best.ridge.accuracy for each in measured.bodies}
    return plan.believing(belief.frozen, belief.learning_rate, behind)


def _apply(
    params: Params, data: TrialData, values: Mapping[str, Any], origin: Mapping[str, str], locate: weights.Locate
) -> str:
    """Write the best values to params.yaml, and record what of the study a training with them repeats."""
    changed = space.changes(params, values)
    edit.change(paths.PARAMS, changed)
    settings = space.with_values(params, values)
    images = data.of(settings)
    job.note_origin(job.key(settings, [*images.variants, images.validation], locate), origin)
    return f"wrote {', '.join(changed)} to {paths.PARAMS}; `dvc repro` trains it"
