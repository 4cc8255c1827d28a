"""Keras models that others exported: Teachable Machine's, and the folders of SavedModels."""

import zipfile

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from frostline.errors import WeightsError
from frostline.models import backbones, file_kinds, weights
from frostline.models.made_from import LoadedWeights

SIDE = 32
LAYERS = 104  # of MobileNetV2 that have weights


@pytest.fixture(scope="module")
def body():
    """A body with other numbers in its BatchNorm than a new one has."""
    keras.utils.set_random_seed(1)
    model = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(SIDE, SIDE, 3), alpha=0.35)
    for weight in model.weights:
        weight.assign(np.asarray(weight) + np.float32(0.01) * np.arange(weight.shape[-1], dtype=np.float32))
    return model


def build(path):
    keras.utils.set_random_seed(2)
    return backbones.build("MobileNetV2", str(path), SIDE, alpha=0.35)


def assert_same(backbone, body):
    assert backbone.loaded == LoadedWeights(LAYERS, LAYERS, [], [])
    for ours, expected in zip(backbone.model.weights, body.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(expected), err_msg=ours.path)


@pytest.fixture(scope="module")
def export(body, tmp_path_factory):
    """The folder of Teachable Machine's export for Keras. Keras 2 wrote its file, and its layers are nested twice.

    In `keras_model.h5` the group of the inner model has the body's weights by their names, those of the head are in the
    other group: sequential_4[sequential_1[model1, pooling], sequential_3[dense_Dense1, dense_Dense2 without bias]].
    """
    folder = tmp_path_factory.mktemp("converted_keras")
    head = {"dense_Dense1/kernel:0": (1280, 100), "dense_Dense1/bias:0": (100,), "dense_Dense2/kernel:0": (100, 2)}
    groups = {
        "sequential_1": {f"{weight.path}:0": np.asarray(weight) for weight in body.weights},
        "sequential_3": {name: np.zeros(shape, np.float32) for name, shape in head.items()},
    }
    with h5py.File(folder / "keras_model.h5", "w") as file:
        root = file.create_group("model_weights")
        root.attrs["layer_names"] = [name.encode() for name in groups]
        for name, arrays in groups.items():
            group = root.create_group(name)
            group.attrs["weight_names"] = [key.encode() for key in arrays]
            for key, array in arrays.items():
                group[key] = array
    (folder / "labels.txt").write_text("0 cats\n1 dogs\n")
    return folder


def test_an_export_of_teachable_machine_gives_the_body_all_its_weights(export, body, tmp_path):
    packed = tmp_path / "converted_keras.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in export.iterdir():
            archive.write(path, path.name)
        archive.writestr("__MACOSX/._keras_model.h5", b"a note")
    for path in (export, packed):
        assert_same(build(path), body)
    assert file_kinds.find(export) == file_kinds.find(export / "keras_model.h5")
    assert weights.content(str(export)) != weights.content(str(packed))


def test_an_archive_with_a_file_that_is_not_safe_is_refused(tmp_path):
    with h5py.File(tmp_path / "keras_model.h5", "w") as file:
        file["model_weights"] = h5py.ExternalLink("/etc/hostname", "/")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(tmp_path / "keras_model.h5", "keras_model.h5")
    with pytest.raises(WeightsError, match="model_weights is a link to another file"):
        build(tmp_path / "a.zip")


def test_what_keras_3_exports_gives_the_body_all_its_weights(tmp_path):
    inner = backbones.build("frostnet", "builtin", SIDE).model
    images = keras.Input((SIDE, SIDE, 3))
    x = keras.layers.GlobalAveragePooling2D()(inner(images))
    keras.Model(images, keras.layers.Dense(2)(keras.layers.Dropout(0.1)(x))).export(tmp_path / "m", verbose=False)
    before = weights.content(str(tmp_path / "m"))
    backbone = backbones.build("frostnet", str(tmp_path / "m"), SIDE)
    assert backbone.loaded == LoadedWeights(40, 40, [], [])
    for ours, expected in zip(backbone.model.weights, inner.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(expected), err_msg=ours.path)

    data = tmp_path / "m/variables/variables.data-00000-of-00001"
    whole = data.read_bytes()
    data.write_bytes(whole[: len(whole) // 2])
    assert weights.content(str(tmp_path / "m")) != before
    with pytest.raises(WeightsError, match=r"it says that it holds .* MB in files of") as error:
        backbones.build("frostnet", str(tmp_path / "m"), SIDE)
    assert "\n" not in str(error.value)
    (tmp_path / "m/variables/variables.index").write_bytes(b"garbage")
    with pytest.raises(WeightsError, match="its variables are damaged"):
        backbones.build("frostnet", str(tmp_path / "m"), SIDE)


def saved(folder, variables):
    """A SavedModel in which each variable has a name, as Keras 2 gives them: attributes of nested objects."""
    module = tf.Module()
    module.layers = [tf.Module() for _ in variables]
    for inner, (layer, arrays) in zip(module.layers, variables.items(), strict=True):
        for name, array in arrays.items():
            setattr(inner, name, tf.Variable(array, name=f"{layer}/{name}"))
    tf.saved_model.save(module, str(folder))


def test_what_keras_2_saves_is_read_by_the_names_of_its_table(body, tmp_path):
    variables = {}
    for weight in body.weights:
        layer, name = weight.path.split("/")
        variables.setdefault(layer, {})[name] = np.asarray(weight)
    shuffled = {layer: dict(reversed(arrays.items())) for layer, arrays in reversed(variables.items())}
    saved(tmp_path / "m", shuffled)
    assert_same(build(tmp_path / "m"), body)


def test_a_saved_model_of_something_else_is_refused(tmp_path):
    saved(tmp_path / "hub", {"MobilenetV2/Conv": {"weights": np.zeros((3, 3, 3, 16), np.float32)}})
    with pytest.raises(WeightsError, match=r"does not hold the weights of MobileNetV2 \(none of 104 layers fits\)"):
        build(tmp_path / "hub")
    saved(tmp_path / "twice", {"Conv1": {"a": np.zeros(3)}, "x/Conv1": {"a": np.zeros(3)}})
    with pytest.raises(WeightsError, match="holds Conv1/a twice"):
        build(tmp_path / "twice")
