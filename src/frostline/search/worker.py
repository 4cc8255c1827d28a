"""The work of a sweep: a worker takes trials out of a study and trains them as far as they deserve.

A trial is the training that stage `finetune` would do with its values, with nothing added or left out: what is shared
between trials (features, compiled steps, the trained head) is what would come out the same.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from frostline.core.history import HistoryRow
from frostline.errors import DivergedError, ParamsError, UserError
from frostline.models import backend
from frostline.params.schema import Params
from frostline.search import rungs, space
from frostline.search.sampling import CHEAP
from frostline.search.study import REASON, RUN, SAME_AS, SECONDS, Study, Trial, Tried, reported
from frostline.search.study_log import StudyLog
from frostline.training import checkpoints
from frostline.training.loop import Snapshot, Watch
from frostline.training.trainer import Result, Trainer, TrainingData

POLL = 0.5  # seconds between looks at what other workers do
QUIET = 15.0  # seconds after which a long trial says how far it is
HOPELESS = 3  # so many failures and no success end the search

Say = Callable[[str], None]


class _Paused(Exception):  # noqa: N818
    """Raised out of a training that has come to its rung."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot


class _Pruned(Exception):  # noqa: N818
    """Raised out of a training that the pruner ends."""

    def __init__(self, history: Sequence[HistoryRow]) -> None:
        self.history = history


