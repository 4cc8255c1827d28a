"""Files of torchvision and timm in bodies of Keras, against what torch computed with the same weights."""

import json

import keras
import numpy as np
import pytest
import torch_layouts
from conftest import make_params

from frostline.core.mapped import Memory
from frostline.errors import WeightsError
from frostline.features.store import Store
from frostline.models import backbones, bundles, preprocessing, safetensors_file, torch_names, torch_weights, weights
from frostline.training.examples import TrainingData
from frostline.training.trainer import Trainer

# `python benchmarks/torch_layouts.py --record` printed them (torch 2.13.0, torchvision 0.28.0, timm 1.0.31, float64).
RECORDED = {
    "VGG16": [
        [4.3678, -0.32997, 0.0595, -0.07805],
        [-2.68132, 0.02939, -0.15332, -0.0193],
        [-2.62423, 0.11692, -0.21821, -0.05702],
        [2.83849, -0.07973, 0.1999, 0.04146],
    ],
    "DenseNet121": [
        [3.92731, 0.0685, 0.0928, -0.00926],
        [-0.99821, 0.1048, -0.04834, -0.00191],
        [-1.03104, 0.12589, -0.06149, 0.052],
        [1.0201, -0.11581, 0.05511, -0.02471],
    ],
    "ConvNeXtTiny": [
        [0.00636, -0.05172, 0.09271, 0.1079],
        [0.04654, -0.05341, 0.12387, -0.03803],
        [-0.06943, 0.04131, 0.15885, 0.01056],
        [0.02586, 0.00536, -0.24504, 0.02104],
    ],
    "EfficientNetB0": [
        [0.4881, 0.28105, -0.15452, 0.00471],
        [0.60811, -0.08406, 0.00738, -0.09555],
        [0.14278, 0.06185, 0.06233, -0.09225],
        [-0.42508, 0.00973, -0.04158, 0.10875],
    ],
    "EfficientNetV2B0": [
        [0.7144, 0.18426, 0.10052, 0.06709],
        [-0.13205, 0.02488, -0.06093, 0.05534],
        [-0.08601, -0.14646, 0.08671, -0.21149],
        [0.29841, 0.15141, -0.02365, 0.1909],
    ],
    "EfficientNetLite0": [
        [3.90582, 0.16795, -0.05888, 0.07511],
        [0.19188, -0.10735, -0.22203, -0.04952],
        [-0.21625, -0.00928, 0.19972, -0.13254],
        [-0.04948, 0.07498, 0.0756, 0.08116],
    ],
}
NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
SIDE = torch_layouts.RECORD_SIDE


@pytest.fixture
def precise(name):
    """Many layers with random weights leave so little of an image that float32 rounds much of it away."""
    before = keras.config.dtype_policy()
    precision = "float32" if name.startswith("ConvNeXt") else "float64"
    keras.config.set_floatx(precision)
    keras.config.set_dtype_policy(precision)
    yield
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy(before)


def shapes(name, number=0, alpha=None):
    """The tensors of torch that a body of Keras needs, by name: their shapes."""
    layout = torch_names.LAYOUTS[name][number]
    layers = list(weights.layers_of(backbones.build(name, "none", SIDE, alpha=alpha).model))
    found = {}
    for layer, module in zip(layers, layout.rename([layer.name for layer in layers]), strict=True):
        for weight in layer.weights if module else []:
            part, shape = weight.path.rpartition("/")[2], tuple(weight.shape)
            if len(shape) == 4:
                rows, columns, inputs, outputs = shape
                depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
                shape = (inputs, outputs, rows, columns) if depthwise else (outputs, inputs, rows, columns)
            elif len(shape) == 2:
                shape = shape[::-1]
            is_scale = "layer_scale" in layer.name
            key = module if is_scale else f"{module}.{NORM.get(part, 'bias' if part == 'bias' else 'weight')}"
            found[key] = (*shape, 1, 1) if is_scale and number else shape
    return found


def write(path, tensors):
    header, data = {}, []
    for name, array in tensors.items():
        begin = sum(map(len, data))
        data.append(array.astype("<f4").tobytes())
        header[name] = {"dtype": "F32", "shape": array.shape, "data_offsets": [begin, begin + len(data[-1])]}
    text = json.dumps(header).encode()
    path.write_bytes(b"".join([len(text).to_bytes(8, "little"), text, *data]))


