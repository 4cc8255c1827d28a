"""KerasHub's bodies as graphs of plain Keras layers, each tried with a tiny random body."""

import json
import subprocess
import sys
from functools import partial

import keras
import numpy as np
import pytest
import workspace
from conftest import assert_alike, in_process_tier, make_params

from frostline.core.mapped import Memory
from frostline.errors import ParamsError, WeightsError
from frostline.evaluation import gradcam
from frostline.features import predictor
from frostline.features.store import Store
from frostline.models import (
    assembly,
    backbones,
    bands,
    bundles,
    freezing,
    graph,
    heads,
    hub,
    hub_graph,
    hub_presets,
    hub_transformers,
    vision_transformer,
)
from frostline.models.freeze_rules import Band
from frostline.training import job
from frostline.training.examples import TrainingData
from frostline.training.networks import Recent
from frostline.training.trainer import Trainer

keras_hub = pytest.importorskip("keras_hub", reason="KerasHub is not installed (the extra hub)")

SIDE = 32
SHAPE = (SIDE, SIDE, 3)
models = keras_hub.models

# Tiny random bodies: of transformers 4 blocks, 32 wide.
TRANSFORMERS = {
    "vit": partial(
        models.ViTBackbone, SHAPE, patch_size=8, num_layers=4, num_heads=2, hidden_dim=32, mlp_dim=64, dropout_rate=0.1
    ),
    "deit": partial(
        models.DeiTBackbone, SHAPE, patch_size=8, num_layers=4, num_heads=2, hidden_dim=32, intermediate_dim=64
    ),
    "dinov2": partial(
        models.DINOV2Backbone, 8, 4, 32, 2, 64, 0.5, 2, image_shape=SHAPE, position_embedding_shape=SHAPE
    ),
    "dinov2 gated": partial(
        models.DINOV2Backbone,
        *(8, 4, 32, 2, 64, 0.5),
        use_swiglu_ffn=True,
        drop_path_rate=0.1,
        image_shape=SHAPE,
        position_embedding_shape=SHAPE,
    ),
    "dinov3": partial(models.DINOV3Backbone, 8, 4, 32, 2, 64, 0.5, 4, use_key_bias=False, image_shape=SHAPE),
    "dinov3 gated": partial(
        models.DINOV3Backbone, *(8, 4, 32, 2, 64, 0.5), use_gated_mlp=True, hidden_activation="silu", image_shape=SHAPE
    ),
    "siglip": partial(models.SigLIPVisionEncoder, 8, 32, 4, 2, 64, image_shape=SHAPE),
    "clip": partial(models.CLIPVisionEncoder, 8, 32, 4, 2, 64, image_shape=SHAPE),
}
OTHERS = {
    "cspnet": partial(
        models.CSPNetBackbone, 8, 3, 2, [1, 2], [1, 2], [8, 16], "dark_block", stage_type="dark", image_shape=SHAPE
    ),
    "densenet": partial(models.DenseNetBackbone, [2, 2], growth_rate=8, image_shape=SHAPE),
    "efficientnet": partial(
        models.EfficientNetBackbone,
        stackwise_width_coefficients=[1.0, 1.0],
        stackwise_depth_coefficients=[1.0, 1.0],
        stackwise_kernel_sizes=[3, 3],
        stackwise_num_repeats=[1, 2],
        stackwise_input_filters=[8, 8],
        stackwise_output_filters=[8, 16],
        stackwise_expansion_ratios=[1, 4],
        stackwise_squeeze_and_excite_ratios=[0.25, 0.25],
        stackwise_strides=[1, 2],
        stackwise_block_types=["v1", "v1"],
        stackwise_force_input_filters=[0, 0],
        stackwise_nores_option=[False, False],
        input_shape=SHAPE,
    ),
    "hgnetv2": partial(
        models.HGNetV2Backbone,
        [1, 1],
        16,
        [16, 32],
        [3, 8, 8],
        "relu",
        False,
        [(8, 8, 16, 1, 1, 3), (16, 8, 32, 1, 1, 3)],
        [False, True],
        [False, False],
        image_shape=SHAPE,
    ),
    "mit": partial(
        models.MiTBackbone, [1, 1], 2, [1, 2], [8, 4], 0.1, [7, 3], [4, 2], image_shape=SHAPE, hidden_dims=[16, 32]
    ),
    "mobilenet": partial(
        models.MobileNetBackbone,
        stackwise_expansion=[[16], [16, 24]],
        stackwise_num_blocks=[1, 2],
        stackwise_num_filters=[[8], [16, 16]],
        stackwise_kernel_size=[[3], [3, 3]],
        stackwise_num_strides=[[2], [2, 1]],
        stackwise_se_ratio=[[None], [0.25, 0.25]],
        stackwise_activation=[["relu"], ["hard_swish", "hard_swish"]],
        stackwise_padding=[[1], [1, 1]],
        output_num_filters=32,
        depthwise_filters=8,
        depthwise_stride=2,
        depthwise_residual=False,
        last_layer_filter=32,
        image_shape=SHAPE,
    ),
    "resnet": partial(models.ResNetBackbone, [64], [7], [64, 64], [1, 1], [1, 2], "basic_block", image_shape=SHAPE),
    "resnet_vd": partial(
        models.ResNetBackbone, [8, 8, 8], [3, 3, 3], [64, 64], [1, 1], [1, 2], "bottleneck_block_vd", image_shape=SHAPE
    ),
    "swin": partial(
        models.SwinTransformerBackbone, SHAPE, embed_dim=16, depths=(2, 2), num_heads=(1, 2), window_size=4
    ),
    "vgg": partial(models.VGGBackbone, [1, 1], [8, 16], image_shape=SHAPE),
    "xception": partial(models.XceptionBackbone, [[8, 16], [16, 16]], [True, False], image_shape=SHAPE),
}
FAMILIES = [*TRANSFORMERS, *OTHERS]


