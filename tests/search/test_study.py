"""A study's pool of trials, in real storages: nothing lost, nothing doubled, whatever is killed."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter

import optuna
import pytest
from optuna.trial import TrialState

from frostline.errors import ParamsError
from frostline.search import sampling, storages
from frostline.search import study as search
from frostline.search.optuna_internals import trial_id
from frostline.search.sampling import Settings
from frostline.search.space import Choice, Interval
from frostline.search.trial_records import WORKER as WORKER_KEY
from frostline.search.trial_records import importances, scores

SPACE = [
    Choice("finetune.freeze", ("none", "a", "b", "all"), is_ordered=True),
    Interval("finetune.learning_rate", 1e-5, 1e-2, log=True, step=None, is_whole=False),
]
GRID = [
    Choice("finetune.freeze", ("none", "all"), is_ordered=True),
    Choice("head.dropout", (0.0, 0.5), is_ordered=True),
]

# A worker whose trials only wait: pause once, then end. Arguments: storage, folder, trials, sweep.patience, heartbeat.
WORKER = """
import sys, time
from pathlib import Path
from frostline.search import study as search, storages
from frostline.search.sampling import Settings
from tests_space import SPACE
named, state, trials = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
patience, storages.HEARTBEAT = float(sys.argv[4]), int(sys.argv[5])
settings = Settings(trials, "tpe", "halving", True, 1, 100, 4, (50, 100), True)
with (
    storages.opened(named, state, patience) as opened,
    search.join("s", opened, state / "s", SPACE, settings) as study,
):
    while True:
        study.reclaim()
        trials = study.trials()
        paused = [trial.number for trial in trials if trial.state == "paused"]
        if all(trial.is_finished for trial in trials):
            break
        trial = study.take(paused[0] if paused else None)
        if trial is None:
            time.sleep(0.05)
            continue
        print("began", trial.number, flush=True)
        time.sleep(0.05)
        if 50 not in study.trials()[trial.number].reported:
            study.report(trial, 50, trial.params["finetune.learning_rate"], 0.0)
            study.put_back(trial)
        else:
            study.report(trial, 100, 2 * trial.params["finetune.learning_rate"], 0.0)
            study.finish(trial, "complete", 2 * trial.params["finetune.learning_rate"])
"""


def settings(trials=6, sampler="tpe", pruner="halving", maximize=True):
    return Settings(trials, sampler, pruner, maximize, seed=1, images=100, epochs=4, rungs=(50, 100), by_loss=True)


@pytest.fixture
def study(tmp_path):
    """`study(settings, space)` joins the study in this test's SQLite file."""
    joined = []

    def join(chosen, space=SPACE):
        storage = storages.opened("journal", tmp_path)
        opened = storage.__enter__()
        joined.append(search.Study("s", opened, tmp_path / "s", space, chosen))
        return joined[-1]

    yield join
    for each in joined:
        each.close()


def states(study):
    return [trial.state for trial in study.trials()]


def test_a_trial_pauses_and_is_resumed(study):
    one = study(settings(3))
    assert states(one) == ["waiting"] * 3
    trial = one.take(None)
    assert set(trial.params) == {"finetune.freeze", "finetune.learning_rate"}
    one.report(trial, 50, 0.5, loss=1.5)
    one.put_back(trial)
    assert states(one) == ["paused", "waiting", "waiting"]
    assert scores(one.trials(), one.settings) == {0: [(-1.5, 0.5)], 1: [], 2: []}
    other = one.take(None)
    assert other.number == 1
    again = one.take(0)
    assert again.params == trial.params
    assert one.take(0) is None
    one.report(again, 100, 0.7, loss=1.0)
    one.finish(again, "complete", 0.7)
    one.finish(other, "failed")
    assert states(one) == ["complete", "failed", "waiting"]
    assert one.best().number == 0
    assert scores(one.trials(), one.settings) == {0: [(-1.5, 0.5), (-1.0, 0.7)], 2: []}


def test_more_trials_are_added_and_fewer_are_left_alone(study):
    assert states(study(settings(2))) == ["waiting"] * 2
    assert states(study(settings(4))) == ["waiting"] * 4
    few = study(settings(1))
    assert states(few) == ["waiting"]
    few.finish(few.take(None), "pruned")
    assert few.take(None) is None


