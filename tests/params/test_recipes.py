"""Recipes are complete, keep the user's data when they are applied, and run from end to end."""

import io

import pytest
from conftest import ROOT
from ruamel.yaml import YAML

from frostline.commands import recipe as stage
from frostline.errors import ParamsError
from frostline.params import recipes, schema

NAMES = sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with the repository's recipes and a user's own params.yaml."""
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    own = text.replace("source: data/digits.yaml ", "source: data/cats ").replace("name: frostline  ", "name: cats  ")
    (tmp_path / "params.yaml").write_text(own, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_thirteen_recipes_are_there():
    assert NAMES == [
        "inceptionv3-last15",
        "large-different",
        "large-similar",
        "photos",
        "resnet50-feature-extraction",
        "resnet50-fine-tuning",
        "small-different",
        "small-similar",
        "vgg16-dogs-vs-cats",
        "vgg19-block2-features",
        "vgg19-first5-frozen",
        "vit-layer-decay",
        "vit-linear-probe",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_a_complete_params_file_that_says_when_to_use_it(name):
    schema.load(ROOT / "recipes" / f"{name}.yaml")
    recipe = recipes.find(ROOT / "recipes", name)
    assert 40 < len(recipe.summary) < 140
    assert len(recipe.header) > 200


@pytest.mark.parametrize("name", NAMES)
def test_applying_keeps_the_users_data_and_registry(project, name):
    before = schema.load(project / "params.yaml")
    message = stage.run(name, apply=True, yes=True, image_size=name == "inceptionv3-last15")
    after, recipe = schema.load(project / "params.yaml"), schema.load(ROOT / "recipes" / f"{name}.yaml")
    assert f"is {name} now, for data/cats" in message
    new_values = {"image_size": recipe.data.image_size} if name == "inceptionv3-last15" else {}
    assert after.data == before.data.model_copy(update=new_values)
    assert (after.registry, after.tracking) == (before.registry, before.tracking)
    assert (after.backbone, after.head, after.finetune) == (recipe.backbone, recipe.head, recipe.finetune)
    text = (project / "params.yaml").read_text(encoding="utf-8")
    assert "# class folders, the same split" in text
    assert ("pixels, data.image_size is 64" in message) == (name != "inceptionv3-last15")


def test_nothing_is_overwritten_without_a_question(project, monkeypatch):
    before = (project / "params.yaml").read_bytes()
    with pytest.raises(ParamsError, match="no terminal to ask before overwriting it; add --yes"):
        stage.run("small-similar", apply=True, yes=False, image_size=False)

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    with pytest.raises(ParamsError, match="left as it is"):
        stage.run("small-similar", apply=True, yes=False, image_size=False)
    assert (project / "params.yaml").read_bytes() == before
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    assert "is small-similar now" in stage.run("small-similar", apply=True, yes=False, image_size=False)


def test_an_invalid_result_replaces_nothing(project):
    broken = "data:\n  source: data/cats\nseed: 1\n"
    (project / "params.yaml").write_text(broken, encoding="utf-8")
    with pytest.raises(ParamsError, match=r"data\.image_size is missing"):
        stage.run("small-similar", apply=True, yes=True, image_size=False)
    assert (project / "params.yaml").read_text(encoding="utf-8") == broken


def test_too_small_images_are_refused_before_anything_is_written(project):
    before = (project / "params.yaml").read_bytes()
    with pytest.raises(ParamsError, match=r"data\.image_size 64 is too small for InceptionV3"):
        stage.run("inceptionv3-last15", apply=True, yes=True, image_size=False)
    assert (project / "params.yaml").read_bytes() == before


def test_an_unknown_name_suggests_the_nearest(project):
    with pytest.raises(ParamsError, match="did you mean vgg19-first5-frozen"):
        stage.run("vgg19-first-5", apply=False, yes=False, image_size=False)
    table = stage.run(None, apply=False, yes=False, image_size=False)
    assert len(table.splitlines()) == len(NAMES)


def tiny_preset(folder):
    """The folder of a small vision transformer."""
    keras_hub = pytest.importorskip("keras_hub", reason="KerasHub is not installed (the extra hub)")
    body = keras_hub.models.ViTBackbone((32, 32, 3), 8, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64)
    body.save_to_preset(folder)
    keras_hub.layers.ImageConverter(image_size=(32, 32), scale=1 / 127.5, offset=-1.0).save_to_preset(folder)
    return folder


def run_tiny(project, name):
    """Run a recipe in all four stages, with random weights and few generated images. Returns the metrics."""
    import json

    from frostline import paths
    from frostline.stages import augment, evaluate, finetune, prepare

    text = recipes.find(ROOT / "recipes", name).text
    values = YAML(typ="safe", pure=True).load(text)
    classes = 2 if values["head"]["binary"] else 3
    (project / "data").mkdir()
    (project / "data" / "tiny.yaml").write_text(
        f"kind: synthetic\nfractals: {classes}\nletters: 0\nimages_per_class: 16\nsize: 64\nseed: 1\n"
    )
    if values["backbone"]["name"].startswith("hub/"):
        values["backbone"]["name"] = f"hub/{tiny_preset(project / 'preset')}"
    smallest = 75 if values["backbone"]["name"] == "InceptionV3" else 32
    values["data"] |= {"source": "data/tiny.yaml", "image_size": smallest, "train_per_class": None}
    values["data"]["split"] = {"train": 0.5, "val": 0.25, "test": 0.25}
    values["backbone"]["weights"] = "none"
    values["augment"]["copies"] = min(1, values["augment"]["copies"])
    values["finetune"]["head_epochs"] = min(1, values["finetune"]["head_epochs"])
    values["finetune"]["epochs"] = min(2, values["finetune"]["epochs"])
    values["tracking"]["uri"] = "none"
    values["evaluate"]["bootstrap"] = 100
    settings = schema.Params.model_validate(values)
    for each in (prepare, augment, finetune, evaluate):
        each.run(settings)
    metrics = json.loads(paths.METRICS.read_text())
    assert metrics["n_test"] >= 8
    return metrics


QUICK = ("small-similar",)


@pytest.mark.process
@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
)
def test_a_recipe_runs_from_end_to_end(project, name):
    metrics = run_tiny(project, name)
    assert metrics["accuracy_ci95"][0] <= metrics["accuracy"] <= metrics["accuracy_ci95"][1]
    assert metrics["test_digest"]
