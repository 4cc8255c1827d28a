"""The learning-rate range test: on curves whose answer is known, and on a network."""

import numpy as np
import pytest
from conftest import in_process_tier, make_params

from frostline.core.mapped import Memory
from frostline.features.store import Store
from frostline.search import lr_range
from frostline.training.examples import TrainingData
from frostline.training.trainer import Trainer

RATES = lr_range.rates(1e-7, 1.0, 141)


def curve(falls_at, breaks_at):
    """A loss of 2 that falls to 0.5 around one rate and explodes from another on."""
    at = np.log10(RATES)
    return 0.5 + 1.5 / (1 + np.exp(4 * (at - np.log10(falls_at)))) + np.maximum(0, at - np.log10(breaks_at)) ** 2 * 20


@pytest.mark.parametrize(("falls_at", "breaks_at"), [(1e-4, 1e-2), (1e-5, 1e-3), (1e-3, 1e-1)])
def test_the_range_lies_where_the_loss_falls(falls_at, breaks_at):
    noise = np.random.default_rng(0).normal(0, 0.02, len(RATES))
    found = lr_range.find(RATES, curve(falls_at, breaks_at) + noise)
    assert falls_at / 10 < found.low < falls_at * 2
    assert falls_at < found.high < breaks_at
    assert falls_at / 3 < found.steepest < falls_at * 6


def test_a_loss_that_never_falls_has_no_range():
    assert lr_range.find(RATES, np.linspace(2, 3, len(RATES))) is None


@pytest.mark.parametrize("level", [0.005, 0.02, 0.05])
def test_the_noise_of_a_head_that_fits_already_does_not_end_the_test(level):
    losses = np.random.default_rng(0).lognormal(np.log(level), 1.0, 150).tolist()
    assert not any(lr_range.is_over(losses[:end]) for end in range(1, 151))
    assert lr_range.is_over([*losses, *np.linspace(1, 6, 12)])


@pytest.mark.parametrize("seed", range(20))
def test_the_fastest_rate_lies_in_the_range(seed):
    rng = np.random.default_rng(seed)
    losses = curve(10 ** rng.uniform(-5, -2), 10 ** rng.uniform(-1.9, 0)) + rng.normal(0, 0.15, len(RATES))
    found = lr_range.find(RATES, losses)
    assert found.low <= found.steepest <= found.high


def test_smoothing_does_not_lag():
    line = np.linspace(0, 1, 100)
    np.testing.assert_allclose(lr_range.smoothed(line)[15:-15], line[15:-15], atol=1e-9)


@pytest.mark.parametrize(
    "changes",
    [in_process_tier({}), {"finetune__freeze": "all", "finetune__epochs": 0}],
    ids=str,
)
def test_a_network_is_tried_behind_its_line_until_it_breaks(tmp_path, small_sets, changes):
    train, validation = small_sets()
    params = make_params(
        **{"finetune__freeze": "block4_out", "finetune__head_epochs": 1, "finetune__batch_size": 16, **changes}
    )
    rates = lr_range.rates(1e-6, 1e4, 60)
    trainer = Trainer(Store(tmp_path / "features", 1e9, Memory(1e9)))
    losses = trainer.range_test(params, TrainingData([train], validation), rates, lr_range.is_over)
    assert 20 < len(losses) <= 60
    assert losses == trainer.range_test(params, TrainingData([train], validation), rates, lr_range.is_over)
    assert np.ptp(losses) > 0.5  # rates of 1e4 leave nothing as it was