def test_the_trial_of_a_worker_that_left_goes_back(study):
    one = study(settings(2))
    one.take(None)
    two = study(settings(2))
    assert two.take(0) is None
    assert two.trials()[0].notes[WORKER_KEY] == one.liveness.worker
    assert two.reclaim() == []  # the first worker is alive
    one.close()
    assert states(two) == ["waiting"] * 2


@pytest.mark.parametrize("named", ["auto", "journal"])
def test_a_trial_that_ran_when_the_machine_went_down_is_freed(tmp_path, named):
    with storages.opened(named, tmp_path) as opened:
        one = search.Study("s", opened, tmp_path / "s", SPACE, settings(2))
        trial = one.take(None)
        one.liveness.current = None
        one.close()
        one.storage.set_trial_user_attr(trial_id(trial), WORKER_KEY, "4711-of-another-start")
        two = search.Study("s", opened, tmp_path / "s", SPACE, settings(2))
        assert two.reclaim() == [trial.number]
        two.close()


def test_a_rung_that_was_missed_counts_with_what_came_next():
    chosen = Settings(6, "tpe", "halving", True, 1, 100, 4, rungs=(50, 100, 300), by_loss=True)
    reported, losses = {60: 0.5, 100: 0.6, 200: 0.7}, {"60": 3.0, "100": 2.0, "200": 1.0}
    assert sampling.standings(chosen, reported, losses) == [(-3.0, 0.5), (-2.0, 0.6)]
    assert sampling.standings(chosen, {}, {}) == []
    by_metric = Settings(6, "tpe", "halving", False, 1, 100, 4, rungs=(50, 250), by_loss=False)
    assert sampling.standings(by_metric, reported, losses) == [(-0.5, -3.0)]


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_no_point_is_repeated_while_others_are_untried(study, sampler):
    space = [Choice("a", tuple(range(3)), is_ordered=True), Interval("b", 1, 3, log=False, step=None, is_whole=True)]
    one = study(settings(9, sampler), space)
    points = []
    for _ in range(9):
        trial = one.take(None)
        points.append(tuple(trial.params.values()))
        one.report(trial, 50, 0.5, loss=1.0)
        one.put_back(trial)
    assert len(set(points)) == 9


def test_a_point_that_was_tried_is_known_again(study):
    one = study(settings(8, "random"), GRID)
    trials = [one.take(None) for _ in range(8)]
    repeats = [trial for trial in trials if one.earlier_twin(trial) is not None]
    assert len(trials) - len(repeats) == len({tuple(trial.params.values()) for trial in trials}) == 4
    first = one.earlier_twin(repeats[0])
    assert first.values == repeats[0].params
    assert first.number < repeats[0].number


def test_the_grid_is_searched_once(study):
    one = study(settings(4, "grid"), GRID)
    points = {tuple(one.take(None).params.values()) for _ in range(4)}
    assert points == {("none", 0.0), ("none", 0.5), ("all", 0.0), ("all", 0.5)}


def test_a_sampler_that_cannot_serve_the_space_is_refused():
    with pytest.raises(ParamsError, match=r"give sweep.space.finetune.learning_rate a list or a step"):
        sampling.require_sampler(settings(sampler="grid"), SPACE)
    ladder = [Interval("finetune.epochs", 2, 8, log=False, step=3, is_whole=True)]
    assert sampling.grid(ladder) == [{"finetune.epochs": value} for value in (2, 5, 8)]


def test_what_the_sampler_advises_depends_on_the_study_alone(tmp_path):
    """A sweep that was killed and resumed draws the points of one that was not."""

    def points_of(folder, restarts):
        points = []
        folder.mkdir()
        with storages.opened("journal", folder) as opened:
            joined = search.Study("s", opened, folder / "s", SPACE, settings(14))
            for _ in range(14):
                if restarts:
                    joined.close()
                    joined = search.Study("s", opened, folder / "s", SPACE, settings(14))
                trial = joined.take(None)
                points.append(trial.params)
                joined.report(trial, 50, 0.5, loss=abs(5e-4 - trial.params["finetune.learning_rate"]))
                joined.put_back(trial)
            joined.close()
        return points

    straight = points_of(tmp_path / "a", restarts=False)
    assert points_of(tmp_path / "b", restarts=True) == straight
    assert len({point["finetune.learning_rate"] for point in straight}) == 14


