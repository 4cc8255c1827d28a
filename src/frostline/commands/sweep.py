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
from frostline.search import space, storages
from frostline.tracking import model_uris
from frostline.training import inputs, job

PROBED = 1000  # images at most that the prior is measured on, so that it costs seconds

if TYPE_CHECKING:
    from frostline.search.crews import Crew
    from frostline.search.session import Session
    from frostline.search.setup import SearchPlan


def run(
    params: Params, apply: bool = False, as_json: bool = False, workers: int | None = None, ray: str | None = None
) -> str:
    """Search until the budget is used up. Returns a few lines with the result.

    apply: write the best values to params.yaml; as_json: return JSON, and print progress only to standard error;
    workers: processes that search, None for this one, or as many as fit a Ray cluster; ray: the cluster's address.
    """
    print_line = partial(print, flush=True, file=sys.stderr if as_json else sys.stdout)
    locate = model_uris.locator(params.tracking)
    inputs.check(params, locate)
    inputs.bring_up_to_date()
    if workers or ray:
        backend.share_gpus()
    with backend.quiet():
        from frostline.search import report, session, setup

    had_soup = params.finetune.soup is not None
    params = space.with_values(params, {"finetune.soup": None})  # a trial is one training
    training_inputs = inputs.open_all(params)
    plan = setup.plan(params, training_inputs, locate)
    if params.sweep.prior == "choose":
        plan = _believing(plan, params, locate, print_line)
    storage = variables.expanded(params.sweep.storage, "sweep.storage")
    with (
        storages.opened(storage, paths.state(), params.sweep.patience) as study_storage,
        session.joined(params, plan, study_storage, training_inputs, locate, print_line) as own,
    ):
        print_line(f"sweep: study {plan.name}, {plan.settings.trials} trials")
        with report.written_at_the_end(paths.SWEEP, own.study, own.log, params.sweep.metric, plan.shares, own.soups):
            _crew(workers, ray).search(own, as_json)
            own.soups.make()
        found = own.soups.found
        lines = [report.summary(own.study, params.sweep.metric, paths.SWEEP, own.log.view, found)]
        if apply and own.study.best() is not None:
            lines.append(_apply(own, had_soup, locate))
        if as_json:
            return json.dumps(report.as_json(own.study, params.sweep.metric, found), indent=2)
        return "\n".join(lines)


def _crew(workers: int | None, ray: str | None) -> Crew:
    """Who searches."""
    from frostline.search import crews, ray_crew

    if ray is not None:
        return ray_crew.RayActors(ray, workers)
    return crews.LocalProcesses(workers) if workers is not None and workers > 1 else crews.Alone()


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


def _apply(own: Session, had_soup: bool, locate: weights.Locate) -> str:
    """Write the best values to params.yaml, and record what of the study a training with them repeats.

    had_soup: whether params.yaml has a soup, which goes if the search found none.
    """
    best, found = own.study.best(), own.soups.found
    assert best is not None
    values: dict[str, Any] = dict(best.values)
    origin: Mapping[str, str] = {"study": own.study.identity, "trial": str(best.number)}
    if found is not None:
        values["finetune.soup"] = found.ingredients
        origin = {"study": own.study.identity, "soup": found.words}
    elif had_soup:
        values["finetune.soup"] = None
    changed = space.changes(own.params, values)
    edit.change(paths.PARAMS, changed)
    settings = space.with_values(own.params, values)
    images = own.data.of(settings)
    job.note_origin(job.key(settings, [*images.variants, images.validation], locate), origin)
    return f"wrote {', '.join(changed)} to {paths.PARAMS}; `dvc repro` trains it"
