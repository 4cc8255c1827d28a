"""Keys of tensors, and the inference twin and fused model compared with the original."""

import keras
import numpy as np
import pytest
import workspace

from frostline.models import assembly, backbones, bundles, freezing, graph, heads
from frostline.models import preprocessing as preprocessings
from frostline.models.freeze_rules import Band


def randomize(model, seed=0):
    """Set random BatchNorm statistics, like those of a trained network, so that folding has an effect."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, weight.shape) for weight in layer.weights])


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("MobileNetV2", 52),
        pytest.param("EfficientNetB0", 49, marks=pytest.mark.process),
        pytest.param("InceptionV3", 94, marks=pytest.mark.slow),
        pytest.param("Xception", 40, marks=pytest.mark.slow),
        pytest.param("DenseNet121", 59, marks=pytest.mark.slow),
    ],
)
def test_the_twin_gives_the_same_as_inference_mode(name, count):
    keras.utils.set_random_seed(0)
    body = getattr(keras.applications, name)(include_top=False, weights=None, input_shape=(75, 75, 3))
    randomize(body)
    norms = sum(isinstance(layer, keras.layers.BatchNormalization) for layer in body.layers)
    twin = graph.inference_twin(body.input, body.output)
    remaining = sum(isinstance(layer, keras.layers.BatchNormalization) for layer in twin.layers)
    assert norms - remaining == count
    images = np.random.default_rng(0).normal(size=(2, 75, 75, 3)).astype(np.float32)
    expected = body.predict_on_batch(images)
    outputs = twin.predict_on_batch(images)
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_the_twin_folds_dense_and_biased_layers_and_keeps_the_other_norms():
    keras.utils.set_random_seed(0)
    x = start = keras.Input((12, 12, 3))
    x = keras.layers.Conv2D(4, 3, use_bias=True, bias_initializer="ones")(x)
    x = keras.layers.BatchNormalization(scale=False)(x)  # folded
    x = keras.layers.Conv2D(4, 3, activation="relu")(x)
    x = keras.layers.BatchNormalization(center=False)(x)  # behind an activation
    shared = keras.layers.Conv2D(4, 1)(x)
    x = keras.layers.Add()([keras.layers.BatchNormalization()(shared), shared])  # its output is used twice
    x = keras.layers.Dropout(0.5)(x)
    x = keras.layers.DepthwiseConv2D(3, depth_multiplier=2)(x)
    x = keras.layers.BatchNormalization()(x)  # folded
    x = keras.layers.BatchNormalization()(keras.layers.Dense(5)(x))  # folded
    model = keras.Model(start, x)
    randomize(model)
    twin = graph.inference_twin(model.input, model.output)
    assert sum(isinstance(layer, keras.layers.BatchNormalization) for layer in twin.layers) == 2
    images = np.random.default_rng(0).normal(size=(3, 12, 12, 3)).astype(np.float32)
    np.testing.assert_allclose(twin.predict_on_batch(images), model.predict_on_batch(images), rtol=1e-4, atol=1e-5)


def small_network():
    """A network with every kind of layer that a norm can be folded into, and one norm that trains."""
    keras.utils.set_random_seed(0)
    x = start = keras.Input((12, 12, 3))
    for layer in (
        keras.layers.Conv2D(6, 3, strides=2, padding="same"),
        keras.layers.DepthwiseConv2D(3, use_bias=False, depth_multiplier=2),
        keras.layers.SeparableConv2D(5, 3, padding="same", dilation_rate=2),
        keras.layers.Conv2D(6, 1, groups=1, use_bias=False),
        keras.layers.Dense(4),
    ):
        x = keras.layers.ReLU(6.0)(keras.layers.BatchNormalization(scale=len(x.name) % 2 == 0)(layer(x)))
    x = keras.layers.Dropout(0.2, seed=1)(keras.layers.BatchNormalization(name="trained")(x))
    model = keras.Model(start, keras.layers.GlobalAveragePooling2D()(x))
    randomize(model)
    for layer in model.layers:
        layer.trainable = layer.name == "trained" or not isinstance(layer, keras.layers.BatchNormalization)
    return model


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_a_fused_model_trains_to_the_same_weights(precision):
    weights = []
    keras.config.set_dtype_policy(precision)
    try:
        for wrap in (lambda model: model, graph.Fused):
            model = small_network()
            start = keras.Input((12, 12, 3))
            whole = keras.Model(start, wrap(model)(start))
            whole.compile(keras.optimizers.SGD(0.05), "mse")
            rng = np.random.default_rng(0)
            x, y = rng.normal(size=(16, 12, 12, 3)), rng.normal(size=(16, 4))
            before = model.get_weights()
            whole.fit(x, y, batch_size=8, epochs=3, shuffle=False, verbose=0)
            weights.append(model.get_weights())
        assert len(graph.Fused(model).norms) == 5
    finally:
        keras.config.set_dtype_policy("float32")
    tolerance = 5e-6 if precision == "float32" else 5e-2
    assert max(np.abs(old - new).max() for old, new in zip(before, weights[0], strict=True)) > 1e-2
    for plain, fused in zip(*weights, strict=True):
        np.testing.assert_allclose(fused, plain, rtol=0, atol=tolerance)


def keys(name="MobileNet", size=32, pooling="avg", preprocessing="tf", place=5, change=None):
    """The key at a cut of a backbone with random weights, which earlier models of this process don't change."""
    keras.utils.set_random_seed(0)
    body = getattr(keras.applications, name)(include_top=False, weights=None, input_shape=(size, size, 3))
    if change:
        change(body)
    backbone = backbones.Backbone(name, body, preprocessings.WAYS[preprocessing], False)
    head = heads.build(body.output.shape[1:], 3, pooling, [], "relu", False)
    cuts = freezing.cut_points(body)
    return assembly.keys(backbone, head, [cuts[place]])[0]


def test_a_key_depends_on_graph_weights_and_preprocessing_but_not_on_names_or_trainable():
    def other_weight(body):
        kernel = body.layers[1].kernel
        kernel.assign(kernel + 1e-6)

    different_keys = [
        keys(),
        keys(size=64),
        keys(place=6),
        keys(preprocessing="caffe"),
        keys(place=-1),
        keys(place=-1, pooling="max"),
        keys(change=other_weight),
    ]
    assert len(set(different_keys)) == len(different_keys)
    assert keys() == different_keys[0]
    assert keys(change=lambda body: freezing.freeze(body, Band.above(20, len(body.layers)), False)) == different_keys[0]


def test_a_weight_behind_the_cut_does_not_change_the_key():
    def deeper(body):
        kernel = body.layers[-3].kernel
        kernel.assign(kernel + 1)

    assert keys(change=deeper) == keys()
    assert keys(change=deeper, place=-1) != keys(place=-1)


def test_the_key_is_the_same_in_a_saved_and_loaded_bundle(tmp_path, small_sets):
    keras.utils.set_random_seed(0)
    backbone = backbones.build("frostnet", "builtin", 32)
    head = heads.build(backbone.model.output.shape[1:], 3, "avg", [4], "relu", False)
    bundle = bundles.Bundle(assembly.whole(backbone, head), small_sets()[0].layout, workspace.made_from())
    bundles.save(tmp_path, bundle)
    again, its_head = bundles.parts(bundles.load(tmp_path))
    ours = assembly.keys(backbone, head, freezing.cut_points(backbone.model))
    theirs = assembly.keys(again, its_head, freezing.cut_points(again.model))
    assert ours == theirs
