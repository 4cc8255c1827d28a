"""Functions of a project's own: the examples of the documentation, all five in one training, and what can go wrong."""

import re
import shutil
import sys

import numpy as np
import pytest
from conftest import ROOT, make_params

import frostline
from frostline.core import own_code
from frostline.data import augmentation
from frostline.errors import ParamsError
from frostline.evaluation import own_metrics
from frostline.models import backbones, heads
from frostline.training import inputs, job, optimizing
from frostline.training.phases import StepRule

PAGE = (ROOT / "docs/how-to/own-functions.md").read_text(encoding="utf-8")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with the module of the documentation; the working directory."""
    package = tmp_path / "src" / "ours"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "parts.py").write_text(re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1], encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "ours"]:
        del sys.modules[name]


def write(project, text):
    (project / "src/ours/more.py").write_text(text, encoding="utf-8")


def test_the_five_examples_train_a_classifier_together(project, small_sets, capsys):
    from PIL import Image

    for split, images in (("train", small_sets(0)[0]), ("val", small_sets(0)[1]), ("test", small_sets(0)[1])):
        for number, (pixels, label) in enumerate(zip(images.take(np.arange(len(images))), images.labels, strict=True)):
            folder = project / "photos" / split / "abc"[label]
            folder.mkdir(parents=True, exist_ok=True)
            changed = pixels if split != "test" else 255 - pixels  # the same image may not be on two sides
            Image.fromarray(changed).save(folder / f"{number}.png")
    settings = {
        "data.image_size": 32,
        "data.near_duplicates": False,
        "augment.copies": 1,
        "augment.function": "ours.parts:grey",
        "backbone.name": "ours.parts:backbone",
        "backbone.weights": "none",
        "head.layers": "ours.parts:head",
        "finetune.loss": "ours.parts:generalized_cross_entropy",
        "finetune.head_epochs": 1,
        "finetune.epochs": 2,
        "finetune.freeze": "none",
        "evaluate.bootstrap": 100,
        "evaluate.metrics": ["ours.parts:worst_class_recall"],
    }
    run = project / "run"
    run.mkdir()
    shutil.copytree(project / "src", run / "src")
    with pytest.raises(frostline.errors.UserError, match="is not empty"):
        frostline.train(project / "photos", settings, run)
    trained = frostline.train(project / "photos", settings)
    assert 0 <= trained.metrics["own_worst_class_recall"] <= 1
    model = trained.classifier._bundle.model
    assert [layer.name for layer in model.get_layer("head").layers] == ["own1", "own2", "own3", "logits"]
    assert model.get_layer("three_convolutions").count_params() > 0
    assert "ours.parts:backbone" in (trained.folder / "reports/model_card.md").read_text(encoding="utf-8")


def test_a_variant_of_ones_own_depends_on_the_seed_alone(project):
    settings = make_params(augment__function="ours.parts:grey").augment
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    function = augmentation.own(settings)
    variants = [augmentation.variant(image, settings, function, f"{7:064x}", number, 1) for number in range(1, 9)]
    again = [augmentation.variant(image, settings, function, f"{7:064x}", number, 1) for number in range(1, 9)]
    np.testing.assert_array_equal(variants, again)
    is_grey = [bool((each == each[..., :1]).all()) for each in variants]
    assert 0 < sum(is_grey) < 8


def test_an_edit_of_the_code_is_another_training(project, small_sets):
    params = make_params(finetune__loss="ours.parts:generalized_cross_entropy")
    before = job.key(params, small_sets(0))
    assert job.key(params, small_sets(0)) == before
    write(project, "# another file of the package\n")
    assert job.key(params, small_sets(0)) != before


def test_a_name_that_leads_nowhere_is_said_before_keras_is_loaded(project):
    for changes, message in [
        (
            {"finetune__loss": "ours.loses:own"},
            r"finetune\.loss ours\.loses:own: there is no module ours\.loses in src/",
        ),
        ({"head__layers": "theirs:head"}, r"head\.layers theirs:head: there is no module theirs in src/"),
        ({"backbone__name": "ours.bodies:tiny"}, r"backbone\.name ours\.bodies:tiny: there is no module ours\.bodies"),
    ]:
        with pytest.raises(ParamsError, match=message):
            inputs.check(make_params(**changes), str)
    with pytest.raises(ParamsError, match=r"ours\.parts has no function gray; did you mean grey\?"):
        own_code.function("ours.parts:gray", "augment.function")


def test_what_fails_inside_is_one_line_with_the_key_and_the_function(project):
    write(
        project,
        "import keras\n"
        "def raises(*args): raise KeyError('nothing')\n"
        "def floats(image, rng): return image / 2\n"
        "def mean_loss(targets, logits): return keras.ops.mean(targets - logits)\n"
        "def nan(labels, probabilities): return float('nan')\n"
        "class Mine(keras.layers.Layer): pass\n"
        "def layers(): return [Mine()]\n"
        "def sequential(size): return keras.layers.Dense(3)\n"
        "images = keras.Input((8, 8, 3))\n"
        "def small(size): return keras.Model(images, keras.layers.Conv2D(2, 3)(images))\n",
    )
    image = np.zeros((4, 4, 3), np.uint8)

    def variant(function):
        settings = make_params(augment__function=f"ours.more:{function}").augment
        return augmentation.variant(image, settings, augmentation.own(settings), "0" * 64, 1, 0)

    def loss(function):
        rule = StepRule("adam", False, False, False, False, None, f"ours.more:{function}")
        optimizing._loss(rule, False)(np.eye(3), np.eye(3))

    def head(function):
        heads.build((2, 2, 8), 3, "avg", [], "relu", False, layers=f"ours.more:{function}")

    labels, shares = np.zeros(2, np.int64), np.ones((2, 1), np.float32)
    for call, message in [
        (
            lambda: variant("raises"),
            r"augment\.function ours\.more:raises failed \(KeyError: 'nothing'\); fix the function",
        ),
        (lambda: variant("floats"), r"it gave float64 \(4, 4, 3\) and not uint8 \(4, 4, 3\)"),
        (
            lambda: loss("mean_loss"),
            r"finetune\.loss ours\.more:mean_loss failed .*it gave shape \(\), not",
        ),
        (
            lambda: own_metrics.compute(["ours.more:nan"], labels, shares),
            r"evaluate\.metrics .*nan failed .*it gave nan",
        ),
        (lambda: head("layers"), "Mine is no layer of Keras, which a bundle must load without your code"),
        (lambda: backbones.build("ours.more:sequential", "none", 32), "it gave Dense, not a functional model of Keras"),
        (
            lambda: backbones.build("ours.more:small", "none", 32),
            r"its model is from \(8, 8, 3\) to \(6, 6, 2\)",
        ),
    ]:
        with pytest.raises(ParamsError, match=message):
            call()


def test_live_variants_have_no_function_of_ones_own():
    with pytest.raises(ValueError, match=r"augment\.function changes stored variants; set augment\.mode to stored"):
        make_params(augment__mode="live", augment__function="ours.parts:grey")
