"""Every classifier of keras.applications and every EfficientNet-Lite, from raw pixels to a bundle.

A few small ones are quick; the others are slow. All weights are random, also those that Keras initialises with 0 or 1,
because a network whose norms, input statistics and layer scales have no effect would prove little.
"""

import gc
import subprocess
import sys

import backbone_sizes
import keras
import numpy as np
import pytest
import workspace
from conftest import make_params, make_shards

from frostline.core.mapped import Memory
from frostline.data import shards
from frostline.features.store import Store
from frostline.models import (
    applications,
    assembly,
    backbones,
    bands,
    bundles,
    efficientnet_lite,
    freeze_rules,
    freezing,
    graph,
    heads,
    layer_names,
)
from frostline.training.examples import TrainingData
from frostline.training.trainer import Trainer

QUICK = ("MobileNetV3Small",)
SMALL = ("ConvNeXtTiny", "EfficientNetB0", "EfficientNetLite0", "MobileNet")
SIDE = 64
APPLICATIONS = [name for name, spec in backbones.TABLE.items() if spec.family is applications.FAMILY]
BODIES = [*efficientnet_lite.VARIANTS, *APPLICATIONS]


def with_tiers(names):
    """Bodies as parameters, those that take longer in a tier that runs less often."""
    return [
        pytest.param(name, marks=[] if name in QUICK else pytest.mark.process if name in SMALL else pytest.mark.slow)
        for name in names
    ]


def random_state(model, inputs):
    """Set the weights that are initially 0 or 1. Norms get the statistics of the inputs, as in training."""
    rng = np.random.default_rng(0)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in model.layers:
        if isinstance(layer, keras.layers.Normalization) and layer.weights:
            layer.set_weights([rng.uniform(0.3, 0.6, 3), rng.uniform(0.1, 0.3, 3), np.array(0)])
            layer.finalize_state()
        elif layer in norms or type(layer).__name__ == "LayerScale":
            scales = [rng.uniform(0.5, 1.5, weight.shape) for weight in layer.trainable_weights]
            layer.set_weights([*scales, *layer.get_weights()[len(scales) :]])
    momentum = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0
    model(inputs, training=True)
    for layer, value in zip(norms, momentum, strict=True):
        layer.momentum = value
        # A constant channel would enlarge rounding errors to the size of features, layer after layer.
        spread = np.array(layer.moving_variance)
        layer.moving_variance.assign(np.maximum(spread, spread.mean()))


def module_of(name):
    """The module of an application with its `preprocess_input`."""
    if name.startswith("MobileNetV3"):
        return keras.applications.mobilenet_v3  # which does not have the constructors
    modules = [getattr(keras.applications, module) for module in dir(keras.applications) if module.islower()]
    return next(module for module in modules if hasattr(module, name) and hasattr(module, "preprocess_input"))


def run(model, values):
    """The outputs of a model in inference mode, without compilation."""
    return np.asarray(model(values, training=False))


def assert_close(outputs, expected, tolerance=1e-5):
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=tolerance * np.abs(expected).max())


