"""Weights from files of every kind and from bundles, for bodies that they fit completely, partly or not at all."""

import shutil
import zipfile

import h5py
import keras
import numpy as np
import pytest
import workspace
from conftest import make_bundle, make_params

from frostline.core.mapped import Memory
from frostline.data import shards
from frostline.errors import WeightsError
from frostline.features.store import Store
from frostline.models import account, backbones, bundles, keras_files, weights
from frostline.models.made_from import LoadedWeights
from frostline.training import job
from frostline.training.examples import TrainingData
from frostline.training.loop import Watch
from frostline.training.trainer import Trainer

SIDE = 32


@pytest.fixture(scope="module")
def network():
    """A body with a head, like in Keras's tutorials, with other numbers in the names of unnamed layers."""
    keras.utils.set_random_seed(1)
    return keras.applications.MobileNet(weights=None, input_shape=(SIDE, SIDE, 3), alpha=0.25, classes=4)


def build(path, **more):
    keras.utils.set_random_seed(2)
    return backbones.build("MobileNet", str(path), SIDE, alpha=0.25, **more)


def values(model):
    return {weight.path: np.asarray(weight) for weight in model.weights}


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
@pytest.mark.parametrize("name", ["body.weights.h5", "whole.weights.h5", "whole.keras", "whole.h5", "nested.h5"])
def test_every_kind_of_file_gives_the_body_all_its_weights(network, tmp_path, name):
    path = tmp_path / name
    body = keras.Model(network.input, network.get_layer("conv_pw_13_relu").output)
    nested = keras.Sequential([keras.Input((SIDE, SIDE, 3)), body, keras.layers.Flatten(), keras.layers.Dense(2)])
    model = {"body": body, "whole": network, "nested": nested}[name.split(".")[0]]
    (model.save_weights if "weights" in name else model.save)(path)
    backbone = build(path)
    assert backbone.loaded == LoadedWeights(54, 54, [], [])
    expected = values(body)
    for layer_path, value in values(backbone.model).items():
        np.testing.assert_array_equal(value, expected[layer_path])
    assert str(backbone.loaded) == "weights: 54 of 54 layers loaded"


def test_numbered_names_are_used_in_order_and_only_if_all_fit(tmp_path):
    """Xception's shortcuts have no names of their own. In the file, their numbers continue those of another network."""
    shape = (71, 71, 3)
    keras.applications.Xception(include_top=False, weights=None, input_shape=shape)
    theirs = keras.applications.Xception(weights=None, input_shape=shape, classes=3)
    assert "conv2d" not in [layer.name for layer in theirs.layers]
    theirs.save(tmp_path / "whole.keras")
    backbone = backbones.build("Xception", str(tmp_path / "whole.keras"), 71)
    assert backbone.loaded.layers == backbone.loaded.of
    assert backbone.model.get_layer("conv2d").name == "conv2d"
    for ours, expected in zip(backbone.model.weights, theirs.weights, strict=False):
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(expected))

    names = ["conv2d_7", "block_conv", "conv2d_10", "conv2d_9"]
    assert weights._keys(names) == [("conv2d", 0), "block_conv", ("conv2d", 2), ("conv2d", 1)]


def test_a_file_without_names_is_read_by_its_structure(network, tmp_path):
    body = keras.Model(network.input, network.get_layer("conv_pw_13_relu").output)
    body.save_weights(tmp_path / "old.weights.h5")
    with h5py.File(tmp_path / "old.weights.h5", "r+") as file:
        file.visititems(lambda _, group: group.attrs.pop("name", None) and None)
    backbone = build(tmp_path / "old.weights.h5")
    assert backbone.loaded == LoadedWeights(54, 54, [], [])
    for ours, expected in zip(backbone.model.weights, body.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(expected))


def test_layers_that_do_not_fit_are_skipped_and_listed(network, tmp_path):
    path = tmp_path / "part.weights.h5"
    network.save_weights(path)
    with h5py.File(path, "r+") as file:
        groups = {}
        file.visititems(lambda name, group: groups.update({group.attrs.get("name"): name}))
        for number in range(1, 8):
            del file[groups[f"conv_dw_{number}"]]
        kernel = file[groups["conv_pw_3"]]
        del kernel["0"]
        kernel["0"] = np.zeros((1, 1, 5, 5), np.float32)
    backbone = build(path)
    assert (backbone.loaded.layers, backbone.loaded.of) == (46, 54)
    assert backbone.loaded.mismatched == ["conv_pw_3"]
    message = str(backbone.loaded)
    assert "46 of 54 layers loaded; 7 not in the file: conv_dw_1, conv_dw_2, conv_dw_3, conv_dw_4, conv_dw_5" in message
    assert "conv_dw_5 and 2 more; 1 of another shape: conv_pw_3" in message
    shallow = build(path, until="conv_pw_2_relu").loaded  # counts only the layers of the shorter body
    assert (shallow.layers, shallow.of, shallow.missing, shallow.mismatched) == (8, 10, ["conv_dw_1", "conv_dw_2"], [])