@dataclass
class Worker:
    """One worker of a study.

    data_of: images and variants that a trial's settings ask for; is_cheap: whether a trial costs so little that it is
    trained to its end at once; say: takes a line for the person.
    """

    params: Params
    data_of: Callable[[Params], TrainingData]
    is_cheap: Callable[[Params], bool]
    study: Study
    log: StudyLog
    trainer: Trainer
    say: Say
    _began: float = field(default=0.0, init=False)
    _seen_before: int = field(default=0, init=False)
    _said: float = field(default=0.0, init=False)
    _failed: list[int] = field(default_factory=list, init=False)

    def search(self) -> None:
        """Work until nothing is left to do, or the time is over. Raises UserError where every trial fails."""
        self._began = self._said = time.monotonic()
        before = self.study.tried()
        self._seen_before = _seen(before)
        deadline = time.monotonic() + (self.params.sweep.timeout or math.inf)
        for ended in before:
            if ended.is_finished:  # by a worker that was killed before it could log that
                self._log_end(ended)
        while time.monotonic() < deadline:
            tried = self.study.tried()
            if any(trial.state == "running" for trial in tried):
                for freed in self.study.reclaim():
                    self.say(f"trial {freed}: its worker died; resuming")
                tried = self.study.tried()
            self._require_hope(tried)
            number, lost = self._next(tried)
            self._prune(lost)
            if number is not None:
                is_new = tried[number].state == "waiting"
                trial = self.study.take(None if is_new else number)
                if trial is not None:
                    self._work(trial)
            elif any(trial.state == "running" for trial in tried):
                time.sleep(POLL)
            else:
                self._prune([trial.number for trial in tried if trial.state == "paused"])
                break

    def _next(self, tried: Sequence[Tried]) -> tuple[int | None, list[int]]:
        """The trial to begin or to go on with, None where there is none or others are at those; and who has lost."""
        free = [trial.number for trial in tried if trial.state in {"paused", "waiting"}]
        if not self.study.settings.rungs:
            return min(free, key=lambda number: tried[number].state == "waiting", default=None), []
        ended = {trial.number for trial in tried if trial.is_finished}
        scores = self.study.scores(tried)
        top = len(self.study.settings.rungs)
        for trial in tried:
            if trial.is_cheap:  # it is trained to its end at once, and competes with nobody
                scores.pop(trial.number, None)
                if trial.number in free:
                    return trial.number, []
            elif not trial.is_finished and trial.number in scores:  # killed before it was told as complete
                scores[trial.number] = scores[trial.number][: top - 1]
        settings = self.study.settings
        bracket, wanted = rungs.pending(scores, ended, len(tried), settings.rungs, settings.images)
        lost = [number for number in free if number < bracket.start and tried[number].state == "paused"]
        return next((number for number in wanted if number in free), None), lost

    def _prune(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            trial = self.study.take(number)
            if trial is not None:
                snapshot = self._checkpoint(number).load()
                if snapshot is not None:  # what a killed worker could not log
                    self._begin_run(number, trial.params, trial.user_attrs)
                    self.log.rows(number, snapshot.position.history)
                self._end(trial, "pruned")

    def _work(self, trial: Trial) -> None:
        """Train a trial to its next rung, or to its end."""
        number, began = trial.number, time.monotonic()
        values = trial.params
        run = self._begin_run(number, values, trial.user_attrs)
        if run is not None:
            self.study.note(trial, RUN, run)
        same = None if reported(trial) else self.study.repeated(trial)
        if same is not None:
            self._repeat(trial, same)
            return
        checkpoint = self._checkpoint(number)
        try:
            params = space.with_values(self.params, values)
            result = self._train(trial, params, checkpoint.load())
        except _Paused as pause:
            self.log.rows(number, pause.snapshot.position.history)
            checkpoint.save(pause.snapshot)
            self._add_seconds(trial, began)
            self.study.put_back(trial)
            self._tell(number, self.study.tried())
            return
        except _Pruned as pruned:
            self.log.rows(number, pruned.history)
            self._add_seconds(trial, began)
            self._end(trial, "pruned")
            return
        except Exception as error:
            if not (isinstance(error, DivergedError | ParamsError) or backend.is_its_own(error)):
                raise
            self.study.note(trial, REASON, " ".join(str(error).split())[:300])
            self._failed.append(number)
            self._add_seconds(trial, began)
            self._end(trial, "failed")
            return
        self.log.rows(number, result.history)
        self._add_seconds(trial, began)
        self._end(trial, "complete", result.final_row.value(self.params.sweep.metric))

    def _train(self, trial: Trial, params: Params, resume: Snapshot | None) -> Result:
        data = self.data_of(params)
        images, metric = self.study.settings.images, params.sweep.metric
        per_epoch = math.ceil(images / params.finetune.batch_size)
        # The rungs by steps: batches may be of another size in each trial.
        places = {max(1, round(rung / images * per_epoch)): rung for rung in self.study.settings.rungs}
        known = reported(trial)
        ahead = [step for step, rung in places.items() if rung not in known]
        pauses = ahead[:-1]
        if self.is_cheap(params):
            self.study.note(trial, CHEAP, True)
            pauses = []

        def on_epoch(row: HistoryRow, snapshot: Callable[[], Snapshot]) -> None:
            if row.is_whole:
                self.log.rows(trial.number, [row])
            if row.is_whole and time.monotonic() - self._said > QUIET:
                said = f"{row.phase} epoch {row.epoch}"
                self._tell_line(f"trial {trial.number:>3}  {said}  {metric} {row.value(metric):.4f}")
            if row.phase == "head":
                return
            done = round(row.epoch * per_epoch)
            if row.is_whole or done in places:
                seen = places.get(done, round(row.epoch * images))
                self.study.report(trial, seen, row.value(metric), row.val_loss)
            if done in pauses:
                raise _Paused(snapshot())
            if trial.should_prune():
                raise _Pruned(snapshot().position.history)

        looks = [step / per_epoch for step in places]
        return self.trainer.run(params, data, resume, Watch(on_epoch, looks))

    def _repeat(self, trial: Trial, same: Tried) -> None:
        """Answer a trial from memory."""
        self.study.note(trial, SAME_AS, same.number)
        if same.state == "complete":
            self._end(trial, "complete", same.value)
        else:
            self._end(trial, "pruned")

    def _end(self, trial: Trial, state: str, value: float | None = None) -> None:
        self.study.finish(trial, state, value)
        self._checkpoint(trial.number).clear()
        tried = self.study.tried()
        self._log_end(tried[trial.number])
        self._tell(trial.number, tried)

    def _log_end(self, trial: Tried) -> None:
        self._begin_run(trial.number, trial.values, trial.notes)
        self.log.end(trial)

    def _begin_run(self, number: int, values: dict[str, Any], notes: Mapping[str, Any]) -> str | None:
        return self.log.begin(number, f"trial {number}: {_words(values)}", values, notes.get(RUN))

    def _checkpoint(self, number: int) -> checkpoints.Checkpoint:
        return checkpoints.Checkpoint(
            self.study.folder / f"{self.study.identity[-6:]}-{number:05d}{checkpoints.SUFFIX}"
        )

    def _add_seconds(self, trial: Trial, began: float) -> None:
        spent = trial.user_attrs.get(SECONDS, 0.0) + time.monotonic() - began
        self.study.note(trial, SECONDS, round(spent, 3))

    def _tell(self, number: int, tried: Sequence[Tried]) -> None:
        """A line on a trial that was worked on, and on where the search stands."""
        trial, best = tried[number], self.study.best(tried)
        epochs = max(trial.reported, default=0) / self.study.settings.images
        value = f"{self.params.sweep.metric} {trial.value:.4f}" if trial.value is not None else ""
        state = "repeats trial " + str(trial.same_as) if trial.same_as is not None else trial.state
        done = sum(other.is_finished for other in tried)
        top = f"best {best.value:.4f} (trial {best.number})" if best is not None else "none complete yet"
        self._tell_line(
            f"trial {number:>3} {state:>9} after {epochs:4.1f} epochs  {value}  {_words(trial.values)}  | {top}, "
            f"{done} of {len(tried)} done{self._time_left(tried)}"
        )

    def _require_hope(self, tried: Sequence[Tried]) -> None:
        if len(self._failed) >= HOPELESS and not any(
            trial.value is not None for trial in tried if trial.state != "failed"
        ):
            raise UserError(
                f"params.yaml: sweep.space: the first {len(self._failed)} trials failed, the last one because "
                f"{tried[self._failed[-1]].reason}; fix the space"
            )

    def _tell_line(self, line: str) -> None:
        self._said = time.monotonic()
        self.say(line)

    def _time_left(self, tried: Sequence[Tried]) -> str:
        """About how long it will take from here on, if what is left goes as what this worker has seen so far."""
        settings = self.study.settings
        whole = settings.trials * settings.epochs * settings.images
        planned = rungs.planned(settings.rungs, settings.images, settings.trials) if settings.rungs else whole
        done = _seen(tried)
        seconds = (time.monotonic() - self._began) * (planned - done) / max(1, done - self._seen_before)
        if done <= self._seen_before or done >= planned:
            return ""
        return f", about {seconds / 60:.0f} min left" if seconds >= 90 else f", about {seconds:.0f} s left"


def _seen(tried: Sequence[Tried]) -> int:
    """Images that all trials together have seen; those that cost next to nothing aside."""
    return sum(max(trial.reported, default=0) for trial in tried if not trial.is_cheap)


def _words(values: dict[str, Any]) -> str:
    """A point of the space in a few words: keys without their section."""
    said = (f"{value:.3g}" if isinstance(value, float) else str(value) for value in values.values())
    return " ".join(f"{key.rpartition('.')[2]}={word}" for key, word in zip(values, said, strict=True))
