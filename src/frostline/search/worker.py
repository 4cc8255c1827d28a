"""The work of a sweep: a worker takes trials out of a study and trains them as far as they deserve.

A trial is the training that stage `finetune` would do with its values, with nothing added or left out: what is shared
between trials (features, compiled steps, the trained head) is what would come out the same.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from frostline.core.history import HistoryRow
from frostline.errors import DivergedError, ParamsError, UserError
from frostline.models import backend
from frostline.params.schema import Params
from frostline.search import rungs, space, trial_records
from frostline.search.optuna_internals import reported
from frostline.search.progress_lines import PrintLine, ProgressLines, words
from frostline.search.sampling import CHEAP
from frostline.search.study import Study
from frostline.search.study_log import StudyLog
from frostline.search.trial_records import REASON, RUN, SAME_AS, SECONDS, TrialRecord
from frostline.training import checkpoints
from frostline.training.examples import TrainingData
from frostline.training.loop import Snapshot, Watch, ignore
from frostline.training.trainer import Result, Trainer

if TYPE_CHECKING:
    from optuna.trial import Trial

POLL = 0.5  # seconds between two checks of what other workers do
HOPELESS = 3  # failures without a success that end the search


class _Paused(Exception):  # noqa: N818
    """Raised out of a training that has reached its rung."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot


class _Pruned(Exception):  # noqa: N818
    """Raised out of a training that the pruner ends."""

    def __init__(self, history: Sequence[HistoryRow]) -> None:
        self.history = history


