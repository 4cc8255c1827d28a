"""The features of all depths: what they are, and a training on them from start to end."""

import keras
import numpy as np
from conftest import assert_alike, make_params

from frostline.core.mapped import Memory
from frostline.evaluation import gradcam
from frostline.features import predictor
from frostline.features.store import Store
from frostline.models import all_depths, backbones, bundles, vision_transformer
from frostline.training.examples import TrainingData
from frostline.training.networks import Recent
from frostline.training.trainer import Trainer


def normalised(vectors):
    centred = vectors - vectors.mean(axis=-1, keepdims=True)
    return centred / np.sqrt(vectors.var(axis=-1, keepdims=True) + 1e-3)


def test_the_output_is_the_normalised_average_of_each_depth():
    body = backbones.build("frostnet", "builtin", 32).model
    model = all_depths.extended(body)
    cuts = all_depths.depths(body)
    images = np.random.default_rng(0).uniform(-1, 1, (3, 32, 32, 3)).astype(np.float32)
    maps = keras.Model(body.input, [cut.tensor for cut in cuts])(images)
    assert len(cuts) > 10
    assert cuts[-1].tensor is body.output
    expected = [normalised(np.asarray(each).mean(axis=(1, 2))) for each in maps]
    np.testing.assert_allclose(np.asarray(model(images)), np.concatenate(expected, axis=1), rtol=0, atol=1e-4)
    assert model.count_params() == body.count_params()


def test_tokens_that_are_no_patches_are_in_no_average():
    body = vision_transformer.build(vision_transformer.Design(8, 16, 2, 2, 32, leading=3), 32, "body")
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    last = np.asarray(body(images))[:, 3:].mean(axis=1)
    np.testing.assert_allclose(np.asarray(all_depths.extended(body)(images))[:, -16:], normalised(last), atol=1e-4)


def test_a_head_on_all_depths_is_trained_stored_saved_and_evaluated_like_any_other(small_sets, tmp_path):
    *variants, validation = small_sets(0)
    data = TrainingData(variants, validation)
    settings = {"head__features": "all_depths", "finetune__freeze": "all", "finetune__epochs": 0}
    trainer = Trainer(Store(tmp_path / "features", 1e9, Memory(1e9)))
    trainer.run(make_params(**settings, finetune__head_epochs=2, cache__mode="never"), data)
    network = next(iter(trainer._networks._values.values()))
    computed = [np.array(weight) for weight in network.whole.weights]
    network.heads = Recent(1)
    result = trainer.run(make_params(**settings, finetune__head_epochs=2, cache__mode="always"), data)
    for one, other in zip(computed, result.bundle.model.weights, strict=True):
        assert_alike(one, np.array(other))
    (tmp_path / "bundle").mkdir()
    bundles.save(tmp_path / "bundle", result.bundle)
    bundle = bundles.load(tmp_path / "bundle")
    expected = result.bundle.probabilities(validation)
    np.testing.assert_allclose(bundle.probabilities(validation), expected, rtol=0, atol=1e-6)
    found = predictor.probabilities(bundle, validation, trainer.store, "always")
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert {entry.images for entry in trainer.store.usage()} == {len(variants[0]) + len(validation)}
    explainer = gradcam.GradCam(bundle)
    assert explainer.method is None
    assert explainer(validation.take(np.arange(2)), np.array([0, 1])).max() == 0
