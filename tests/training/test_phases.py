"""Plateau and early stopping follow the rules of Keras's callbacks."""

import keras
import numpy as np
import pytest
from conftest import make_row

from frostline.training.phases import Plateau, Stopping, final_row


@pytest.mark.parametrize("monitor", ["val_loss", "val_accuracy"])
@pytest.mark.parametrize(
    "arguments",
    [
        {"factor": 0.5, "patience": 2, "min_delta": 1e-4, "cooldown": 0, "min_lr": 0.0},
        {"factor": 0.1, "patience": 1, "min_delta": 0.05, "cooldown": 2, "min_lr": 0.002},
        {"factor": 0.9, "patience": 3, "min_delta": 0.0, "cooldown": 1, "min_lr": 0.0},
    ],
    ids=str,
)
def test_a_plateau_lowers_the_rate_as_keras_does(monitor, arguments):
    ours = Plateau(monitor, **arguments)
    values = np.random.default_rng(3).normal(0.5, 0.1, 40) + np.linspace(0.2, 0, 40)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1))
    mode = "max" if monitor == "val_accuracy" else "min"
    theirs = keras.callbacks.ReduceLROnPlateau(monitor=monitor, mode=mode, **arguments)
    theirs.set_model(model)
    theirs.on_train_begin()
    for epoch, value in enumerate(values):
        theirs.on_epoch_end(epoch, {monitor: value})
        (rate,) = ours.apply(np.array([0.1]), values[: epoch + 1])
        assert rate == pytest.approx(float(model.optimizer.learning_rate), rel=1e-4)
    assert rate < 0.1


def test_the_final_row_is_the_last_or_the_best_one():
    history = [make_row(val_loss=v, val_accuracy=a) for v, a in [(3.0, 0.1), (1.0, 0.5), (0.9, 0.5)]]
    assert final_row(history, None) is history[2]
    assert final_row(history, Stopping("val_loss", 1)) is history[2]
    assert final_row(history, Stopping("val_loss", 1, min_delta=0.2)) is history[1]
    assert final_row(history, Stopping("val_accuracy", 1)) is history[1]
