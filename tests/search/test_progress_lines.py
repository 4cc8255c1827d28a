"""The line after a trial: what was tried, the best so far, and the time that is left."""

from __future__ import annotations

import re
import time

import pytest

from frostline.search.progress_lines import ProgressLines
from frostline.search.sampling import Settings
from frostline.search.trial_records import TrialRecord


def record(number: int, state: str, images: int, same_as: int | None = None) -> TrialRecord:
    notes = {} if same_as is None else {"same_as": same_as}
    return TrialRecord(number, state, {"finetune.freeze": "all"}, 0.5, {images: 0.5} if images else {}, notes, None)


def lines(settings: Settings, trials: list[TrialRecord], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The line after each of the trials, of which each took 10 seconds."""
    now = iter(float(10 * number) for number in range(10_000))
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    printed: list[str] = []
    progress = ProgressLines(printed.append, "val_accuracy", settings, [])
    for number in range(len(trials)):
        progress.of_trial(number, trials[: number + 1])
    return printed


def settings(rungs: tuple[int, ...] = ()) -> Settings:
    pruner = "halving" if rungs else "none"
    return Settings(4, "tpe", pruner, True, 7, images=100, epochs=2, rungs=rungs, by_loss=False)


def test_the_time_left_falls_and_nothing_is_said_of_it_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = lines(settings(), [record(number, "complete", 200) for number in range(4)], monkeypatch)
    seconds = [int(match[1]) for line in printed if (match := re.search(r"about (\d+) s left", line))]
    assert len(seconds) == 3
    assert seconds == sorted(seconds, reverse=True)
    assert printed[-1].endswith("4 of 4 done")


def test_trials_that_repeat_others_leave_no_time_over_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    trials = [record(0, "complete", 200), *(record(number, "complete", 200, same_as=0) for number in (1, 2, 3))]
    for rungs in ((), (25, 100, 200)):
        printed = lines(settings(rungs), trials, monkeypatch)
        assert printed[-1].endswith("4 of 4 done")