class Network:
    def __init__(self, name):
        self.name, self.size = name, max(SIDE, backbones.TABLE[name].smallest)
        keras.utils.set_random_seed(0)
        self.backbone = backbones.build(name, "none", self.size)
        self.body = self.backbone.model
        self.head = heads.build(self.body.output.shape[1:], 3, "avg", [], "relu", False)
        rng = np.random.default_rng(1)
        self.images = rng.integers(0, 256, (2, self.size, self.size, 3), dtype=np.uint8)
        self.inputs = np.asarray(self.backbone.preprocess(keras.ops.convert_to_tensor(self.images)))
        random_state(self.body, self.inputs)
        self.features = run(self.body, self.inputs)
        self.cut = freezing.deepest_cut(self.body, len(self.body.layers) // 2)


@pytest.fixture(scope="module", params=with_tiers(BODIES))
def network(request):
    yield Network(request.param)
    keras.backend.clear_session()
    gc.collect()


@pytest.fixture(scope="module")
def bundle_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("bundles")


def test_raw_images_give_the_same_as_keras_with_its_preprocessing(network):
    if network.name not in APPLICATIONS:
        pytest.skip("Keras has no such body; test_efficientnet_lite.py compares it with torch")
    constructor = getattr(keras.applications, network.name)
    shape = (network.size, network.size, 3)
    theirs = constructor(include_top=False, weights=None, input_shape=shape)
    for layer, ours in zip(theirs.layers, network.body.layers, strict=True):
        layer.set_weights(ours.get_weights())
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()
    floats = network.images.astype(np.float32)
    prepared = module_of(network.name).preprocess_input(floats.copy())
    expected = run(theirs, prepared)
    whole = assembly.whole(network.backbone, network.head)
    assert whole.input.dtype == "uint8"
    ours = keras.Model(whole.input, whole.get_layer("pool").input)
    assert_close(run(ours, network.images), expected, 1e-4)  # hundreds of layers enlarge rounding errors
    # The output of a random network depends little on its input. A wrong preprocessing shows behind the first kernel.
    first = next(layer.name for layer in theirs.layers if any("kernel" in weight.name for weight in layer.weights))
    stem = keras.Model(network.body.input, network.body.get_layer(first).output)
    expected = run(keras.Model(theirs.input, theirs.get_layer(first).output), prepared)
    assert_close(run(stem, network.inputs), expected)
    assert np.abs(run(stem, floats / 255) - expected).max() > 0.1 * np.abs(expected).max()


@pytest.mark.parametrize("form", ["none", "all", "5", "-15", "name"])
def test_a_freeze_rule_has_the_meaning_of_a_python_slice(network, form):
    layers = network.body.layers
    rule, frozen = {
        "none": ("none", layers[:0]),
        "all": ("all", layers),
        "5": (5, layers[:5]),
        "-15": (-15, layers[:-15]),
        "name": (network.cut.layer, layers[: network.cut.depth]),
    }[form]
    freezing.freeze(network.body, bands.of_rule(network.body, freeze_rules.parse(rule)), True)
    try:
        assert [layer for layer in layers if not layer.trainable] == list(frozen)
        assert not any(weight.trainable for layer in frozen for weight in layer.weights)
    finally:
        freezing.freeze(network.body, freeze_rules.Band.above(0, len(layers)), True)


def test_prefix_and_suffix_at_a_cut_in_the_middle_make_the_whole(network):
    crossing = run(keras.Model(network.body.input, network.cut.tensor), network.inputs)
    assert_close(run(keras.Model(network.cut.tensor, network.body.output), crossing), network.features)
    until = backbones._cut(network.body, network.cut.layer)
    assert len(until.layers) == network.cut.depth
    np.testing.assert_array_equal(run(until, network.inputs), crossing)


def test_the_faster_models_give_the_same_as_the_network(network):
    twin = graph.inference_twin(network.body.input, network.body.output)
    assert_close(run(twin, network.inputs), network.features, 1e-4)
    freezing.freeze(network.body, freeze_rules.Band.above(0, len(network.body.layers)), False)
    assert_close(run(graph.Fused(network.body), network.inputs), network.features, 1e-4)


def test_training_above_the_line_changes_no_frozen_weight_and_no_statistics(network, tmp_path):
    """The weights come from a file, so this also tests that every application reads its file."""
    path = tmp_path / "body.weights.h5"
    network.body.save_weights(path)
    params = make_params(
        backbone__name=network.name,
        backbone__weights=str(path),
        finetune__freeze=network.cut.layer,
        finetune__batch_norm="freeze",
        finetune__head_epochs=0,
        finetune__epochs=1,
        finetune__batch_size=4,
        finetune__optimizer="sgd",
        finetune__learning_rate=1e-3,
        finetune__ema_momentum=0.0,
        finetune__precision="float32",
        cache__mode="never",
    )
    sets = [make_shards(tmp_path / name, 4, network.size, 2) for name in ("train", "val")]
    trainer = Trainer(Store(tmp_path / "features", 1e9, Memory(1e9)))
    result = trainer.run(params, TrainingData(sets[:1], sets[1]))
    loaded = result.bundle.made_from.backbone.loaded
    assert (loaded.layers, loaded.missing) == (loaded.of, [])
    trained, _ = bundles.parts(result.bundle)
    is_changed = [
        not np.array_equal(np.asarray(old), np.asarray(new))
        for old, new in zip(network.body.weights, trained.model.weights, strict=True)
    ]
    below = sum(len(layer.weights) for layer in network.body.layers[: network.cut.depth])
    assert not any(is_changed[:below])
    fixed = (keras.layers.BatchNormalization, keras.layers.Normalization)
    is_fixed = [isinstance(layer, fixed) for layer in network.body.layers for _ in layer.weights]
    assert not any(is_still and changed for is_still, changed in zip(is_fixed, is_changed, strict=True))
    assert any(is_changed[below:])


def test_a_bundle_round_trips(network, bundle_folder):
    folder = bundle_folder / network.name
    folder.mkdir()
    layout = shards.Layout(("a", "b", "c"), network.size, "crop")
    made_from = workspace.made_from(network.name, "none")
    bundle = bundles.Bundle(assembly.whole(network.backbone, network.head), layout, made_from)
    bundles.save(folder, bundle)
    np.save(folder / "images.npy", network.images)
    np.save(folder / "expected.npy", run(bundle.model, network.images))
    body = bundles.parts(bundles.load(folder))[0].model
    assert_close(run(body, network.inputs), network.features)
    assert [layer.name for layer in body.layers] == [layer.name for layer in network.body.layers]


@pytest.mark.process
def test_plain_keras_loads_the_bundles(bundle_folder):
    """In a process that does not import frostline."""
    code = """if True:
        import sys, pathlib, keras, numpy
        for folder in sorted(pathlib.Path(sys.argv[1]).iterdir()):
            model = keras.saving.load_model(folder / "model.keras", safe_mode=True)
            outputs = model(numpy.load(folder / "images.npy"), training=False)
            numpy.testing.assert_allclose(outputs, numpy.load(folder / "expected.npy"), atol=1e-5)
        assert "frostline" not in sys.modules
    """
    process = subprocess.run(
        [sys.executable, "-c", code, str(bundle_folder)], capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr


@pytest.mark.parametrize("name", with_tiers(BODIES))
def test_the_sizes_in_the_table_are_those_of_the_networks(name):
    assert (backbones.sizes()[name], layer_names.table()[name]) == backbone_sizes.counted(name)
    keras.backend.clear_session()


@pytest.mark.parametrize("name", with_tiers(APPLICATIONS))
def test_no_smaller_size_builds(name):
    constructor = getattr(keras.applications, name)
    too_small = backbones.TABLE[name].smallest - 1
    with pytest.raises(ValueError, match="at least"):
        constructor(include_top=False, weights=None, input_shape=(too_small, too_small, 3))
    keras.backend.clear_session()


@pytest.mark.parametrize("name", with_tiers(BODIES))
def test_the_smallest_size_builds(name):
    assert backbones.build(name, "none", backbones.TABLE[name].smallest).model.output.shape[1] >= 1
    keras.backend.clear_session()


def test_the_table_has_every_classifier_of_keras():
    theirs = {name for name in dir(keras.applications) if name[0].isupper()}
    assert theirs == set(APPLICATIONS)
    assert list(backbones.sizes()) == list(backbones.TABLE)
