"""Every schedule gives the same rates as Keras's class with its name."""

import keras
import numpy as np
import pytest
from conftest import make_params

from frostline.params.schedules import schedule_of
from frostline.training import schedules

PER_EPOCH, EPOCHS, TOP = 10, 8, 0.01
STEPS = np.arange(PER_EPOCH * EPOCHS + 1)
DECAYS = keras.optimizers.schedules


@pytest.mark.parametrize(
    ("setting", "theirs"),
    [
        ("cosine", DECAYS.CosineDecay(TOP, 80)),
        ({"CosineDecay": {"alpha": 0.1, "decay_epochs": 5}}, DECAYS.CosineDecay(TOP, 50, alpha=0.1)),
        (
            {"CosineDecay": {"warmup_epochs": 2, "initial_learning_rate": 0.001}},
            DECAYS.CosineDecay(0.001, 60, warmup_target=TOP, warmup_steps=20),
        ),
        (
            {"CosineDecayRestarts": {"first_decay_epochs": 2, "m_mul": 0.5}},
            DECAYS.CosineDecayRestarts(TOP, 20, m_mul=0.5),
        ),
        (
            {"CosineDecayRestarts": {"first_decay_steps": 30, "t_mul": 1}},
            DECAYS.CosineDecayRestarts(TOP, 30, t_mul=1.0),
        ),
        ({"ExponentialDecay": {"decay_rate": 0.9, "decay_steps": 7}}, DECAYS.ExponentialDecay(TOP, 7, 0.9)),
        (
            {"ExponentialDecay": {"decay_rate": 0.5, "decay_epochs": 1, "staircase": True}},
            DECAYS.ExponentialDecay(TOP, 10, 0.5, staircase=True),
        ),
        ({"InverseTimeDecay": {"decay_rate": 0.5, "decay_epochs": 2}}, DECAYS.InverseTimeDecay(TOP, 20, 0.5)),
        ({"PolynomialDecay": {"power": 2.0}}, DECAYS.PolynomialDecay(TOP, 80, power=2.0)),
        ({"PolynomialDecay": {"decay_steps": 30, "cycle": True}}, DECAYS.PolynomialDecay(TOP, 30, cycle=True)),
        (
            {"PiecewiseConstantDecay": {"boundary_epochs": [2, 5], "values": [0.1, 0.01, 0.001]}},
            DECAYS.PiecewiseConstantDecay([20, 50], [0.1, 0.01, 0.001]),
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, str | dict) else "",  # the text of an object contains its address
)
def test_rates_are_those_of_keras(setting, theirs):
    schedule = schedule_of(make_params(finetune__schedule=setting).finetune.schedule)
    ours = schedules.rates(schedule, STEPS, PER_EPOCH, EPOCHS, TOP)
    np.testing.assert_allclose(ours, [float(theirs(step)) for step in STEPS], rtol=2e-5, atol=1e-9)


def test_a_table_of_rates_holds_from_each_of_its_epochs_on():
    table = schedules.table({3: 0.1, 1: 0.5}, top=1.0)
    rates = schedules.rates(table, STEPS, PER_EPOCH, EPOCHS, 1.0)
    np.testing.assert_array_equal(rates[::PER_EPOCH][:6], [1.0, 0.5, 0.5, 0.1, 0.1, 0.1])
    assert rates[9] == 1.0
    assert rates[29] == 0.5


def test_a_table_may_begin_with_the_first_epoch():
    table = schedules.table({0: 0.5, 1: 0.1}, top=1.0)
    assert schedules.rates(table, STEPS, PER_EPOCH, EPOCHS, 1.0)[::PER_EPOCH].tolist() == [0.5, *[0.1] * EPOCHS]