@dataclass
class Worker:
    """One worker of a study.

    data_of: the images and variants that a trial's settings ask for; is_cheap: whether a trial costs so little that it
    is trained to its end at once; print_line: prints a line; keep: is called with number, metric and settings of a
    trial that was trained to its end, while the trainer has its weights.
    """

    params: Params
    data_of: Callable[[Params], TrainingData]
    is_cheap: Callable[[Params], bool]
    study: Study
    log: StudyLog
    trainer: Trainer
    print_line: PrintLine
    keep: Callable[[int, float, Params], None] = ignore
    _progress: ProgressLines = field(init=False)
    _failures: list[int] = field(default_factory=list, init=False)

    def search(self) -> None:
        """Work until nothing is left to do, or the time is over. Raises UserError if every trial fails."""
        before = self.study.trials()
        self._progress = ProgressLines(self.print_line, self.params.sweep.metric, self.study.settings, before)
        deadline = time.monotonic() + (self.params.sweep.timeout or math.inf)
        for trial in before:
            if trial.is_finished:  # by a worker that was killed before it could log that
                self._log_end(trial)
        while time.monotonic() < deadline and self._step():
            pass

    def _step(self) -> bool:
        """Do the next piece of work. Returns False if nothing is left to do."""
        trials = self._present_trials()
        self._require_hope(trials)
        following, losers = self._next(trials)
        ahead = self._ahead_of_the_best(trials)
        self._prune([number for number in losers if number not in ahead])
        if following is not None:
            self._take_and_work(following, trials[following].state == "waiting")
        elif any(trial.state == "running" for trial in trials):
            time.sleep(POLL)
        elif ahead:
            self._take_and_work(ahead[0], to_the_end=True)
        else:
            self._prune([trial.number for trial in trials if trial.state == "paused"])
            return False
        return True

    def _present_trials(self) -> list[TrialRecord]:
        """All trials, after those of dead workers went back to the pool."""
        trials = self.study.trials()
        if any(trial.state == "running" for trial in trials):
            for number in self.study.reclaim():
                self._progress.tell(f"trial {number}: its worker died; resuming")
            trials = self.study.trials()
        return trials

    def _take_and_work(self, number: int, is_new: bool = False, to_the_end: bool = False) -> None:
        """Work on a trial, or if it is new on any new one, unless another worker was quicker."""
        trial = self.study.take(None if is_new else number)
        if trial is not None:
            self._work(trial, to_the_end)

    def _next(self, trials: Sequence[TrialRecord]) -> tuple[int | None, list[int]]:
        """The number of the trial to begin or to resume, and the numbers of those that have lost.

        The first is None if there is no such trial, or other workers have them all.
        """
        free = [trial.number for trial in trials if trial.state in {"paused", "waiting"}]
        settings = self.study.settings
        if not settings.rungs:
            return min(free, key=lambda number: trials[number].state == "waiting", default=None), []
        finished = {trial.number for trial in trials if trial.is_finished}
        scores = trial_records.scores(trials, settings)
        top = len(settings.rungs)
        for trial in trials:
            if trial.is_cheap:  # it is trained to its end at once, and competes with no other
                scores.pop(trial.number, None)
                if trial.number in free:
                    return trial.number, []
            elif not trial.is_finished and trial.number in scores:  # its worker died before it recorded the end
                scores[trial.number] = scores[trial.number][: top - 1]
        bracket, pending = rungs.pending(scores, finished, len(trials), settings.rungs, settings.images)
        losers = [number for number in free if number < bracket.start and trials[number].state == "paused"]
        return next((number for number in pending if number in free), None), losers

    def _ahead_of_the_best(self, trials: Sequence[TrialRecord]) -> list[int]:
        """The paused trials whose metric is better than that of the best complete trial, the best of them first.

        Rungs may compare trials by their loss, so such a trial can lose. It is trained to its end when nothing else is
        left, so that no trial that was given up has a better metric than the one that is reported.
        """
        return [trial.number for trial in trial_records.ahead(trials, "paused", self.study.settings.maximize)]

    def _prune(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            trial = self.study.take(number)
            if trial is not None:
                snapshot = self._checkpoint(number).load()
                if snapshot is not None:  # what a killed worker could not log
                    self._begin_run(number, trial.params, trial.user_attrs)
                    self.log.rows(number, snapshot.position.history)
                self._end(trial, "pruned")

    def _work(self, trial: Trial, to_the_end: bool) -> None:
        """Train a trial to its next rung, or to its end."""
        number, start = trial.number, time.monotonic()
        values = trial.params
        run = self._begin_run(number, values, trial.user_attrs)
        if run is not None:
            self.study.note(trial, RUN, run)
        twin = None if reported(trial) else self.study.earlier_twin(trial)
        if twin is not None:
            self._repeat(trial, twin)
            return
        checkpoint = self._checkpoint(number)
        try:
            params = space.with_values(self.params, values)
            result = self._train(trial, params, checkpoint.load(), to_the_end)
        except _Paused as pause:
            self.log.rows(number, pause.snapshot.position.history)
            checkpoint.save(pause.snapshot)
            self._add_seconds(trial, start)
            self.study.put_back(trial)
            self._progress.of_trial(number, self.study.trials())
            return
        except _Pruned as pruned:
            self.log.rows(number, pruned.history)
            self._add_seconds(trial, start)
            self._end(trial, "pruned")
            return
        except Exception as error:
            if not (isinstance(error, DivergedError | ParamsError) or backend.is_its_own(error)):
                raise
            self.study.note(trial, REASON, " ".join(str(error).split())[:300])
            self._failures.append(number)
            self._add_seconds(trial, start)
            self._end(trial, "failed")
            return
        self.log.rows(number, result.history)
        self._add_seconds(trial, start)
        value = result.final_row.value(self.params.sweep.metric)
        self.keep(number, value, params)
        self._end(trial, "complete", value)

    def _train(self, trial: Trial, params: Params, resume: Snapshot | None, to_the_end: bool) -> Result:
        data = self.data_of(params)
        images, metric = self.study.settings.images, params.sweep.metric
        per_epoch = math.ceil(images / params.finetune.batch_size)
        # The rungs by steps: batches may be of another size in each trial.
        places = {max(1, round(rung / images * per_epoch)): rung for rung in self.study.settings.rungs}
        ahead = [step for step, rung in places.items() if rung not in reported(trial)]
        pauses = [] if to_the_end else ahead[:-1]
        if self.is_cheap(params):
            self.study.note(trial, CHEAP, True)
            pauses = []

        def on_epoch(row: HistoryRow, snapshot: Callable[[], Snapshot]) -> None:
            if row.is_whole:
                self.log.rows(trial.number, [row])
            self._progress.of_epoch(trial.number, row)
            if row.phase == "head":
                return
            done = round(row.epoch * per_epoch)
            if row.is_whole or done in places:
                images_seen = places.get(done, round(row.epoch * images))
                self.study.report(trial, images_seen, row.value(metric), row.val_loss)
            if done in pauses:
                raise _Paused(snapshot())
            if trial.should_prune():
                raise _Pruned(snapshot().position.history)

        looks = [step / per_epoch for step in places]
        return self.trainer.run(params, data, resume, Watch(on_epoch, looks))

    def _repeat(self, trial: Trial, twin: TrialRecord) -> None:
        """End a trial with the result of another one that has the same values."""
        self.study.note(trial, SAME_AS, twin.number)
        if twin.state == "complete":
            self._end(trial, "complete", twin.value)
        else:
            self._end(trial, "pruned")

    def _end(self, trial: Trial, state: str, value: float | None = None) -> None:
        self.study.finish(trial, state, value)
        self._checkpoint(trial.number).clear()
        trials = self.study.trials()
        self._log_end(trials[trial.number])
        self._progress.of_trial(trial.number, trials)

    def _log_end(self, trial: TrialRecord) -> None:
        self._begin_run(trial.number, trial.values, trial.notes)
        self.log.end(trial)

    def _begin_run(self, number: int, values: dict[str, Any], notes: Mapping[str, Any]) -> str | None:
        return self.log.begin(number, f"trial {number}: {words(values)}", values, notes.get(RUN))

    def _checkpoint(self, number: int) -> checkpoints.Checkpoint:
        return checkpoints.Checkpoint(
            self.study.folder / f"{self.study.identity[-6:]}-{number:05d}{checkpoints.SUFFIX}"
        )

    def _add_seconds(self, trial: Trial, start: float) -> None:
        seconds = trial.user_attrs.get(SECONDS, 0.0) + time.monotonic() - start
        self.study.note(trial, SECONDS, round(seconds, 3))

    def _require_hope(self, trials: Sequence[TrialRecord]) -> None:
        succeeded = any(trial.value is not None for trial in trials if trial.state != "failed")
        if len(self._failures) >= HOPELESS and not succeeded:
            raise UserError(
                f"params.yaml: sweep.space: the first {len(self._failures)} trials failed, the last one because "
                f"{trials[self._failures[-1]].reason}; fix the space"
            )