def test_a_file_that_fits_no_layer_is_refused_with_the_fix(network, tmp_path):
    path = tmp_path / "other.keras"
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save(path)
    with pytest.raises(WeightsError, match=r"other\.keras: .*MobileNet \(none of 54 layers fits\).* or backbone.alpha"):
        build(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("assets/other.h5", b"no weights")
    assert [name for name, _ in keras_files.read(path)[0]] == ["dense"]
    path.write_bytes(b"garbage")
    with pytest.raises(WeightsError, match=r"other\.keras: does not hold .*it is not a zip archive"):
        build(path)


@pytest.mark.process
def test_a_file_of_efficientnet_gives_the_same_as_the_download_of_keras(monkeypatch, tmp_path):
    """Keras adds a Rescaling layer to the graph only for `imagenet`, but a file of the same weights needs it too."""
    keras.utils.set_random_seed(0)
    shape = (SIDE, SIDE, 3)
    theirs = keras.applications.EfficientNetB0(include_top=False, weights=None, input_shape=shape)
    norm = next(layer for layer in theirs.layers if isinstance(layer, keras.layers.Normalization))
    norm.set_weights([np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225]), np.array(0)])
    path = tmp_path / "efficientnetb0_notop.h5"
    theirs.save(path)
    theirs.save_weights(tmp_path / "notop.weights.h5")
    with h5py.File(path) as whole, h5py.File(tmp_path / "download.h5", "w") as file:
        whole.copy("model_weights", file)
        for key, value in whole["model_weights"].attrs.items():
            file.attrs[key] = value
        for key in list(file["model_weights"]):
            file.move(f"model_weights/{key}", key)
        del file["model_weights"]
    module = "keras.src.applications.efficientnet.file_utils.get_file"
    monkeypatch.setattr(module, lambda *_, **__: str(tmp_path / "download.h5"))
    images = np.random.default_rng(0).uniform(0, 255, (1, *shape)).astype(np.float32)
    stem = [
        keras.Model(model.input, model.get_layer("stem_conv").output)(images)
        for model in (
            keras.applications.EfficientNetB0(include_top=False, weights="imagenet", input_shape=shape),
            backbones.build("EfficientNetB0", str(path), SIDE).model,
            backbones.build("EfficientNetB0", str(tmp_path / "notop.weights.h5"), SIDE).model,
            backbones.build("EfficientNetB0", "imagenet", SIDE).model,
        )
    ]
    for outputs in stem[1:]:
        np.testing.assert_allclose(outputs, stem[0], rtol=1e-4, atol=1e-5)


def test_a_bundle_can_be_the_start_of_another_training(tmp_path, small_sets):
    folder = make_bundle(tmp_path / "start", ("a", "b"))
    bundle = bundles.load(folder)
    body = bundles.parts(bundle)[0].model
    for weight in body.weights:
        weight.assign(np.asarray(weight) * 1.01)
    bundles.save(folder, bundle)
    backbone = backbones.build("frostnet", str(folder), SIDE)
    assert backbone.loaded == LoadedWeights(40, 40, [], [])
    for ours, expected in zip(backbone.model.weights, body.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(expected))

    reference = "models:/pets@champion"
    params = make_params(
        backbone__weights=reference,
        finetune__freeze="all",
        finetune__head_epochs=1,
        finetune__epochs=0,
        finetune__precision="float32",
        cache__mode="never",
    )
    *variants, validation = small_sets()
    lines = []
    trainer = Trainer(Store(tmp_path / "features", 1e9, Memory(1e9)), {reference: str(folder)}.__getitem__)
    result = trainer.run(params, TrainingData(variants, validation), watch=Watch(on_weights=lines.append))
    assert [str(line) for line in lines] == ["weights: 40 of 40 layers loaded"]
    origin = result.bundle.made_from.backbone
    assert origin.weights == reference  # not a folder of this machine
    assert origin.loaded == LoadedWeights(40, 40, [], [])
    assert origin.weights_sha256 == weights.content(str(folder))
    trained = bundles.parts(result.bundle)[0].model
    np.testing.assert_array_equal(np.asarray(trained.weights[0]), np.asarray(body.weights[0]))


@pytest.fixture
def bundle(tmp_path):
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "model.keras").write_bytes(b"")
    made_from = workspace.made_from("MobileNetV2", "none", alpha=0.35)
    account.write(folder, account.Account(shards.Layout(("a", "b"), 96, "crop"), made_from))
    return folder


def test_a_bundle_of_another_backbone_is_refused_before_keras_loads(bundle, tmp_path, monkeypatch):
    assert backbones.check("MobileNetV2", str(bundle), 96, 0.35)
    with pytest.raises(WeightsError, match=r"a bundle of MobileNetV2; set backbone.name to MobileNetV2"):
        backbones.check("MobileNet", str(bundle), 96)
    with pytest.raises(WeightsError, match=r"a bundle of alpha 0.35; set backbone.alpha to 0.35"):
        backbones.check("MobileNetV2", str(bundle), 96)
    with pytest.raises(WeightsError, match="is a folder without a bundle"):
        backbones.check("MobileNetV2", str(tmp_path), 96)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match="DVC deletes it first; copy the folder"):
        backbones.check("MobileNetV2", "models/classifier", 96)


def test_another_version_is_another_job(bundle, tmp_path):
    params = make_params(backbone__weights="models:/pets@champion")
    other = tmp_path / "other"
    shutil.copytree(bundle, other)
    (other / "model.keras").write_bytes(b"trained on")
    keys = {job.key(params, [], lambda _, place=place: str(place)) for place in (bundle, bundle, other)}
    assert len(keys) == 2
