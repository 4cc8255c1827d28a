"""The benchmarks that take hours are not run here, but their settings are read."""

import pytest
import sweep


@pytest.mark.parametrize("job", sweep.JOBS)
@pytest.mark.parametrize("contestant", sweep.OURS)
def test_the_sweeps_are_described_by_keys_that_params_yaml_has(job, contestant):
    run = sweep.Run(job, contestant, seed=1, trials=4, epochs=2, per_class=None)
    assert sweep.settings(run, sweep.OURS[contestant].changes).sweep.trials == 4
