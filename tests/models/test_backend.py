"""The engine rounds a row in the same way at any place in a batch, which the fast paths need."""

import subprocess
import sys

import keras
import numpy as np
import pytest

from frostline.errors import UserError
from frostline.models import backend

LAYERS = {
    "dense": ((96,), lambda: keras.layers.Dense(160)),
    "dense of few units": ((64,), lambda: keras.layers.Dense(3)),
    "dense over tokens": ((50, 64), lambda: keras.layers.Dense(48)),
    "convolution": ((10, 10, 16), lambda: keras.layers.Conv2D(32, 3, padding="same")),
    "strides": ((21, 21, 3), lambda: keras.layers.Conv2D(32, 3, strides=2)),
    "pointwise": ((7, 7, 96), lambda: keras.layers.Conv2D(160, 1)),
    "depthwise": ((10, 10, 16), lambda: keras.layers.DepthwiseConv2D(5, padding="same")),
}


@pytest.mark.skipif(backend.has_gpu(), reason="a GPU promises no more than 1e-5")
@pytest.mark.parametrize("name", LAYERS)
def test_a_row_is_the_same_at_any_place_of_any_batch_on_this_machine(name):
    shape, layer = LAYERS[name]
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input(shape), layer()])
    size = backend.batch_rows()
    x = np.random.default_rng(0).random((size, *shape), np.float32)
    whole = backend.predict(model, x, size)
    assert backend.rounds_alike(lambda rows: backend.predict(model, rows, size), x)
    rng = np.random.default_rng(1)
    for count in (1, 2, 5, size - 1, size):  # smaller batches are filled up
        rows = rng.permutation(size)[:count]
        np.testing.assert_array_equal(backend.predict(model, x[rows], size), whole[rows])


def test_rounding_that_depends_on_the_place_is_noticed():
    def uneven(rows):
        out = rows.copy()
        out[-2:] += np.spacing(out[-2:])  # like kernels that compute the remaining rows in another way
        return out

    x = np.random.default_rng(0).random((8, 3), np.float32)
    assert backend.rounds_alike(lambda rows: rows * 2, x)
    assert not backend.rounds_alike(uneven, x)


def error_of(function):
    try:
        function()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def test_errors_of_the_engine_are_recognised_by_their_place():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    assert backend.is_its_own(error_of(lambda: model(np.ones((1, 4), np.float32))))  # a ValueError
    assert backend.is_its_own(error_of(lambda: keras.ops.matmul(np.ones((2, 3)), np.ones((2, 3)))))
    assert backend.is_its_own(MemoryError())
    assert not backend.is_its_own(error_of(lambda: int("x")))
    assert not backend.is_its_own(error_of(lambda: np.ones(3).reshape(2, 2)))


def test_a_backend_that_is_not_supported_is_refused(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    refusal = pytest.raises(UserError, match="KERAS_BACKEND: torch is not supported; set it to one of tensorflow, jax")
    with refusal, backend.quiet():
        pass


def test_the_import_leaves_other_libraries_alone_and_the_garbage_collector_on():
    code = (
        "import gc, sys; from frostline.models import backend\n"
        "with backend.quiet(): pass\n"
        "print('keras' in sys.modules, 'sklearn' in sys.modules, gc.isenabled(), gc.get_freeze_count() > 0)\n"
        "import sklearn; print(sklearn.__name__)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["True", "False", "True", "True", "sklearn"]