def test_tpe_learns_from_paused_trials(study):
    """They have values; what Optuna's own view of them says is nothing."""
    one = study(settings(40))
    for _ in range(40):
        trial = one.take(None)
        place = ("none", "a", "b", "all").index(trial.params["finetune.freeze"])
        one.report(trial, 50, 0.5, loss=abs(place - 1))
        one.put_back(trial)
    late = Counter(trial.values["finetune.freeze"] for trial in one.trials()[20:])
    assert late["a"] >= 10  # five by chance


def test_importances_are_shares_of_what_matters(study):
    one = study(settings(20, "random"))
    assert importances(one.trials(), SPACE, maximize=True) == {}
    for _ in range(20):
        trial = one.take(None)
        place = ("none", "a", "b", "all").index(trial.params["finetune.freeze"])
        one.report(trial, 50, place / 4, loss=0.0)
        one.put_back(trial)
    shares = importances(one.trials(), SPACE, maximize=True)
    assert next(iter(shares)) == "finetune.freeze"
    assert sum(shares.values()) == pytest.approx(1)


def worker(tmp_path, named, trials, patience=0, heartbeat=20):
    (tmp_path / "tests_space.py").write_text(
        f"from frostline.search.space import Choice, Interval\nSPACE = {SPACE!r}\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, named, str(tmp_path), str(trials), str(patience), str(heartbeat)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )


def check_all_done(named, tmp_path, trials):
    with storages.opened(named, tmp_path) as opened:
        known = optuna.load_study(study_name="s", storage=opened).get_trials()
    assert [trial.number for trial in known] == list(range(trials))
    assert {trial.state for trial in known} == {TrialState.COMPLETE}
    assert all(set(trial.intermediate_values) == {50, 100} for trial in known)
    assert len({tuple(trial.params.values()) for trial in known}) == trials


@pytest.mark.process
@pytest.mark.parametrize("named", ["auto", "journal"])
def test_a_killed_workers_file_is_removed_by_the_next(tmp_path, named):
    killed = worker(tmp_path, named, 12)
    killed.stdout.readline()  # it is at work
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert len(list((tmp_path / "s").glob("worker-*"))) == 1
    with storages.opened(named, tmp_path) as opened:
        alive = search.Study("s", opened, tmp_path / "s", SPACE, settings(12))
        assert [file.name for file in (tmp_path / "s").glob("worker-*")] == [f"worker-{alive.liveness.worker}"]
        with search.join("s", opened, tmp_path / "s", SPACE, settings(12)):
            assert (tmp_path / "s" / f"worker-{alive.liveness.worker}").exists()
        alive.close()
    assert not list((tmp_path / "s").glob("worker-*"))


@pytest.mark.process
@pytest.mark.parametrize("named", ["auto", pytest.param("journal", marks=pytest.mark.slow)])
def test_killed_at_any_moment_no_trial_is_lost_or_doubled(tmp_path, named):
    rng = random.Random(5)
    deadline = time.monotonic() + 120
    for _ in range(4):
        process = worker(tmp_path, named, 12)
        process.stdout.readline()  # it is at work
        time.sleep(rng.uniform(0.0, 0.4))
        process.send_signal(signal.SIGKILL)
        process.wait()
    last = worker(tmp_path, named, 12)
    assert last.wait(max(1, deadline - time.monotonic())) == 0
    check_all_done(named, tmp_path, 12)


@pytest.mark.process
def test_two_workers_on_one_journal_share_the_trials(tmp_path):
    both = [worker(tmp_path, "journal", 16) for _ in range(2)]
    outputs = [process.communicate(timeout=120)[0].split() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    check_all_done("journal", tmp_path, 16)
    begun = [output[1::2] for output in outputs]
    assert sum(map(len, begun)) == 32  # each trial twice: to its pause, and to its end
    assert all(begun)
