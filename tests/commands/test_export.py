"""An exported network gives the same probabilities as the bundle."""

import json

import keras
import numpy as np
import pytest
import workspace
from conftest import make_bundle

from frostline.commands import export, export_onnx
from frostline.data import shards
from frostline.errors import DataError, UserError
from frostline.models import assembly, bundles, heads, preprocessing, vision_transformer
from frostline.models.backbones import Backbone


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


@pytest.mark.process
def test_a_transformer_is_exported_to_onnx_with_its_exact_gelu(tmp_path):
    """TensorFlow computes it by Erfc, which tf2onnx would leave in the file as an operation that ONNX does not have."""
    keras.utils.set_random_seed(0)
    body = vision_transformer.build(vision_transformer.Design(8, 16, 1, 2, 32, rope_theta=100.0), 32, "body")
    head = heads.build(body.output.shape[1:], 2, "cls", [], "relu", False, leading=1)
    backbone = Backbone("hub/tiny", body, preprocessing.WAYS["tf"], True)
    layout = shards.Layout(("cat", "dog"), 32, "stretch")
    (tmp_path / "bundle").mkdir()
    made = bundles.Bundle(assembly.whole(backbone, head), layout, workspace.made_from("hub/tiny", "preset"))
    bundles.save(tmp_path / "bundle", made)
    export.run(None, str(tmp_path / "bundle"), "onnx", tmp_path / "out")
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    session = pytest.importorskip("onnxruntime").InferenceSession(str(tmp_path / "out" / "classifier.onnx"))
    found = session.run(None, {session.get_inputs()[0].name: images})[0]
    np.testing.assert_allclose(found, made.model.predict(images, verbose=0), rtol=0, atol=1e-5)


def test_a_file_that_onnx_cannot_run_is_refused(tmp_path):
    onnx = pytest.importorskip("onnx")
    value = onnx.helper.make_tensor_value_info
    node = onnx.helper.make_node("Unheard", ["x"], ["y"])
    graph = onnx.helper.make_graph([node], "g", [value("x", 1, [1])], [value("y", 1, [1])])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "model.onnx")
    with pytest.raises(UserError, match=r"onnx can't express this network .*Unheard"):
        export_onnx.check(tmp_path / "model.onnx")


def test_an_unknown_format_is_an_error(bundle, tmp_path):
    with pytest.raises(UserError, match="use one of saved_model, onnx, litert"):
        export.run(None, str(bundle), "caffe", tmp_path / "out")
    assert not (tmp_path / "out").exists()
