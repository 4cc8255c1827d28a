"""Several devices give the weights of one device; where they can't be used, one line says why."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT

from frostline.errors import ParamsError
from frostline.models import devices


def test_one_device_is_what_tensorflow_gets():
    assert devices.chosen("auto", 16).number == devices.chosen(1, 16).number == 1
    with pytest.raises(ParamsError, match=r"^params.yaml: finetune.devices is 2, .*KERAS_BACKEND=jax.* to 1$"):
        devices.chosen(2, 16)


@pytest.mark.slow
def test_tensorflows_own_way_would_change_the_result():
    command = [sys.executable, str(ROOT / "tests" / "tensorflow_devices.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    # One device draws one mask for all rows, and the variance of 0, 8, 16 and 24 is 80.
    assert json.loads(done.stdout.splitlines()[-1]) == {"masks_are_equal": True, "variance": pytest.approx(16)}


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed: pip install -e .[jax]")
def test_the_same_weights_on_one_two_and_four_devices_of_jax(tmp_path):
    logical = {"KERAS_BACKEND": "jax", "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    command = [sys.executable, str(ROOT / "tests" / "jax_devices.py"), str(tmp_path)]
    paths = os.pathsep.join(filter(None, [str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        command, env={**os.environ, **logical, "PYTHONPATH": paths}, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert all(difference < 1 for difference in found["differences"].values()), found  # over 1e-5 + 1e-4 |w|
    assert found["epochs"] == [2, 2, 2, 2]
    assert found["resumed_from"] == ["finetune", 1]
    assert found["keys"] == 1  # the number of devices is no part of a training's identity
    assert found["auto"] == 1  # on CPUs
    too_many, unequal = found["refused"]
    assert too_many == "params.yaml: finetune.devices is 8, but JAX finds 4 here; set it to 4 or less, or to auto"
    assert unequal.startswith(
        "params.yaml: finetune.devices is 3, which can't share a batch of 16 equally; set finetune"
    )
