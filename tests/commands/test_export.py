"""What is exported gives what the bundle gives."""

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
@pytest.mark.parametrize("form", ["saved_model", "litert"])
def test_the_exported_network_gives_the_same(bundle, tmp_path, form):
    import tensorflow as tf

    said = export.run(None, str(bundle), form, tmp_path / "out")
    images = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    expected = keras.saving.load_model(bundle / "model.keras").predict(images, verbose=0)
    if form == "saved_model":
        loaded = tf.saved_model.load(str(tmp_path / "out" / "saved_model"))
        found = loaded.serve(images)
    else:
        network = tf.lite.Interpreter(str(tmp_path / "out" / "classifier.tflite"))
        network.allocate_tensors()
        network.set_tensor(network.get_input_details()[0]["index"], images)
        network.invoke()
        found = network.get_tensor(network.get_output_details()[0]["index"])
    np.testing.assert_allclose(np.asarray(found), expected, atol=1e-5)
    assert json.loads((tmp_path / "out" / "labels.json").read_text())["classes"] == ["cat", "dog"]
    assert "takes uint8 (n, 32, 32, 3)" in said
    labels = tmp_path / "out" / "labels.json"
    written = labels.stat().st_mtime_ns
    assert "has this classifier already" in export.run(None, str(bundle), form, tmp_path / "out")  # as after a kill
    assert labels.stat().st_mtime_ns == written
    labels.write_text("{}")
    with pytest.raises(DataError, match="exists and holds something else"):
        export.run(None, str(bundle), form, tmp_path / "out")


def test_an_unknown_format_is_one_line(bundle, tmp_path):
    with pytest.raises(UserError, match="use one of saved_model, onnx, litert"):
        export.run(None, str(bundle), "caffe", tmp_path / "out")
    assert not (tmp_path / "out").exists()
