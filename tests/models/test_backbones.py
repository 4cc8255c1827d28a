import keras
import numpy as np
import pytest

from frostline.errors import ParamsError, WeightsError
from frostline.models import backbones, freezing, frostnet


@pytest.mark.parametrize("size", [20, 32, 64, 100])
def test_frostnet_takes_other_sizes_with_its_own_weights(size):
    model = backbones.build("frostnet", "builtin", size).model
    assert model.output.shape == (None, -(-size // 16), -(-size // 16), 160)
    bn = model.get_layer("block8_2_bn")
    assert float(np.std(np.asarray(bn.moving_variance))) > 0  # not as initialised


def test_frostnets_file_is_small_and_round_trips(tmp_path):
    assert frostnet.WEIGHTS.stat().st_size <= 3 * 2**20
    model = backbones.build("frostnet", "builtin", 32).model
    frostnet.save_weights(model, tmp_path / "again.npz")
    with np.load(tmp_path / "again.npz") as again, np.load(frostnet.WEIGHTS) as ours:
        assert again.files == ours.files
        assert all(again[name].tobytes() == ours[name].tobytes() for name in ours.files)


def test_until_cuts_the_body_at_an_inner_layer():
    model = backbones.build("VGG16", "none", 32, until="block2_pool").model
    assert model.output.shape == (None, 8, 8, 128)
    with pytest.raises(ParamsError, match="leaves a body without weights"):
        backbones.build("frostnet", "none", 32, until="frostnet_input")
    with pytest.raises(ParamsError, match="did you mean block2_pool"):
        backbones.build("VGG16", "none", 32, until="block2_pol")
    with pytest.raises(ParamsError, match="gives no feature map"):
        backbones.build("EfficientNetB0", "none", 32, until="block1a_se_squeeze")


def test_a_freeze_line_behind_the_cut_is_refused_naming_both_keys():
    model = backbones.build("VGG16", "none", 32, until="block2_pool").model
    with pytest.raises(ParamsError, match=r"freeze 'block4_conv1' lies behind 'block2_pool', where backbone.until"):
        freezing.depth(model, "block4_conv1")
    with pytest.raises(ParamsError, match="is not a layer of vgg16"):
        freezing.depth(model, "block9_conv1")


def test_names_do_not_depend_on_earlier_models():
    models = [backbones.build("Xception", "none", 71).model for _ in range(2)]
    assert [o.name for o in models[0].operations] == [o.name for o in models[1].operations]


def test_alpha_is_the_width():
    assert backbones.build("MobileNet", "none", 32, alpha=0.25).model.output.shape[-1] == 256
    with pytest.raises(ParamsError, match=r"backbone.alpha 0.001 is not a width of MobileNet .*; use a larger one"):
        backbones.build("MobileNet", "none", 32, alpha=0.001)


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("VGG16", "none", "backbone.alpha 0.5 is given, but VGG16 has one width; set it to null"),
        (
            "MobileNetV3Small",
            "imagenet",
            "alpha 0.5 has no ImageNet weights for MobileNetV3Small; use 0.75, 1",
        ),
    ],
)
def test_an_alpha_that_does_not_exist_is_refused(name, weights, message):
    with pytest.raises(ParamsError) as error:
        backbones.check(name, weights, 224, 0.5)
    assert message in str(error.value)
    assert backbones.check("MobileNet", "imagenet", 224, 0.5)


@pytest.mark.parametrize(
    ("name", "weights", "size", "message"),
    [
        ("MobilNetV2", "none", 96, "did you mean MobileNetV2?"),
        ("xyz", "none", 96, "use one of frostnet"),
        ("InceptionV3", "none", 64, "data.image_size 64 is too small for InceptionV3; use at least 75"),
        ("VGG16", "builtin", 64, "backbone.weights 'builtin' does not exist for VGG16"),
        ("VGG16", "no/such.h5", 64, "no/such.h5: backbone.weights names no file"),
    ],
)
def test_bad_settings_are_refused_before_keras_loads(name, weights, size, message):
    with pytest.raises((ParamsError, WeightsError)) as error:
        backbones.check(name, weights, size)
    assert message in str(error.value)


def test_a_weights_file_of_another_architecture_is_refused_in_one_line(assets, tmp_path):
    mobilenet = assets / "weights" / "mobilenet_2_5_224_tf_no_top.h5"
    for name in ("MobileNetV2", "VGG16", "MobileNet"):  # MobileNet: of another width
        with pytest.raises(WeightsError, match=f"does not hold the weights of {name}") as error:
            backbones.build(name, str(mobilenet), 96)
        assert "\n" not in str(error.value)
    with pytest.raises(WeightsError, match="does not hold the weights of frostnet"):
        backbones.build("frostnet", str(mobilenet), 64)
    (tmp_path / "empty.npz").touch()
    with pytest.raises(WeightsError, match=r"empty\.npz: is empty; copy it again"):
        backbones.build("frostnet", str(tmp_path / "empty.npz"), 64)
    garbage = tmp_path / "garbage.h5"
    garbage.write_bytes(b"garbage")
    with pytest.raises(WeightsError, match=r"garbage\.h5"):
        backbones.build("MobileNetV2", str(garbage), 96)


def test_official_no_top_weights_load(assets):
    path = assets / "weights" / "mobilenet_v2_1.0_224_no_top.h5"
    body = backbones.build("MobileNetV2", str(path), 96)
    assert body.pretrained
    reference = keras.applications.MobileNetV2(include_top=False, weights=str(path), input_shape=(96, 96, 3))
    for ours, theirs in zip(body.model.weights, reference.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))


def test_unreachable_imagenet_weights_are_reported_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))

    def offline(*_, **__):
        raise OSError("URL fetch failure: <urlopen error [Errno -2] Name or service not known>")

    monkeypatch.setattr("keras.src.utils.file_utils.urlretrieve", offline)
    with pytest.raises(WeightsError, match=r"MobileNet's ImageNet weights are not available .*\*_notop.h5"):
        backbones.build("MobileNet", "imagenet", 128)
