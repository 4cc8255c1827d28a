"""Workers of a sweep are started again as long as the study goes forward, and an error of one ends all."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from test_study import SPACE, settings

from frostline.errors import ParamsError, StateError
from frostline.search import storages, supervision
from frostline.search import study as search


@dataclass
class Scripted:
    """A worker that ends as it is told, one outcome a start; before that it does `work`."""

    name: str
    outcomes: list
    work: object = lambda: None
    starts: int = 0
    assignment: object = field(init=False)

    def __post_init__(self):
        self.assignment = SimpleNamespace(worker=self.name)

    def start(self):
        self.starts += 1


def ended(at_work, timeout):
    """The first worker at work ends."""
    member = next((each for each in at_work if each.outcomes), None)
    if member is None:
        return []
    member.work()
    return [(member, member.outcomes.pop(0))]


@pytest.fixture
def own(tmp_path):
    lines = []
    with (
        storages.opened("journal", tmp_path) as storage,
        search.join("s", storage, tmp_path / "s", SPACE, settings(2)) as study,
    ):
        yield SimpleNamespace(study=study, print_line=lines.append, lines=lines)


def test_a_dead_worker_is_started_again_and_its_trial_is_free(own, tmp_path):
    with storages.opened("journal", tmp_path) as storage:
        dead = search.Study("s", storage, tmp_path / "s", SPACE, settings(2), "one")
        dead.take(None)
    team = [Scripted("one", ["SIGKILL", None]), Scripted("two", [None])]
    supervision.until_all_are_done(own, team, ended)
    assert [member.starts for member in team] == [2, 1]
    assert own.lines == ["sweep: worker 0 died (SIGKILL); starting it again"]
    assert [trial.state for trial in own.study.trials()] == ["waiting", "waiting"]
    dead.liveness.close()


def test_an_error_ends_the_sweep(own):
    with pytest.raises(ParamsError, match=r"sweep\.space"):
        supervision.until_all_are_done(own, [Scripted("one", [ParamsError("sweep.space")])], ended)


def test_workers_may_die_as_long_as_trials_go_on(own):
    trial = own.study.take(None)
    reports = iter(range(1, 100))

    def go_on():
        own.study.report(trial, next(reports), 0.5, 0.5)

    steady = Scripted("one", [*["SIGKILL"] * 9, None], go_on)
    supervision.until_all_are_done(own, [steady], ended)
    assert steady.starts == 10
    stuck = Scripted("two", ["SIGKILL"] * 9)
    with pytest.raises(StateError, match=r"the workers died 4 times and no trial went on, the last one by SIGKILL"):
        supervision.until_all_are_done(own, [stuck], ended)


def test_nobody_waits_for_a_worker_without_a_place_when_the_study_is_finished(own, monkeypatch):
    monkeypatch.setattr(supervision, "LEAVE", 0.0)

    def finish():
        while (trial := own.study.take(None)) is not None:
            own.study.finish(trial, "complete", 0.5)

    supervision.until_all_are_done(own, [Scripted("one", [None], finish), Scripted("pending", [])], ended)
