"""Heat maps equal the formula in NumPy, for every head."""

import keras
import numpy as np
import pytest
import workspace

from frostline.data import shards
from frostline.evaluation import gradcam
from frostline.models import assembly, backbones, bundles, heads


def make(binary, pooling, name="frostnet", weights="builtin", size=32):
    keras.utils.set_random_seed(1)
    classes = 2 if binary else 3
    backbone = backbones.build(name, weights, size)
    head = heads.build(backbone.model.output.shape[1:], classes, pooling, [4], "tanh", binary)
    made_from = workspace.made_from(name, weights)
    layout = shards.Layout(tuple("abc"[:classes]), size, "crop")
    return bundles.Bundle(assembly.whole(backbone, head), layout, made_from).calibrated(2.0)


@pytest.mark.parametrize("pooling", ["avg", "max", "flatten"])
@pytest.mark.parametrize("binary", [False, True])
def test_heat_is_the_feature_maps_weighted_by_mean_gradients(binary, pooling):
    bundle = make(binary, pooling)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    classes = np.array([0, 1, 1, 0, 0])
    heat = gradcam.GradCam(bundle)(images, classes)
    assert heat.shape == (5, 32, 32)
    assert heat.dtype == np.float32

    backbone, head = bundles.parts(bundle)
    maps = np.array(backbone.model(backbone.preprocess(images.astype(np.float32))))

    def logit(maps, at):
        logits = np.array(head.top(head.pool(maps)))
        return (2 * classes[at] - 1) * logits[:, 0] if binary else logits[:, classes[at]]

    for at in range(2):  # gradients by finite differences, for each place and channel
        step = 1e-2 * np.eye(maps[at].size, dtype=np.float32).reshape(-1, *maps[at].shape)
        gradient = (logit(maps[at] + step, at) - logit(maps[at] - step, at)) / 2e-2
        weights = gradient.reshape(maps[at].shape).mean(axis=(0, 1))
        coarse = np.maximum(maps[at] @ weights, 0)
        expected = np.array(keras.ops.image.resize(coarse[..., None], (32, 32)))[..., 0]
        np.testing.assert_allclose(heat[at], expected / max(expected.max(), 1e-9), atol=0.02)


def test_one_image_or_many_compile_once_and_give_the_same():
    bundle = make(False, "avg")
    cam = gradcam.GradCam(bundle)
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    together = cam(images, np.array([0, 1, 2]))
    for at in range(3):
        np.testing.assert_allclose(cam(images[at : at + 1], np.array([at]))[0], together[at], atol=1e-5)
    assert cam._compiled.experimental_get_tracing_count() == 1
    assert 0 <= together.min() <= together.max() <= 1


def test_a_keras_application_can_be_explained():
    bundle = make(False, "avg", "MobileNet", "none", 64)
    heat = gradcam.GradCam(bundle)(np.zeros((1, 64, 64, 3), np.uint8), np.array([2]))
    assert heat.shape == (1, 64, 64)
    assert np.isfinite(heat).all()


def test_an_overlay_leaves_cold_places_grey_and_reddens_hot_ones():
    image = np.full((1, 2, 2, 3), 100, np.uint8)
    image[0, 1, 1] = 0, 0, 255
    heat = np.array([[[0, 1], [0.5, 0]]], np.float32)
    overlay = gradcam.overlay(image, heat)
    assert overlay.dtype == np.uint8
    assert overlay[0, 0, 0].tolist() == [100, 100, 100]
    assert overlay[0, 1, 1].tolist() == [29, 29, 29]
    red, green, blue = overlay[0, 0, 1]
    assert red > 150 > 60 > max(green, blue)


def shallow_bundle(kind, pooling="avg"):
    """A bundle of a scikit-learn classifier on the features of frostnet."""
    from frostline.models import sklearn_fit, sklearn_layers

    backbone = backbones.build("frostnet", "builtin", 32)
    pool = heads.MAP_POOLS[pooling](name="pool")
    width = int(np.prod(pool.compute_output_shape(backbone.model.output.shape)[1:]))
    x = np.random.default_rng(0).normal(0.5, 0.5, (60, width)).astype(np.float32)
    classifier = sklearn_fit.fit(kind, {}, x, np.arange(60) % 3, balanced=False, seed=0)
    head = heads.Head(pool, sklearn_layers.convert(classifier, width, 3), 3)
    layout = shards.Layout(tuple("abc"), 32, "crop")
    return bundles.Bundle(assembly.whole(backbone, head), layout, workspace.made_from())


@pytest.mark.parametrize(
    ("kind", "pooling", "method"),
    [
        ("logistic_regression", "avg", "Grad-CAM"),
        ("linear_svm", "flatten", "Grad-CAM"),
        ("random_forest", "avg", "each place alone"),
        ("knn", "max", "each place alone"),
        ("knn", "flatten", None),
    ],
)
def test_every_head_says_how_it_is_explained(kind, pooling, method):
    cam = gradcam.GradCam(shallow_bundle(kind, pooling))
    assert cam.method == method
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    heat = cam(images, np.array([0, 1, 2]))
    assert heat.shape == (3, 32, 32)
    assert heat.dtype == np.float32
    assert 0 <= heat.min() <= heat.max() <= 1
    if method is None:
        assert heat.max() == 0
