"""Chunks of batches in one call give the same results as Keras's `fit` and `evaluate`."""

import keras
import numpy as np
import pytest
from conftest import in_process_tier

from frostline.training import stepping

FEATURES, TARGETS = 6, 3


def model(with_norm=True):
    keras.utils.set_random_seed(3)
    x = start = keras.Input((FEATURES,))
    x = keras.layers.Dense(8, activation="relu")(x)
    x = keras.layers.BatchNormalization()(x) if with_norm else x
    x = keras.layers.Dropout(0.3)(x)
    network = keras.Model(start, keras.layers.Dense(TARGETS)(x))
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.AdamW(0.01), loss, metrics=[keras.metrics.CategoricalAccuracy("accuracy")])
    network.optimizer.build(network.trainable_variables)
    return network


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(70, FEATURES)).astype(np.float32)
    y = np.eye(TARGETS, dtype=np.float32)[rng.integers(0, TARGETS, 70)]
    return x, y, rng.uniform(0.5, 2, 70).astype(np.float32)


def chunks(parts, batch, per_chunk):
    whole = len(parts[0]) // batch * batch
    for start in range(0, whole, batch * per_chunk):
        end = min(whole, start + batch * per_chunk)
        yield tuple(part[start:end].reshape(-1, batch, *part.shape[1:]) for part in parts)
    if whole < len(parts[0]):
        yield tuple(part[None, whole:] for part in parts)


def with_numbers(chunks_without):
    """Chunks for training, with the learning rate and the weight decay of the optimizer of `model`."""
    for chunk in chunks_without:
        yield np.tile(np.float32([0.01, 0.004, 0]), (len(chunk[0]), 1)), *chunk


@pytest.mark.parametrize(("per_chunk", "weighted"), [(3, True), *map(in_process_tier, (1, 1, 3), (False, True, False))])
def test_the_same_as_fit_and_evaluate(data, per_chunk, weighted):
    arrays = data if weighted else data[:2]
    ours, theirs = model(), model()
    steps = stepping.steps(ours, per_chunk > 1)
    for _ in range(3):
        scores = steps.train(with_numbers(chunks(arrays, 16, per_chunk)))
        sample_weight = arrays[2] if weighted else None
        history = theirs.fit(*arrays[:2], sample_weight=sample_weight, batch_size=16, shuffle=False, verbose=0).history
        assert scores["loss"] == pytest.approx(history["loss"][0], rel=1e-5)
        assert scores["accuracy"] == pytest.approx(history["accuracy"][0], abs=1e-6)
    for one, other in zip(ours.weights, theirs.weights, strict=True):
        np.testing.assert_allclose(np.array(one), np.array(other), rtol=0, atol=1e-6)
    scores = steps.test(chunks(arrays, 16, per_chunk))
    expected = theirs.evaluate(*arrays[:2], sample_weight=sample_weight, batch_size=16, return_dict=True, verbose=0)
    assert scores["loss"] == pytest.approx(expected["loss"], rel=1e-5)
    assert scores["accuracy"] == pytest.approx(expected["accuracy"], abs=1e-6)


def test_an_error_while_reading_is_raised(data):
    def broken():
        yield from with_numbers(chunks(data[:2], 16, 1))
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        stepping.steps(model(), False).train(broken())