def folder(tmp_path, name, architecture=None, mean=0.5, std=0.5, number=0, **more):
    """A folder with pseudo-random weights, and timm's config if it has an architecture."""
    tensors = {key: torch_layouts.numbers(key, shape) for key, shape in shapes(name, number, **more).items()}
    head = "head.fc.bias" if name.startswith("ConvNeXt") else "classifier.bias"
    write(tmp_path / "model.safetensors", {**tensors, head: np.zeros(3)})
    if architecture:
        config = {"architecture": architecture, "pretrained_cfg": {"mean": [mean] * 3, "std": [std] * 3}}
        if mean == "imagenet":
            config["pretrained_cfg"] = dict(zip(("mean", "std"), torch_names.MEANS["imagenet"], strict=True))
        (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


CASES = {
    "VGG16": ("vgg16", "imagenet"),
    "EfficientNetB0": ("tf_efficientnet_b0", "imagenet"),
    "EfficientNetLite0": ("tf_efficientnet_lite0", 0.5),
    "DenseNet121": (None, None),
    "ConvNeXtTiny": ("convnext_tiny", "imagenet"),
    "EfficientNetV2B0": ("tf_efficientnetv2_b0", "imagenet"),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.process] * (place > 2)) for place, name in enumerate(CASES)]
)
def test_the_features_are_those_of_torch(name, tmp_path, precise):
    architecture, mean = CASES[name]
    backbone = backbones.build(name, str(folder(tmp_path, name, architecture, mean)), SIDE)
    features = backbone.model(backbone.preprocess(torch_layouts.images(SIDE)), training=False)
    np.testing.assert_allclose(torch_layouts.summary(features), RECORDED[name], rtol=0, atol=2e-5)
    assert backbone.loaded.layers == backbone.loaded.of
    assert not backbone.loaded.missing


def test_both_layouts_of_convnext_are_told_apart_by_their_names(tmp_path):
    layouts = torch_names.LAYOUTS["ConvNeXtTiny"]
    for number, layout in enumerate(layouts):
        path = tmp_path / f"{number}.safetensors"
        write(path, {layout.mark: np.zeros(3)})
        assert torch_weights.find("ConvNeXtTiny", path).layout is layout
    names = ["convnext_tiny_stage_2_block_8_layer_scale", "convnext_tiny_downsampling_conv_0", "layer_normalization"]
    assert layouts[0].rename(names) == ["stages.2.blocks.8.gamma", "stages.1.downsample.1", "head.norm"]
    assert layouts[1].rename(names) == ["features.5.8.layer_scale", "features.2.1", "classifier.0"]


def test_the_variance_makes_up_for_another_epsilon():
    norm = keras.layers.BatchNormalization(epsilon=1.001e-5)
    norm.build((None, 2))
    parts = ("weight", "bias", "running_mean", "running_var")
    tensors = {f"n.{part}": np.array([1e-9, 0.5], np.float32) for part in parts}
    layout = torch_names.LAYOUTS["DenseNet121"][0]
    *_, variance = torch_weights._of_layer(norm, "n", tensors, layout)
    np.testing.assert_allclose(np.sqrt(variance + norm.epsilon), np.sqrt(np.array([1e-9, 0.5]) + 1e-5), rtol=1e-7)


def test_every_preprocessing_gives_what_the_network_was_trained_on():
    pixels = np.arange(256, dtype=np.uint8)[:, None, None, None].repeat(3, 3)
    mean, deviation = map(np.array, torch_names.MEANS["imagenet"])
    torch, half = (pixels / 255 - mean) / deviation, pixels / 127.5 - 1.0
    ways = {name: np.asarray(way(pixels)) for name, way in preprocessing.WAYS.items()}
    np.testing.assert_allclose(ways["torch"], torch, atol=1e-6)
    np.testing.assert_allclose(ways["tf"], half, atol=1e-6)
    np.testing.assert_allclose(ways["tf for 128"] / 128 - 1, half, atol=1e-6)
    np.testing.assert_allclose((ways["tf for torch"] / 255 - mean) / deviation, half, atol=2e-6)