def random_body(name):
    """A backbone of KerasHub whose weights are all random, those that begin as 0 and 1 included."""
    keras.utils.set_random_seed(0)
    body = {**TRANSFORMERS, **OTHERS}[name]()
    rng = np.random.default_rng(1)
    for weight in body.weights:
        if keras.backend.is_float_dtype(weight.dtype):
            weight.assign(np.asarray(weight) + rng.uniform(-0.1, 0.1, weight.shape))
    if name.startswith("dinov2"):
        body.embeddings.interpolated_position_embeddings.assign(body.embeddings.position_embeddings)
    return body


def unrolled(name, body):
    if name in OTHERS:
        return hub_graph.opened(body, SIDE, "body")
    design, arrays = hub_transformers.read(body, SIDE)
    model = vision_transformer.build(design, SIDE, "body")
    vision_transformer.set_arrays(model, arrays)
    return model


def original_output(name, body, images):
    """What KerasHub computes. SigLIP's encoder ends in a pooling of its own, which is no part of the body here."""
    output = body.post_layer_norm.output if name == "siglip" else body.outputs[0]
    return np.asarray(keras.Model(body.inputs[0], output)(images, training=False))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_graph_computes_what_kerashub_does_and_can_be_cut_after_each_block(name):
    body = random_body(name)
    images = np.random.default_rng(2).normal(size=(3, *SHAPE)).astype(np.float32)
    expected = original_output(name, body, images)
    model = unrolled(name, body)
    found = np.asarray(model(images, training=False))
    np.testing.assert_allclose(found, expected, rtol=0, atol=3e-6 * np.abs(expected).max())
    assert {type(layer).__module__.partition(".")[0] for layer in model.layers} == {"keras"}
    paths = [weight.path for weight in model.weights]
    assert len(paths) == len(set(paths))  # the audit knows weights by their paths
    cuts = freezing.cut_points(model)
    if name in TRANSFORMERS:
        assert len(cuts) >= 4 + 2
        assert len(bands.blocks(model)) == 1 + 4
    middle = cuts[len(cuts) // 2]
    prefix = graph.inference_twin(model.input, middle.tensor)(images)
    suffix = np.asarray(keras.Model(middle.tensor, model.output)(prefix, training=False))
    np.testing.assert_allclose(suffix, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def save_preset(folder, name):
    random_body(name).save_to_preset(folder)
    keras_hub.layers.ImageConverter(
        image_size=(SIDE, SIDE), scale=[0.01, 0.02, 0.03], offset=[-1.0, -2, -3]
    ).save_to_preset(folder)
    return f"hub/{folder}"


@pytest.fixture(scope="module")
def presets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("presets")
    return lambda name: save_preset(folder / name.replace(" ", "_"), name)


# Which family it is makes no difference to the store: two of each kind are enough in CI.
KINDS = ("vit", "dinov2", "resnet_vd", "mobilenet")


@pytest.mark.process
@pytest.mark.parametrize(
    "name", [name if name in KINDS else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES]
)
def test_stored_features_change_no_bit_of_a_training_and_the_bundle_answers_alike(name, presets, small_sets, tmp_path):
    has_class_token = name in TRANSFORMERS and name != "siglip"
    settings = {
        "backbone__name": presets(name),
        "backbone__weights": "preset",
        "head__pooling": "cls_avg" if has_class_token else "avg",
        "finetune__head_epochs": 1,
        "finetune__epochs": 2,
        "finetune__freeze": len(unrolled(name, random_body(name)).layers) // 2,
    }
    variants = small_sets(0)
    data = TrainingData(variants[:-1], variants[-1])
    trainer = Trainer(Store(tmp_path / "features", 1e9, Memory(1e9)))
    trainer.run(make_params(**settings, cache__mode="never"), data)
    network = next(iter(trainer._networks._values.values()))
    computed = [np.array(weight) for weight in network.whole.weights]
    network.heads = Recent(1)  # the head is trained anew
    result = trainer.run(make_params(**settings, cache__mode="always"), data)
    for one, other in zip(computed, result.bundle.model.weights, strict=True):
        assert_alike(one, np.array(other))
    assert result.audit.frozen_weights_unchanged > 0
    assert 0 < result.audit.frozen_layers < result.audit.layers

    folder = tmp_path / "bundle"
    folder.mkdir()
    bundles.save(folder, result.bundle)
    bundle, images = bundles.load(folder), variants[0]
    expected = result.bundle.probabilities(images)
    np.testing.assert_allclose(bundle.probabilities(images), expected, rtol=0, atol=1e-6)
    store = trainer.store
    held = sum(entry.images for entry in store.usage())
    evaluated = predictor.probabilities(bundle, images, store, "always")
    np.testing.assert_allclose(evaluated, expected, rtol=0, atol=1e-5)
    assert sum(entry.images for entry in store.usage()) == held  # what the training stored is used
    heat = gradcam.GradCam(bundle)(images.take(np.arange(3)), np.array([0, 1, 2]))
    assert heat.shape == (3, SIDE, SIDE)
    assert name in OTHERS or heat.max() == 1  # units of a random ReLU may give no heat


@pytest.mark.process
def test_a_bundle_loads_without_kerashub(presets, small_sets, tmp_path):
    backbone = backbones.build(presets("dinov3"), "preset", SIDE)
    leading = vision_transformer.leading_tokens(backbone.model)
    head = heads.build(backbone.model.output.shape[1:], 3, "cls", [], "relu", False, leading=leading)
    made_from = workspace.made_from("hub/anything", "preset")
    bundle = bundles.Bundle(assembly.whole(backbone, head), small_sets(0)[0].layout, made_from)
    bundles.save(tmp_path, bundle)
    code = (
        "import sys; sys.modules['keras_hub'] = None; import keras, numpy\n"
        f"model = keras.saving.load_model({str(tmp_path / 'model.keras')!r}, safe_mode=True)\n"
        f"print(model.predict(numpy.full((1, {SIDE}, {SIDE}, 3), 7, 'uint8'), verbose=0).tolist())"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    expected = bundle.model.predict(np.full((1, *SHAPE), 7, np.uint8), verbose=0)
    np.testing.assert_allclose(json.loads(found.splitlines()[-1]), expected, rtol=0, atol=1e-6)


def test_the_preprocessing_is_that_of_the_image_converter(presets):
    images = np.random.default_rng(0).integers(0, 256, (2, *SHAPE), dtype=np.uint8)
    name = presets("vit")
    converter = keras_hub.layers.ImageConverter.from_preset(name.removeprefix("hub/"))
    found = backbones.preprocess(name)(keras.ops.convert_to_tensor(images))
    np.testing.assert_allclose(np.asarray(found), np.asarray(converter(images)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", [in_process_tier("swin"), "resnet_vd"])
def test_a_body_that_is_made_for_one_size_is_made_anew_for_another(name, presets):
    folder = presets(name)
    theirs = keras_hub.models.Backbone.from_preset(folder.removeprefix("hub/"), image_shape=(64, 64, 3))
    images = np.random.default_rng(0).normal(size=(2, 64, 64, 3)).astype(np.float32)
    expected = np.asarray(theirs(images))
    found = np.asarray(backbones.build(folder, "preset", 64).model(images))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", [*map(in_process_tier, ["vit", "dinov2", "clip"]), "dinov3"])
def test_images_of_another_size_get_resampled_positions(name, presets):
    body = backbones.build(presets(name), "preset", 48).model
    assert vision_transformer.grid(body) == (6, 6)
    smooth = np.ones((2, 48, 48, 3), np.float32) * np.linspace(-1, 1, 48)[:, None, None]
    small = np.ones((2, *SHAPE), np.float32) * np.linspace(-1, 1, SIDE)[:, None, None]
    at_home = np.asarray(backbones.build(presets(name), "preset", SIDE).model(small))[:, 0]
    found = np.asarray(body(smooth))[:, 0]
    assert np.corrcoef(found[0], at_home[0])[0, 1] > 0.95  # the class token sees the same picture


def test_dinov2_resamples_positions_as_kerashub_does(tmp_path):
    keras.utils.set_random_seed(0)
    larger = models.DINOV2Backbone(8, 4, 32, 2, 64, image_shape=(48, 48, 3), position_embedding_shape=SHAPE)
    images = np.random.default_rng(0).normal(size=(2, 48, 48, 3)).astype(np.float32)
    design, arrays = hub_transformers.read(larger, 48)
    model = vision_transformer.build(design, 48, "body")
    vision_transformer.set_arrays(model, arrays)
    np.testing.assert_allclose(np.asarray(model(images)), np.asarray(larger({"images": images})), rtol=0, atol=1e-5)


def test_noise_below_the_line_is_switched_off():
    keras.utils.set_random_seed(0)
    design = vision_transformer.Design(8, 32, 2, 2, 64, dropout=0.5, drop_path=0.5)
    body = vision_transformer.build(design, SIDE, "body")
    images = np.random.default_rng(0).normal(size=(2, *SHAPE)).astype(np.float32)
    whole = Band.above(len(body.layers), len(body.layers))
    with freezing.without_noise(body, whole):
        quiet = np.asarray(body(images, training=True))
    np.testing.assert_allclose(quiet, np.asarray(body(images)), rtol=0, atol=1e-6)
    assert np.abs(np.asarray(body(images, training=True)) - quiet).max() > 0.1


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        (
            "hub/vit_base_patch16_22",
            224,
            "is no preset of KerasHub, and no folder of one; did you mean vit_base_patch16_224",
        ),
        ("hub/bert_base_en", 224, "is a preset of bert, which is no classifier of images"),
    ],
)
def test_a_preset_that_cannot_be_used_is_one_line(name, size, message):
    with pytest.raises(ParamsError, match=message):
        backbones.check(name, "preset", size)


def test_folders_that_are_no_preset(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ParamsError, match=r"empty is no preset of KerasHub, it has no readable config\.json"):
        backbones.check(f"hub/{tmp_path / 'empty'}", "preset", SIDE)
    models.BertBackbone(100, 2, 2, 32, 64).save_to_preset(tmp_path / "bert")
    with pytest.raises(ParamsError, match="bert holds a BertBackbone, which is no classifier of images"):
        backbones.check(f"hub/{tmp_path / 'bert'}", "preset", SIDE)
    random_body("vit").save_to_preset(tmp_path / "vit")
    with pytest.raises(
        WeightsError, match=r"has no readable image_converter\.json, so the scale of its input is not known"
    ):
        backbones.build(f"hub/{tmp_path / 'vit'}", "preset", SIDE)


class Scaled(keras.layers.Layer):
    def build(self, shape):
        self.scale = self.add_weight(shape=shape[-1:], name="scale")

    def call(self, x):
        return x * self.scale


def test_a_layer_with_weights_of_its_own_is_refused():
    images = keras.Input(SHAPE)
    body = keras.Model(images, Scaled(name="scaled")(images))
    with pytest.raises(ValueError, match="its layer scaled, a Scaled, can't be opened"):
        hub_graph.opened(body, SIDE, "body")


def test_poolings_that_a_body_does_not_have():
    for shape, pooling, leading, message in [
        ((17, 32), "max", 1, "needs a feature map, and the backbone gives tokens; set it to cls or avg or cls_avg"),
        ((16, 32), "flatten", 0, "needs a feature map, and the backbone gives tokens; set it to avg"),
        ((16, 32), "cls", 0, "needs a class token, the backbone has none; set it to avg"),
        ((4, 4, 32), "cls", 0, "needs a transformer, and the backbone gives a feature map"),
    ]:
        with pytest.raises(ParamsError, match=f"params.yaml: head.pooling {pooling} {message}"):
            heads.pool(shape, pooling, leading)


def test_pooled_tokens_leave_out_those_that_are_no_patches():
    tokens = np.random.default_rng(0).normal(size=(2, 7, 3)).astype(np.float32)
    first, patches = tokens[:, 0], tokens[:, 3:].mean(axis=1)
    for pooling, expected in [("cls", first), ("avg", patches), ("cls_avg", np.concatenate([first, patches], axis=1))]:
        np.testing.assert_allclose(np.asarray(heads.pool((7, 3), pooling, 3)(tokens)), expected, rtol=0, atol=1e-6)


def test_another_content_of_a_presets_folder_is_another_training(small_sets, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    params = make_params(backbone__name=f"hub/{tmp_path}", backbone__weights="preset")
    before = job.key(params, small_sets(0))
    assert job.key(params, small_sets(0)) == before
    (tmp_path / "config.json").write_text("[]")
    assert job.key(params, small_sets(0)) != before


def test_without_kerashub_the_message_says_the_pip_line(monkeypatch):
    monkeypatch.setattr(hub_presets, "is_installed", lambda: False)
    with pytest.raises(
        WeightsError, match=r"needs KerasHub, which is not installed; run `pip install 'frostline\[hub\]'`"
    ):
        backbones.check("hub/dinov2_small", "preset", 224)


def test_a_preset_that_is_not_here_and_a_server_that_does_not_answer(monkeypatch, tmp_path):
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub, "ORIGIN", "http://127.0.0.1:9/")
    assert backbones.whereabouts("hub/dinov2_small") == "download"
    with pytest.raises(WeightsError, match="is not in kagglehub's cache and can't be downloaded"):
        backbones.require("hub/dinov2_small", "preset")
    folder = tmp_path / "models" / hub_presets.known()["dinov2_small"].handle.removeprefix("kaggle://")
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert backbones.whereabouts("hub/dinov2_small") == "cached"
