"""The soup of a sweep, from its trials to the training that makes it again."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, make_params, make_shards
from ruamel.yaml import YAML

from frostline import paths
from frostline.commands import sweep
from frostline.errors import ParamsError
from frostline.models import bundles
from frostline.params.schema import load
from frostline.search import soup as soups
from frostline.search.kept_weights import KeptWeights
from frostline.search.trial_records import TrialRecord
from frostline.stages import finetune
from frostline.training import averaging

QUICK = {
    "data__image_size": 32,
    "data__resize": "stretch",
    "augment__copies": 0,
    "finetune__head_epochs": 1,
    "finetune__epochs": 2,
    "finetune__batch_size": 4,
    "finetune__schedule": "constant",  # noisy weights, so that an average is better
    "finetune__ema_momentum": 0.0,
    "finetune__label_smoothing": 0.2,
    "sweep__trials": 4,
    "sweep__pruner": "none",
    "sweep__metric": "val_loss",
    "sweep__soup": "greedy",
    "sweep__space": {
        "finetune.freeze": ["block6_out", "block7_out"],
        "finetune.learning_rate": {"low": 1e-3, "high": 3e-2, "log": True},
    },
}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with prepared images and params.yaml, which is the project root."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    for name, count, seed in (("train", 42, 0), ("val", 18, 99)):
        make_shards(tmp_path / "data" / "prepared" / name, count, seed=seed)
    (tmp_path / "data" / "augmented").mkdir()
    shutil.copy(ROOT / "params.yaml", "params.yaml")
    with open("params.yaml", "w") as file:
        YAML(typ="safe").dump(make_params(**QUICK).model_dump(mode="json"), file)
    return tmp_path


def kept(project):
    return sorted(path.name for path in (project / ".frostline" / "sweeps").rglob("*.weights.npz"))


def test_a_soup_is_found_applied_and_made_again(project, monkeypatch):
    mixed, before = [], []
    score = averaging.score

    def watched(trainer, params, data, weights):
        before.append(kept(project))
        result = score(trainer, params, data, weights)
        mixed.append((params.finetune.soup, trainer.network(params, data, is_fresh=False).changed(), result))
        return result

    with monkeypatch.context() as patch:
        patch.setattr(averaging, "score", watched)
        outcome = json.loads(sweep.run(load(paths.PARAMS), as_json=True))
    assert len(before[0]) == 4  # the best few trials', for as long as they are needed
    assert kept(project) == []
    found, best = outcome["soup"], outcome["best"]
    assert found["best_loss"] == best["value"]
    assert found["trials"][0] == best["number"]
    assert found["val_loss"] == min(loss for _, _, (loss, _) in mixed) < best["value"]

    monkeypatch.setattr(averaging, "score", None)  # it is not made twice
    text = sweep.run(load(paths.PARAMS), apply=True)
    assert f"val_loss {found['val_loss']:.4f} of {'trials' if len(found['trials']) > 1 else 'trial'}" in text
    applied = load(paths.PARAMS)
    assert applied.finetune.soup == found["ingredients"]
    best_params = YAML(typ="safe").load(paths.SWEEP / "best_params.yaml")
    assert best_params == {**best["values"], "finetune.soup": found["ingredients"]}

    finetune.run(applied)
    history = pd.read_csv(paths.HISTORY)
    assert history["val_loss"].iloc[-1] == pytest.approx(found["val_loss"], rel=1e-3)  # of four digits
    (weights,) = [changed for ingredients, changed, _ in mixed if ingredients == found["ingredients"]]
    variables = bundles.load(paths.BUNDLE).model.variables
    for place, value in weights.items():
        np.testing.assert_array_equal(np.array(variables[place]), value)

    # A soup that a later search does not find is taken out again.
    without = load(paths.PARAMS)
    changed = without.model_copy(update={"sweep": without.sweep.model_copy(update={"soup": "none"})})
    assert "finetune.soup" in sweep.run(changed, apply=True)
    assert load(paths.PARAMS).finetune.soup is None


class Trainer:
    """Trains no network: a training changes one weight, to its learning rate."""

    def __init__(self):
        self.trained = []

    def run(self, params, data):
        self.trained.append(params.finetune.epochs)

    def network(self, params, data, is_fresh=True):
        rate = params.finetune.learning_rate if params.finetune.epochs else 0.0
        return SimpleNamespace(changed=lambda: {0: np.float32([rate])})


def greedy(tmp_path, monkeypatch, rates, measured, **changes):
    """The soup of trials with these learning rates, where `measured` gives accuracy and loss by the average rate."""

    def score(trainer, params, data, weights):
        shares = [share for _, share in params.finetune.trainings]
        mean = sum(share * float(each[0][0]) for share, each in zip(shares, weights, strict=True))
        accuracy, loss = measured(mean)
        return loss, accuracy

    monkeypatch.setattr(averaging, "score", score)
    records = [
        TrialRecord(number, "complete", {"finetune.learning_rate": rate, **changes.get("also", [{}] * 9)[number]},
                    measured(rate)[0], {}, {}, None)
        for number, rate in enumerate(rates)
    ]  # fmt: skip
    study = SimpleNamespace(
        trials=lambda: records, settings=SimpleNamespace(maximize=True), folder=tmp_path, identity="abcdef"
    )
    trainer = Trainer()
    maker = soups.GreedySoups(make_params(), lambda params: None, study, trainer, lambda line: None)
    kept = KeptWeights(tmp_path, "abcdef")
    for number, rate in enumerate(rates[:2]):  # those of others are trained again
        kept.save(number, {0: np.float32([rate])})
    maker.make()
    assert list(tmp_path.glob("*.npz")) == []
    return maker.found, trainer


def test_a_trial_is_added_with_the_share_that_is_best(tmp_path, monkeypatch):
    found, trainer = greedy(tmp_path, monkeypatch, [4.0, 1.0, 5.0], lambda rate: (1 - abs(rate - 3) / 10, 1.0))
    assert (found.trials, found.has_head) == ([0, 1], False)
    assert (found.val_accuracy, found.best_accuracy) == (1.0, 0.9)
    assert found.ingredients == [
        {"share": 1.0, "finetune.learning_rate": 4.0},
        {"share": 0.5, "finetune.learning_rate": 1.0},
    ]
    assert trainer.trained == [13, 0]  # a trial whose weights are not there, and the head alone


def test_the_model_with_only_a_trained_head_can_be_an_ingredient(tmp_path, monkeypatch):
    found, _ = greedy(tmp_path, monkeypatch, [4.0, 5.0], lambda rate: (0.9, abs(rate - 2)))
    assert (found.trials, found.has_head, found.val_loss) == ([0], True, 0.0)  # of equal accuracies, by the loss
    assert found.ingredients == [
        {"share": 1.0, "finetune.learning_rate": 4.0},
        {"share": 1.0, "finetune.epochs": 0},
    ]


@pytest.mark.parametrize("of_average", [(0.8, 0.5), (0.95, 1.5), (0.9, 1.0)])
def test_no_soup_is_chosen_that_is_worse_in_accuracy_or_loss_or_the_same(tmp_path, monkeypatch, of_average):
    found, _ = greedy(tmp_path, monkeypatch, [4.0, 5.0], lambda rate: (0.9, 1.0) if rate in {4, 5} else of_average)
    assert found is None
    assert json.loads((tmp_path / "abcdef-soup.json").read_text())["soup"] is None


def test_trials_with_another_head_are_left_out(tmp_path, monkeypatch):
    also = [{"head.dropout": 0.1}, {"head.dropout": 0.2}]
    found, _ = greedy(tmp_path, monkeypatch, [4.0, 2.0], lambda rate: (0.9, abs(rate - 3)), also=also)
    assert found.trials == [0]


def test_weights_that_are_damaged_are_none(tmp_path):
    kept = KeptWeights(tmp_path, "abcdef")
    kept.save(3, {0: np.float32([1.0]), 7: np.float32([[2.0]])})
    assert {place: value.tolist() for place, value in kept.load(3).items()} == {0: [1.0], 7: [[2.0]]}
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-30])
    assert kept.load(3) is None
    assert kept.load(4) is None


def test_a_sweep_of_scikit_learns_classifiers_has_no_soup():
    with pytest.raises(ParamsError, match=r"can't go with sweep\.soup greedy; set the latter to none"):
        make_params(sweep__soup="greedy", finetune__freeze="all", head__classifier="knn")
