"""An exported classifier answers as the bundle does."""

import json

import keras
import numpy as np
import pytest
import workspace
from conftest import make_bundle

from frostline.commands import export
from frostline.data import images, shards
from frostline.errors import DataError, UserError
from frostline.exports.formats import FORMATS
from frostline.models import assembly, bundles, heads, preprocessing, vision_transformer
from frostline.models.backbones import Backbone
from frostline.serving import scoring


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("exported") / "bundle", ("cat", "dog"))


@pytest.mark.process
@pytest.mark.parametrize("form", [name for name in FORMATS if name != "saved_model"])  # see test_making.py
def test_an_export_answers_as_predict_does(bundle, tmp_path, form):
    text = export.run(None, str(bundle), tmp_path / "out", form)
    run = FORMATS[form].load(tmp_path / "out" / FORMATS[form].file)
    scorer = scoring.Scorer(bundle)
    for height, width in ((32, 32), (100, 77), (20, 300)):
        image = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
        found, (expected,) = run(image), scorer.probabilities([images.resize(image, 32, "stretch")])
        assert found["label"] == expected.argmax()
        np.testing.assert_allclose(found["probabilities"], expected, rtol=0, atol=1e-5)
    assert json.loads((tmp_path / "out" / "labels.json").read_text())["classes"] == ["cat", "dog"]
    assert "of any size" in text
    labels = tmp_path / "out" / "labels.json"
    time = labels.stat().st_mtime_ns
    assert "already has this classifier" in export.run(None, str(bundle), tmp_path / "out", form)
    assert labels.stat().st_mtime_ns == time
    labels.write_text("{}")
    with pytest.raises(DataError, match="exists and has other content"):
        export.run(None, str(bundle), tmp_path / "out", form)


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
    export.run(None, str(tmp_path / "bundle"), tmp_path / "out", "onnx")
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    found = FORMATS["onnx"].load(tmp_path / "out" / "classifier.onnx")(image)["probabilities"]
    np.testing.assert_allclose(found, made.model.predict(image[None], verbose=0)[0], rtol=0, atol=1e-5)


def test_an_unknown_format_is_an_error(bundle, tmp_path):
    with pytest.raises(UserError, match="use one of saved_model, onnx, litert, openvino"):
        export.run(None, str(bundle), tmp_path / "out", "caffe")
    assert not (tmp_path / "out").exists()


def test_a_comparison_without_test_images_is_an_error(bundle, tmp_path):
    with pytest.raises(UserError, match="--check: there is no data/prepared/test here; run `dvc repro`"):
        export.run(None, str(bundle), tmp_path / "out", "onnx", export.Wishes(check=True))
    assert not (tmp_path / "out").exists()
