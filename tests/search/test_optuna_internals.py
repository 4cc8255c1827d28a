"""The private names of Optuna that the search uses exist in the installed release, and mean what they meant."""

from importlib.metadata import version

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.storages import RDBStorage

from frostline.search import optuna_internals

RENAMED = f"Optuna {version('optuna')} has renamed it; see src/frostline/search/optuna_internals.py"


@pytest.mark.parametrize("name", optuna_internals.DATABASE_METHODS)
def test_a_database_has_the_methods_that_are_repeated(name):
    assert callable(getattr(RDBStorage, name, None)), RENAMED


def test_studies_and_trials_have_the_attributes_that_are_read():
    study = optuna.create_study()
    trial = study.ask()
    for owner, name in [
        (study, "_study_id"),
        (trial, "_trial_id"),
        (study.trials[0], "_trial_id"),
        (trial, "_suggest"),
        (trial, "_cached_frozen_trial"),
    ]:
        assert hasattr(owner, name), f"{type(owner).__name__}.{name}: {RENAMED}"
    optuna_internals.suggest(trial, "rate", FloatDistribution(0.25, 0.25))
    trial.report(0.5, 3)
    assert optuna_internals.reported(trial) == {3: 0.5}
    (same,) = study.get_trials(deepcopy=False)
    assert same.params == {"rate": 0.25}
    assert optuna_internals.trial_id(trial) == optuna_internals.trial_id(same)


@pytest.mark.filterwarnings("ignore")
def test_a_new_database_has_no_stale_trials(tmp_path):
    storage = RDBStorage(f"sqlite:///{tmp_path / 'optuna.db'}", heartbeat_interval=1, grace_period=3)
    study = optuna.create_study(storage=storage)
    study.ask()
    assert optuna_internals.stale_trial_ids(storage, optuna_internals.study_id(study)) == set()
