"""What one process has of a sweep: the study it has joined, its log, and what it trains with."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from optuna.storages import BaseStorage

from frostline.models import weights
from frostline.params.schema import Params
from frostline.search import soup, study
from frostline.search.progress_lines import PrintLine
from frostline.search.setup import SearchPlan
from frostline.search.soup import Soups
from frostline.search.study import Study
from frostline.search.study_log import StudyLog, study_log
from frostline.search.trial_data import TrialData
from frostline.search.worker import Worker
from frostline.tracking import run_log, tracker
from frostline.training import job
from frostline.training.inputs import Inputs
from frostline.training.trainer import Trainer


@dataclass(frozen=True)
class Session:
    """A process that takes part in a study. params: without `finetune.soup`; storage: where the study is."""

    params: Params
    plan: SearchPlan
    storage: BaseStorage
    study: Study
    log: StudyLog
    data: TrialData
    trainer: Trainer
    soups: Soups
    print_line: PrintLine

    def search(self) -> None:
        """Work on trials until nothing is left to do, or the time is over. Raises UserError if every trial fails."""
        is_cheap, keep = self.plan.is_cheap, self.soups.keep
        Worker(self.params, self.data.of, is_cheap, self.study, self.log, self.trainer, self.print_line, keep).search()


@contextlib.contextmanager
def joined(
    params: Params,
    plan: SearchPlan,
    storage: BaseStorage,
    inputs: Inputs,
    locate: weights.Locate,
    print_line: PrintLine,
    worker: str | None = None,
) -> Iterator[Session]:
    """Join the study of a plan, which is created if it is new.

    locate: gives the place of `backbone.weights` on this machine; worker: a name that no other living worker has, None
    for a new one. Raises StateError if the tracking server is not reachable.
    """
    about = {**run_log.flat(job.settings(params)), **run_log.flat({"sweep": params.sweep.model_dump()})}
    data, trainer = TrialData(params, inputs, plan.folder), Trainer(inputs.features, locate)
    with study.join(plan.name, storage, plan.folder, plan.dimensions, plan.settings, worker) as current:
        log = study_log(tracker.tracker(params.tracking), current, about)
        soups = soup.soups(params, data.of, current, trainer, print_line)
        yield Session(params, plan, storage, current, log, data, trainer, soups, print_line)
