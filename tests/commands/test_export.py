"""An exported network gives the same probabilities as the bundle."""

import json

import keras
import numpy as np
import pytest
from conftest import make_bundle

from frostline.commands import export
from frostline.errors import DataError, UserError


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("exported") / "bundle", ("cat", "dog"))


@pytest.mark.process
@pytest.mark.parametrize("form", ["saved_model", "litert", "onnx"])
def test_the_exported_network_gives_the_same_probabilities(bundle, tmp_path, form):
    import tensorflow as tf

    text = export.run(None, str(bundle), form, tmp_path / "out")
    images = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    expected = keras.saving.load_model(bundle / "model.keras").predict(images, verbose=0)
    if form == "saved_model":
        saved_model = tf.saved_model.load(str(tmp_path / "out" / "saved_model"))
        probabilities = saved_model.serve(images)
    elif form == "onnx":
        session = pytest.importorskip("onnxruntime").InferenceSession(str(tmp_path / "out" / "classifier.onnx"))
        (network_input,) = session.get_inputs()
        probabilities = session.run(None, {network_input.name: images})[0]
    else:
        network = tf.lite.Interpreter(str(tmp_path / "out" / "classifier.tflite"))
        network.allocate_tensors()
        network.set_tensor(network.get_input_details()[0]["index"], images)
        network.invoke()
        probabilities = network.get_tensor(network.get_output_details()[0]["index"])
    np.testing.assert_allclose(np.asarray(probabilities), expected, atol=1e-5)
    assert json.loads((tmp_path / "out" / "labels.json").read_text())["classes"] == ["cat", "dog"]
    assert "takes uint8 (n, 32, 32, 3)" in text
    labels = tmp_path / "out" / "labels.json"
    time = labels.stat().st_mtime_ns
    assert "already has this classifier" in export.run(None, str(bundle), form, tmp_path / "out")
    assert labels.stat().st_mtime_ns == time
    labels.write_text("{}")
    with pytest.raises(DataError, match="exists and has other content"):
        export.run(None, str(bundle), form, tmp_path / "out")


def test_an_unknown_format_is_an_error(bundle, tmp_path):
    with pytest.raises(UserError, match="use one of saved_model, onnx, litert"):
        export.run(None, str(bundle), "caffe", tmp_path / "out")
    assert not (tmp_path / "out").exists()