@pytest.fixture
def small(tmp_path):
    return folder(tmp_path, "MobileNetV3Small", "tf_mobilenetv3_small_075", alpha=0.75)


def refused(path, message, name="MobileNetV3Small", alpha=0.75):
    with pytest.raises(WeightsError, match=message) as error:
        backbones.build(name, str(path), SIDE, alpha=alpha)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_a_file_that_could_be_of_a_network_with_other_paddings_needs_its_config(small):
    refused(small / "model.safetensors", r"timm's tf_mobilenetv3_small_100 or .*put the model's config.json beside it")
    config = small / "config.json"
    text = config.read_text()
    config.write_text(text.replace("tf_mobile", "mobile"))
    refused(small, "its config.json says mobilenetv3_small_075, and MobileNetV3Small computes what tf_mobile")
    config.write_text(text.replace("0.5", "0.4"))
    refused(small, "its config.json says that it takes pixels of mean .* which this body does not")
    for content in ("[" * 100_000, "3", "{}", '{"architecture": "a", "pretrained_cfg": 3}'):
        config.write_text(content)
        refused(small, "its config.json is not timm's")


def test_all_layers_of_a_file_are_needed_and_no_others(small):
    tensors = safetensors_file.read(small / "model.safetensors")
    cases = {
        r"it holds 1 more, the first is blocks\.9\.0\.conv\.weight": {"blocks.9.0.conv.weight": np.zeros(3)},
        r"blocks\.0\.0\.bn1 has not the shape of expanded_conv_depthwise_bn": {"blocks.0.0.bn1.bias": np.zeros(3)},
        r"conv_stem has not the shape of conv": {"conv_stem.weight": np.zeros((16, 3, 5, 5))},
    }
    for message, change in cases.items():
        write(small / "model.safetensors", {**tensors, **change})
        refused(small, message)
    del tensors["blocks.0.0.bn1.bias"]
    write(small / "model.safetensors", tensors)
    refused(small, r"it holds no blocks\.0\.0\.bn1\.bias")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("MobileNetV2", "torch's MobileNetV2 pads both sides of its strided convolutions"),
        ("ResNet50", "torch's ResNet50 has its strides in other convolutions"),
        ("InceptionV3", "torch's InceptionV3 pools the borders"),
        ("NASNetMobile", "no network of torch was found to compute what Keras's NASNetMobile does"),
        ("VGG16", r"it holds no features\.0\.weight, so it is of another network"),
    ],
)
def test_a_body_that_computes_something_else_is_refused_with_the_reason(name, message, tmp_path):
    write(tmp_path / "a.safetensors", {"conv1.weight": np.zeros((2, 3, 3, 3))})
    with pytest.raises(WeightsError, match=message) as error:
        backbones.check(name, str(tmp_path / "a.safetensors"), 96)
    assert "\n" not in str(error.value)


@pytest.mark.process
def test_the_preprocessing_of_the_weights_stays_with_the_bundle_and_with_what_starts_from_it(tmp_path, small_sets):
    """VGG16's own preprocessing is `caffe`; weights of torch need `torch`."""
    for each in ("torch", "first", "store"):
        (tmp_path / each).mkdir()
    start = folder(tmp_path / "torch", "VGG16") / "model.safetensors"
    params = make_params(
        backbone__name="VGG16",
        backbone__weights=str(start),
        finetune__freeze="all",
        finetune__head_epochs=1,
        finetune__epochs=0,
        finetune__precision="float32",
    )
    *variants, validation = small_sets()
    result = Trainer(Store(tmp_path / "store", 1e9, Memory(1e9))).run(params, TrainingData(variants, validation))
    bundles.save(tmp_path / "first", result.bundle)
    bundle = bundles.load(tmp_path / "first")
    assert bundle.made_from.backbone.loaded.preprocessing == "torch"
    images = torch_layouts.images(validation.layout.image_size)
    second = backbones.build("VGG16", str(tmp_path / "first"), validation.layout.image_size)
    assert "preprocessing: torch" in str(second.loaded)
    for backbone in (bundles.parts(bundle)[0], second):
        np.testing.assert_allclose(
            np.asarray(backbone.preprocess(images)), np.asarray(preprocessing.WAYS["torch"](images)), atol=1e-6
        )
