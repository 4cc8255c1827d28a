import keras
import numpy as np
import pytest

from frostline.errors import InternalError, ParamsError
from frostline.models import assembly, backbones, freezing, frostnet, heads
from frostline.models.freeze_rules import Band


@pytest.fixture(scope="module")
def body():
    return frostnet.build(32)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("none", 0),
        ("all", 66),
        (5, 5),
        (-15, 51),
        (0, 0),
        (1000, 66),
        (-1000, 0),
        ("frostnet_input", 1),
        ("stem_bn", 3),
    ],
)
def test_a_number_has_the_meaning_of_a_python_slice(body, rule, expected):
    assert len(body.layers) == 66
    assert freezing.depth(body, rule) == expected


def test_a_share_means_the_nearest_cut_point(body):
    below = freezing.compute_below(body)
    places = [0, *(cut.depth for cut in freezing.cut_points(body))]
    assert (freezing.depth(body, "0%"), freezing.depth(body, "100%")) == (0, 66)
    for percent in (10, 33.3, 60):
        gaps = {depth: abs(below[depth] - percent / 100) for depth in places}
        assert gaps[freezing.depth(body, f"{percent}%")] == min(gaps.values())
    assert freezing.depth(body, ["60 %", "discriminative"]) == freezing.depth(body, "60%")
    with pytest.raises(ParamsError, match="'101%' is more than all"):
        freezing.depth(body, "101%")


def test_an_unknown_layer_is_refused_with_the_nearest_name(body):
    with pytest.raises(ParamsError, match=r"finetune.freeze 'block4_ot' is not a layer.*did you mean block4_out\?"):
        freezing.depth(body, "block4_ot")


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("MobileNetV2", 73),
        pytest.param("ResNet50", 38, marks=pytest.mark.process),
        pytest.param("VGG16", 18, marks=pytest.mark.process),
        pytest.param("InceptionV3", 28, marks=pytest.mark.slow),
        ("frostnet", 19),
    ],
)
def test_prefix_and_suffix_of_any_cut_make_the_whole(name, count):
    backbone = backbones.build(name, "none", 75)
    cuts = freezing.cut_points(backbone.model)
    assert len(cuts) == count
    assert cuts[-1].tensor is backbone.model.output
    head = heads.build(backbone.model.output.shape[1:], 3, "avg", [], "relu", False)
    whole = assembly.suffix(backbone, head, None)
    images = np.random.default_rng(0).integers(0, 256, (2, 75, 75, 3), dtype=np.uint8)
    expected = whole.predict_on_batch(images)
    for cut in (cuts[0], cuts[len(cuts) // 2], cuts[-1]):
        crossing = assembly.segment(backbone, head, None, cut).predict_on_batch(images)
        np.testing.assert_allclose(
            assembly.suffix(backbone, head, cut).predict_on_batch(crossing), expected, rtol=1e-4, atol=1e-5
        )


def test_all_layers_before_a_cut_are_in_its_slice():
    body = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(32, 32, 3))
    for cut in freezing.cut_points(body)[::10]:
        inside = {layer.name for layer in keras.Model(body.input, cut.tensor).layers}
        assert inside == {layer.name for layer in body.layers[: cut.depth]}


def test_the_deepest_cut_has_only_frozen_layers_before_it(body):
    assert freezing.deepest_cut(body, 0) is None
    inside_a_block = freezing.depth(body, "block3_1_conv")
    assert freezing.deepest_cut(body, inside_a_block).layer == "block2_out"
    assert freezing.deepest_cut(body, len(body.layers)).layer == "block8_out"


@pytest.mark.parametrize("train_batch_norm", [False, True])
def test_freezing_switches_layers_and_batch_norm(body, train_batch_norm):
    depth = freezing.depth(body, "block2_out")
    freezing.freeze(body, Band.above(depth, len(body.layers)), train_batch_norm)
    assert not any(layer.trainable for layer in body.layers[:depth])
    above = body.layers[depth:]
    norms = [layer for layer in above if isinstance(layer, keras.layers.BatchNormalization)]
    assert norms
    assert all(layer.trainable is train_batch_norm for layer in norms)
    assert all(layer.trainable for layer in above if layer not in norms)


def test_the_audit_catches_one_changed_bit(body):
    band = Band.above(40, len(body.layers))
    freezing.freeze(body, band, False)
    before = freezing.fingerprint(body)
    assert freezing.audit(body, body, band, before).frozen_weights_unchanged == len(before)
    kernel = body.get_layer("stem_conv").kernel
    value = np.array(kernel)
    kernel.assign(np.nextafter(value, np.float32(9)))
    try:
        with pytest.raises(InternalError, match="stem_conv/kernel"):
            freezing.audit(body, body, band, before)
    finally:
        kernel.assign(value)


def test_dropout_below_the_line_is_off_in_training_and_restored_after():
    inputs = keras.Input((4,))
    x = keras.layers.Dropout(0.5, name="below")(inputs)
    model = keras.Model(inputs, keras.layers.Dropout(0.5, name="above")(keras.layers.Dense(4)(x)))
    with freezing.without_noise(model, Band.above(2, 4)):
        ones = np.ones((64, 4), np.float32)
        assert (np.asarray(model.get_layer("below")(ones, training=True)) == 1).all()
        assert model.get_layer("above").rate == 0.5
    assert model.get_layer("below").rate == 0.5


def test_stochastic_depth_below_the_line_is_off_too():
    from keras.src.applications.convnext import StochasticDepth

    inputs = keras.Input((4,))
    model = keras.Model(inputs, StochasticDepth(0.9, name="below")(inputs))
    with freezing.without_noise(model, Band.above(2, 2)):
        assert model.get_layer("below").drop_path_rate == 0
    assert model.get_layer("below").drop_path_rate == 0.9


def test_the_line_may_be_at_an_operation():
    body = backbones.build("ConvNeXtTiny", "none", 32).model
    for cut in freezing.cut_points(body)[::5]:
        assert freezing.depth(body, cut.layer) == cut.depth
        assert freezing.deepest_cut(body, cut.depth).tensor is cut.tensor
