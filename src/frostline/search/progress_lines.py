"""The lines that a worker prints: how a trial ended, how far a long one is, and about how long the search will take."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from frostline.core.history import HistoryRow
from frostline.search import rungs, trial_records
from frostline.search.sampling import Settings
from frostline.search.trial_records import TrialRecord

QUIET = 15.0  # seconds without a line, after which a long trial reports its progress

PrintLine = Callable[[str], None]


class ProgressLines:
    """Prints the progress of a search by one worker, from its creation on."""

    def __init__(self, print_line: PrintLine, metric: str, settings: Settings, trials: Sequence[TrialRecord]) -> None:
        """trials: all trials as they are at the start."""
        self._print_line, self._metric, self._settings = print_line, metric, settings
        self._start = self._last_line = time.monotonic()
        self._images_before = _images_seen(trials)

    def tell(self, line: str) -> None:
        """Print a line."""
        self._last_line = time.monotonic()
        self._print_line(line)

    def of_trial(self, number: int, trials: Sequence[TrialRecord]) -> None:
        """Print a line about a trial that paused or ended, and about the search as a whole."""
        trial, best = trials[number], trial_records.best(trials, self._settings.maximize)
        epochs = trial.images_seen / self._settings.images
        value = f"{self._metric} {trial.value:.4f}" if trial.value is not None else ""
        state = "repeats trial " + str(trial.same_as) if trial.same_as is not None else trial.state
        done = sum(other.is_finished for other in trials)
        top = f"best {best.value:.4f} (trial {best.number})" if best is not None else "none complete yet"
        self.tell(
            f"trial {number:>3} {state:>9} after {epochs:4.1f} epochs  {value}  {words(trial.values)}  | {top}, "
            f"{done} of {len(trials)} done{self._time_left(trials)}"
        )

    def of_epoch(self, number: int, row: HistoryRow) -> None:
        """Print a line about an epoch of a trial, if there was none for a while."""
        if row.is_whole and time.monotonic() - self._last_line > QUIET:
            value = row.value(self._metric)
            self.tell(f"trial {number:>3}  {row.phase} epoch {row.epoch}  {self._metric} {value:.4f}")

    def _time_left(self, trials: Sequence[TrialRecord]) -> str:
        """An estimate of the time that is left, at the speed that this worker has had so far; empty at the end.

        What was planned is an upper bound, because trials that repeat others cost nothing. So is the rest of all trials
        that are not finished.
        """
        settings = self._settings
        whole = settings.epochs * settings.images
        planned = rungs.planned(settings.rungs, settings.images, settings.trials) if settings.rungs else None
        done = _images_seen(trials)
        finished = [trial for trial in trials if trial.is_finished]
        begun = sum(trial.images_seen for trial in trials if not trial.is_finished)
        left: float = (settings.trials - len(finished)) * whole - begun
        if planned is not None:
            left = min(left, planned - done)
        if done <= self._images_before or left <= 0:
            return ""
        seconds = (time.monotonic() - self._start) * left / (done - self._images_before)
        return f", about {seconds / 60:.0f} min left" if seconds >= 90 else f", about {seconds:.0f} s left"


def words(values: dict[str, Any]) -> str:
    """A point of the space in a few words: keys without their section."""
    numbers = (f"{value:.3g}" if isinstance(value, float) else str(value) for value in values.values())
    return " ".join(f"{key.rpartition('.')[2]}={number}" for key, number in zip(values, numbers, strict=True))


def _images_seen(trials: Sequence[TrialRecord]) -> int:
    """The images that all trials together have seen, except those that cost next to nothing."""
    return sum(trial.images_seen for trial in trials if not trial.is_cheap)
