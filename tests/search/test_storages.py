"""Where studies are kept: what is wrong with a place is one line, and a database may go away for a while."""

import itertools
import threading
import time

import optuna
import postgres as databases
import pytest
from test_study import SPACE, check_all_done, settings, worker

from frostline.errors import StateError
from frostline.search import storages
from frostline.search import study as search

pytestmark = pytest.mark.process


@pytest.fixture
def postgres(tmp_path):
    with databases.running(tmp_path) as server:
        yield server


def test_a_second_worker_on_sqlite_is_refused_with_the_fix(tmp_path):
    with (
        storages.opened("auto", tmp_path),
        pytest.raises(StateError, match=r"another sweep uses it; start one with --workers N, or set sweep\.storage"),
        storages.opened("auto", tmp_path),
    ):
        pass
    with storages.opened("auto", tmp_path):
        pass  # the first one let go


def complaint(named, tmp_path):
    with pytest.raises(StateError) as caught, storages.opened(named, tmp_path):
        pass
    return str(caught.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("nosuch://me:s3cret@x/y", "sweep.storage nosuch://***@x/y is no URL of a database"),
        ("not a url", "is no URL of a database"),
        ("postgresql+psycopg://me:s3cret@127.0.0.1:port/x", "is no URL of a database"),
        ("postgresql://me:s3cret@127.0.0.1:1/none", "postgresql://***@127.0.0.1:1/none is not reachable"),
        ("mysql+pymysql://me:s3cret@127.0.0.1:1/none", "needs a driver that is not installed; pip install pymysql"),
        ("postgresql+pg8000://me:s3cret@127.0.0.1:1/none", "not installed; pip install 'frostline[postgres]'"),
        ("sqlite:////nowhere/at/all.db", "/nowhere/at/all.db: can't be opened; make its folder"),
    ],
)
def test_what_is_wrong_with_a_storage_is_one_line_without_the_password(tmp_path, url, expected):
    said = complaint(url, tmp_path)
    assert expected in said
    assert "s3cret" not in said
    assert "\n" not in said


def test_a_damaged_file_is_named_with_what_is_lost(tmp_path):
    (tmp_path / "optuna.db").write_bytes(b"no database" * 1000)
    expected = "is not a database; move it away (its studies are lost, trained models are not), or set sweep.storage"
    assert complaint("auto", tmp_path).startswith(f"{tmp_path / 'optuna.db'}: {expected}")
    (tmp_path / "optuna.db").unlink()
    with storages.opened("auto", tmp_path):
        pass
    with (tmp_path / "optuna.db").open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 20000)
    assert "is damaged; move it away" in complaint("auto", tmp_path)
    (tmp_path / "optuna.journal").write_bytes(b"no journal\n" * 3)
    assert complaint("journal", tmp_path).startswith(f"{tmp_path / 'optuna.journal'}: is damaged; move it away")


def test_a_file_that_is_damaged_while_it_is_used_is_one_line_too(tmp_path):
    with storages.opened("auto", tmp_path) as opened:
        (tmp_path / "optuna.db").write_bytes(b"no database" * 1000)
        with pytest.raises(StateError, match=r"optuna\.db: is .*; move it away"):
            optuna.create_study(storage=opened)


def in_a_study(postgres, tmp_path, patience, work):
    with (
        storages.opened(postgres.url, tmp_path, patience) as opened,
        search.join("s", opened, tmp_path / "s", SPACE, settings(2)) as study,
    ):
        work(study)


