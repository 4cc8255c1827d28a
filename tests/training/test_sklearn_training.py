"""Each scikit-learn classifier as the head: training, evaluation, prediction, export and sweep."""

import io
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import make_params
from PIL import Image

from frostline import paths
from frostline.commands import export, features, predict, serve, sweep
from frostline.errors import ParamsError
from frostline.exports.formats import FORMATS
from frostline.features import store
from frostline.models import bundles
from frostline.serving import loading
from frostline.stages import augment, evaluate, finetune, prepare

pytestmark = pytest.mark.process

ARGUMENTS = {
    "logistic_regression": {"C": 0.1},
    "linear_svm": {},
    "random_forest": {"n_estimators": 15},
    "knn": {"n_neighbors": 3, "weights": "distance"},
}


def params(kind="logistic_regression", **changes):
    return make_params(
        **{
            "data__source": "images",
            "data__image_size": 32,
            "data__train_per_class": None,
            "data__near_duplicates": False,
            "augment__copies": 2,
            "finetune__freeze": "all",
            "head__classifier": kind,
            "head__classifier_args": ARGUMENTS.get(kind, {}),
            "evaluate__bootstrap": 100,
            **changes,
        }
    )


QUICK = {"logistic_regression"}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project with prepared and augmented images. Each of three classes has a bright square in another place."""
    folder = tmp_path_factory.mktemp("project")
    rng = np.random.default_rng(0)
    for label in range(3):
        class_folder = folder / "images" / "abc"[label]
        class_folder.mkdir(parents=True)
        for number in range(24):
            pixels = rng.integers(0, 80, (32, 32, 3), dtype=np.uint8)
            pixels[label * 10 : label * 10 + 10, :10] += 150
            Image.fromarray(pixels).save(class_folder / f"{number}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("DVC_ROOT", str(folder))
        os.environ.pop("MLFLOW_TRACKING_URI", None)  # MLflow itself sets it
        prepare.run(params())
        augment.run(params())
        yield folder
        os.environ.pop("MLFLOW_TRACKING_URI", None)


@pytest.mark.parametrize(
    "kind", [kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.slow) for kind in ARGUMENTS]
)
def test_a_classifier_works_in_all_stages_and_commands(project, kind, tmp_path, capsys):
    settings = params(kind, tracking__uri="auto", evaluate__calibrate="temperature" if kind == "linear_svm" else "none")
    text = finetune.run(settings)
    assert "66 of 66 layers frozen" in text
    (row,) = pd.read_csv(paths.HISTORY).to_dict("records")
    assert [row[key] for key in ("phase", "epoch", "learning_rate", "frozen_layers")] == ["head", 1, 0.0, 66]
    assert "head   1/1 " in capsys.readouterr().out
    assert json.loads((paths.BUNDLE / "bundle.json").read_text())["made_from"]["head"]["classifier"] == kind

    evaluate.run(settings)
    metrics = json.loads(paths.METRICS.read_text())
    assert metrics["accuracy"] > 0.8
    assert (paths.PLOTS / "mistakes.png").is_file()
    assert kind in paths.MODEL_CARD.read_text()

    # The answer for a file equals the prediction for its prepared image.
    predictions = pd.read_parquet(paths.PREDICTIONS)
    names = [str(project / "images" / path) for path in predictions["path"]]
    out = io.StringIO()
    predict.run(settings, names, str(paths.BUNDLE), "json", out)
    answers = json.loads(out.getvalue())
    probabilities = [list(each["probabilities"].values()) for each in answers]
    np.testing.assert_allclose(probabilities, np.stack(predictions["probabilities"]), atol=2e-3)

    scorer = loading.scorer_of(paths.BUNDLE)
    explain = serve.explainer(bundles.load(paths.BUNDLE), scorer)
    heat_map = explain((project / "images" / predictions["path"][0]).read_bytes())
    assert Image.open(io.BytesIO(heat_map)).size == (32, 32)

    export.run(settings, str(paths.BUNDLE), tmp_path / "out", "litert")
    run = FORMATS["litert"].load(tmp_path / "out" / "classifier.tflite")
    output = run(scorer.prepare(Path(names[0])))["probabilities"]
    np.testing.assert_allclose(output, probabilities[0], atol=2e-3)


def test_the_features_of_the_training_are_used_for_the_table(project):
    """The features that the head was trained on are not computed again: the store stays as it was."""
    settings = params(cache__mode="always")
    finetune.run(settings)
    entries = {(str(each.about), each.images) for each in store.opened(settings.cache).usage()}
    features.run(settings, "block8_out", "train", Path("f.parquet"))
    assert {(str(each.about), each.images) for each in store.opened(settings.cache).usage()} == entries


def test_a_sweep_compares_them(project, capsys):
    space = {"head.classifier": ["logistic_regression", "knn"]}
    settings = params("dense", sweep__space=space, sweep__trials=2, sweep__sampler="grid", tracking__uri="auto")
    outcome = json.loads(sweep.run(settings, as_json=True))
    assert outcome["trials"] == {"complete": 2}, capsys.readouterr().err
    assert outcome["best"]["value"] > 0.8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"finetune__freeze": "block4_out"}, r"head\.classifier knn .* finetune\.freeze block4_out"),
        ({"head__binary": True}, r"head\.classifier knn .* head\.binary"),
    ],
    ids=str,
)
def test_settings_that_do_not_go_together_name_both(changes, message):
    with pytest.raises(ParamsError, match=message):
        params("knn", **changes)


def test_a_wrong_argument_is_refused_before_any_work(project):
    with pytest.raises(ParamsError, match=r"classifier_args\.neighbours .* did you mean n_neighbors"):
        finetune.run(params("knn", head__classifier_args={"neighbours": 3}, backbone__weights="none"))
