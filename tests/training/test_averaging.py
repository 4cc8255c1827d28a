"""The average of several trainings, against numpy on the weights of the same trainings done one by one."""

import numpy as np
import pandas as pd
import pytest
from conftest import make_params, make_shards

from frostline import paths
from frostline.core.mapped import Memory
from frostline.errors import ParamsError
from frostline.features import predictor
from frostline.features.store import Store
from frostline.models import bundles
from frostline.params import schema
from frostline.stages import finetune
from frostline.training import averaging
from frostline.training.examples import TrainingData
from frostline.training.loop import NOBODY
from frostline.training.trainer import Trainer

QUICK = {
    "data__image_size": 32,
    "data__resize": "stretch",
    "augment__copies": 0,
    "finetune__head_epochs": 2,
    "finetune__epochs": 2,
    "finetune__freeze": "block7_out",
    "finetune__learning_rate": 1e-3,
    "head__dropout": 0.3,
}
SOUP = [
    {"share": 2, "finetune.freeze": "block7_out"},
    {"share": 1, "finetune.freeze": "block6_out", "finetune.learning_rate": 3e-3},
    {"share": 1, "finetune.epochs": 0},
]


def weights_of(model):
    return [np.array(weight) for weight in model.weights]


@pytest.fixture(scope="module")
def soup(small_sets, tmp_path_factory):
    """The soup by itself, and the weights of its ingredients, each trained alone by another trainer."""
    train, validation = small_sets(0)
    data, params = TrainingData([train], validation), make_params(**QUICK, finetune__soup=SOUP)
    store = Store(tmp_path_factory.mktemp("features"), 1e10, Memory(2e9))
    single = Trainer(store)
    alone = [weights_of(single.run(each, data).bundle.model) for each in averaging.trainings(params)]
    return averaging.train(Trainer(store), params, data, lambda settings: (None, NOBODY)), alone, validation, store


def test_a_soup_is_the_average_of_the_weights_of_its_trainings(soup):
    result, alone, _, _ = soup
    averages = [
        sum(share * part.astype(float) for share, part in zip((0.5, 0.25, 0.25), parts, strict=True))
        for parts in zip(*alone, strict=True)
    ]
    found = weights_of(result.bundle.model)
    for one, other in zip(found, averages, strict=True):
        np.testing.assert_array_equal(one, other.astype(np.float32))
    assert any(not np.array_equal(one, other) for one, other in zip(found, alone[0], strict=True))
    assert result.audit.frozen_layers == min(
        place for place, layer in enumerate(bundles.parts(result.bundle)[0].model.layers) if layer.trainable
    )
    assert result.audit.frozen_weights_unchanged > 0


def test_its_last_row_is_what_its_model_reaches(soup):
    result, _, validation, store = soup
    assert [row.phase for row in result.history] == ["head"] * 2 + ["finetune"] * 2 + ["soup"]
    shares = result.bundle.probabilities(validation)
    likelihood = shares[np.arange(len(validation)), validation.labels]
    assert result.final_row is result.history[-1]
    assert result.final_row.val_loss == pytest.approx(-np.log(likelihood).mean(), abs=1e-5)
    assert result.final_row.val_accuracy == pytest.approx((shares.argmax(axis=1) == validation.labels).mean())
    stored = predictor.probabilities(result.bundle, validation, store, "always")  # from the lowest line on
    np.testing.assert_allclose(stored, shares, atol=1e-5)


def test_a_killed_soup_goes_on_and_ends_with_the_same_bytes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    for name, count, seed in (("train", 42, 0), ("val", 18, 99)):
        make_shards(tmp_path / "data" / "prepared" / name, count, seed=seed)
    params = make_params(**{**QUICK, "finetune__epochs": 1}, finetune__soup=SOUP[1:])
    text = finetune.run(params)
    assert text.startswith("finetune: average of 2 trainings; ")
    history = pd.read_csv(paths.HISTORY)
    assert list(history["phase"])[-2:] == ["finetune", "soup"]
    assert f"val_accuracy {history['val_accuracy'].iloc[-1]:.4f}" in text
    assert not any(paths.checkpoints().iterdir())
    straight = [(paths.BUNDLE / name).read_bytes() for name in ("model.keras", "bundle.json")]
    assert bundles.load(paths.BUNDLE).made_from.ingredients == 2

    begin = finetune._Trainings.begin

    def killed(self, settings):
        if len(self._checkpoints) == 1:
            raise KeyboardInterrupt
        return begin(self, settings)

    with monkeypatch.context() as patch:
        patch.setattr(finetune._Trainings, "begin", killed)
        with pytest.raises(KeyboardInterrupt):
            finetune.run(params)
    assert len(list(paths.checkpoints().iterdir())) == 1
    capsys.readouterr()
    finetune.run(params)
    assert capsys.readouterr().out.count("finetune: resuming after epoch 1 of phase finetune") == 1
    assert [(paths.BUNDLE / name).read_bytes() for name in ("model.keras", "bundle.json")] == straight


@pytest.mark.parametrize(
    ("ingredient", "reason"),
    [
        ({"share": 1, "finetune.head_epochs": 3}, "finetune.head_epochs must be the same in all ingredients"),
        ({"share": 1, "head.dropout": 0.3}, "head.dropout must be the same in all ingredients"),
        ({"share": 0}, "every ingredient of finetune.soup needs a share above 0, not 0"),
        ({"finetune.epochs": 0}, "every ingredient of finetune.soup needs a share above 0, not None"),
        ({"share": 1, "finetune.learning_rate": -1.0}, "finetune.learning_rate of an ingredient of finetune.soup: "),
        ({"share": 1, "finetune.train": "1..2"}, "freeze and finetune.train exclude each other"),
    ],
)
def test_a_bad_ingredient_is_one_line_that_names_the_key(tmp_path, ingredient, reason):
    from ruamel.yaml import YAML

    values = make_params().model_dump(mode="json")
    values["finetune"]["soup"] = [{"share": 1}, ingredient]
    with (tmp_path / "params.yaml").open("w") as file:
        YAML(typ="safe").dump(values, file)
    with pytest.raises(ParamsError) as error:
        schema.load(tmp_path / "params.yaml")
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


def test_a_classifier_of_scikit_learn_has_no_weights_to_average():
    with pytest.raises(ParamsError, match=r"can't go with finetune\.soup; set the latter to null"):
        make_params(finetune__soup=SOUP, finetune__freeze="all", head__classifier="knn")