def test_two_workers_on_postgresql_share_the_trials(tmp_path, postgres):
    both = [worker(tmp_path, postgres.url, 16) for _ in range(2)]
    outputs = [process.communicate(timeout=120)[0].split() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    check_all_done(postgres.url, tmp_path, 16)
    begun = [output[1::2] for output in outputs]
    assert sum(map(len, begun)) == 32
    assert all(begun)


def test_on_postgresql_a_silent_worker_on_another_machine_is_given_up(tmp_path, postgres, monkeypatch):
    monkeypatch.setattr(storages, "HEARTBEAT", 1)
    with storages.opened(postgres.url, tmp_path / "here") as opened:
        far = search.Study("s", opened, tmp_path / "there", SPACE, settings(2))
        near = search.Study("s", opened, tmp_path / "here", SPACE, settings(2))
        trial = far.take(None)
        assert near.reclaim() == []
        far.liveness.current = None  # it goes silent
        deadline = time.monotonic() + 30
        freed = []
        while not freed and time.monotonic() < deadline:
            time.sleep(0.5)
            freed = near.reclaim()
        assert freed == [trial.number]
        assert near.take(None).number == trial.number
        near.close()
        far.close()


def test_postgresql_may_restart_while_workers_are_at_it(tmp_path, postgres):
    both = [worker(tmp_path, postgres.url, 24, patience=30, heartbeat=2) for _ in range(2)]
    for process in both:
        process.stdout.readline()  # it is at work
    postgres.control("-m", "immediate", "restart")
    time.sleep(1)
    postgres.control("-m", "fast", "stop")
    time.sleep(3)
    postgres.control("start")
    for process in both:
        process.communicate(timeout=120)
    assert [process.returncode for process in both] == [0, 0]
    check_all_done(postgres.url, tmp_path, 24)


@pytest.mark.parametrize("patience", [0, 1])
def test_a_database_that_stays_away_is_one_line_without_the_password(tmp_path, postgres, patience, capfd):
    began = 0.0

    def work(study):
        nonlocal began
        study.take(None)
        postgres.control("-m", "immediate", "stop")
        began = time.monotonic()
        study.trials()

    with pytest.raises(StateError) as caught:
        in_a_study(postgres, tmp_path, patience, work)
    assert time.monotonic() - began < patience + 1  # leaving waits no second time
    expected = rf"sweep\.storage postgresql\+psycopg://\*\*\*@127\.0\.0\.1:{postgres.port}/postgres was away"
    assert caught.match(expected + (" for 1 s " if patience else " "))
    assert "s3cret" not in str(caught.value)
    assert capfd.readouterr().err.count("is away; waiting for it") == (patience > 0)
    assert not list((tmp_path / "s").glob("worker-*"))


def test_what_was_done_before_the_answer_was_lost_is_done_once(tmp_path, postgres, monkeypatch):
    """Every fourteenth commit is carried out, and its answer is lost."""
    monkeypatch.setattr(storages, "HEARTBEAT", 1)
    commits = itertools.count(1)
    with (
        databases.losing(postgres.port, lambda writes: next(commits) % 14 == 0) as port,
        storages.opened(postgres.at(port), tmp_path, 30) as opened,
        search.join("s", opened, tmp_path / "s", SPACE, settings(4)) as study,
    ):
        begun = []
        deadline = time.monotonic() + 60
        while not all(trial.is_finished for trial in study.trials()) and time.monotonic() < deadline:
            study.reclaim()
            trial = study.take(next((other.number for other in study.trials() if other.state == "paused"), None))
            if trial is None:
                time.sleep(0.1)
                continue
            begun.append(trial.number)
            if 50 in search.reported(trial):
                study.finish(trial, "complete", 0.5)
            else:
                study.report(trial, 50, 0.5, loss=1.0)
                study.put_back(trial)
        trials = study.trials()
    assert [(trial.number, trial.state) for trial in trials] == [(number, "complete") for number in range(4)]
    assert sorted(begun) == sorted([*range(4), *range(4)])
    assert next(commits) > 5 * 14


def test_a_trial_that_was_put_back_is_left_to_who_took_it_before_the_repeat(tmp_path, postgres):
    is_armed = threading.Event()

    def loses(writes):
        if not (writes and is_armed.is_set()):
            return False
        is_armed.clear()
        return True

    with (
        databases.losing(postgres.port, loses) as port,
        storages.opened(postgres.at(port), tmp_path / "far", 30) as far,
        storages.opened(postgres.url, tmp_path / "near") as near,
        search.join("s", far, tmp_path / "far" / "s", SPACE, settings(1)) as one,
        search.join("s", near, tmp_path / "near" / "s", SPACE, settings(1)) as other,
    ):
        trial = one.take(None)
        is_armed.set()
        leaving = threading.Thread(target=one.put_back, args=(trial,))
        leaving.start()
        taken = None
        deadline = time.monotonic() + 20
        while taken is None and time.monotonic() < deadline:
            taken = other.take(0)
        leaving.join()
        assert not is_armed.is_set()
        assert taken.number == 0
        assert other.trials()[0].state == "running"


def test_every_operation_of_optunas_database_is_repeated_where_the_database_is_away():
    from optuna.storages import BaseStorage, RDBStorage

    asked = {name for name in vars(RDBStorage) if hasattr(BaseStorage, name) and not name.startswith("_")}
    assert "get_trial_id_from_study_id_trial_number" in asked  # which is not abstract
    assert [name for name in asked if not hasattr(getattr(storages.Database, name), "__wrapped__")] == []
