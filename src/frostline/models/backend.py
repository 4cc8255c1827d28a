"""Keras's engine: starting it without its chatter, and what it computes on."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from frostline.errors import UserError

if TYPE_CHECKING:
    import keras

# Images in one call of a network that only predicts. On a CPU few, so that a layer's output stays in the processor's
# cache, and a multiple of 4, 6, 8, 12, 16 and 24: a kernel of matrix products takes so many rows at a time (how many
# depends on the processor) and computes rows that are left over in another order, which rounds them otherwise.
CPU_ROWS, GPU_ROWS = 48, 256


SUPPORTED = ("tensorflow", "jax")  # backends of Keras
ENGINES = {"tensorflow", "keras", "jax", "jaxlib"}


@contextmanager
def quiet() -> Iterator[None]:
    """Import Keras inside this block, or the C++ half of TensorFlow prints lines that look like errors and are none.

    They go to file descriptor 2 before any log level counts, so the descriptor itself is turned away for the time of
    the import. Python's own exceptions and warnings about the import are not affected. Raises UserError where Keras is
    to run on a backend that is not supported.
    """
    chosen = os.environ.get("KERAS_BACKEND", SUPPORTED[0])
    if chosen not in SUPPORTED:
        raise UserError(f"KERAS_BACKEND: {chosen} is not supported; set it to one of {', '.join(SUPPORTED)}")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # TensorFlow leaves oneDNN off on processors without AVX-512; it is quicker there too.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it warns that every new segment is compiled
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def has_gpu() -> bool:
    """Whether Keras's engine computes on a GPU here."""
    import keras

    if keras.backend.backend() == "jax":
        import jax

        return str(jax.default_backend()) == "gpu"
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


def batch_rows() -> int:
    """Images in one call of a network that only predicts; fewer are filled up to as many by `predict`."""
    return GPU_ROWS if has_gpu() else CPU_ROWS


def best_precision() -> str:
    """The fastest dtype policy of Keras that trains well here: mixed on a GPU with fast units for it, else float32."""
    import keras

    if not has_gpu():
        return "float32"
    if keras.backend.backend() == "jax":
        import jax

        capability = float(jax.devices()[0].compute_capability)
    else:
        import tensorflow as tf

        details = tf.config.experimental.get_device_details(tf.config.list_physical_devices("GPU")[0])
        major, minor = details.get("compute_capability", (0, 0))
        capability = major + minor / 10
    return "mixed_bfloat16" if capability >= 8 else "mixed_float16" if capability >= 7 else "float32"


def make_deterministic(seed: int) -> None:
    """Seed everything that Keras draws from; on a CPU make TensorFlow's own order of operations fixed too."""
    import keras

    keras.utils.set_random_seed(seed)
    if _is_tensorflow() and not has_gpu():  # on a GPU the deterministic kernels cost too much
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()


def is_its_own(error: Exception) -> bool:
    """Whether an error comes from the engine at work: memory that is used up, shapes that don't fit.

    Many of them are plain ValueErrors, so what counts is where one was raised: in the engine's code, or in ours.
    """
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    raised_in = place.tb_frame.f_globals.get("__name__", "") if place is not None else ""
    packages = {name.partition(".")[0] for name in (type(error).__module__, raised_in)}
    return isinstance(error, MemoryError) or not packages.isdisjoint(ENGINES)


def predict(model: keras.Model, batch: NDArray[Any], rows: int) -> NDArray[Any]:
    """A model's output for a batch of at most `rows`; a shorter one is filled up, so that one shape is compiled."""
    full = batch if len(batch) == rows else batch[np.resize(np.arange(len(batch)), rows)]
    return np.asarray(model.predict_on_batch(full))[: len(batch)]


def rounds_alike(run: Callable[[NDArray[Any]], NDArray[Any]], batch: NDArray[Any]) -> bool:
    """Whether a row's output is the same to the last bit wherever in a batch the row lies, as tried on one batch.

    run: the network, rows (n, ...) -> outputs (n, ...); batch: rows that differ.
    """
    return bool(np.array_equal(run(batch), run(batch[::-1].copy())[::-1]))


def values(variables: Sequence[keras.Variable]) -> list[NDArray[Any]]:
    """Copies of what variables hold, in the host's memory."""
    if _is_tensorflow():  # past Keras's own layers, which take longer than small variables do
        return [np.asarray(variable.value.numpy()) for variable in variables]
    return [np.array(variable) for variable in variables]


def tensors(variables: Sequence[keras.Variable]) -> list[Any]:
    """What variables hold, as tensors where they are; later changes of the variables don't reach them."""
    if _is_tensorflow():
        return [variable.value.read_value() for variable in variables]
    return [variable.value for variable in variables]


def assign(variables: Sequence[keras.Variable], given: Sequence[Any]) -> None:
    """Set variables to arrays or tensors of their shapes."""
    for variable, value in zip(variables, given, strict=True):
        if _is_tensorflow():
            variable.value.assign(value, read_value=False)
        else:
            variable.assign(value)


def _is_tensorflow() -> bool:
    import keras

    return bool(keras.backend.backend() == "tensorflow")


def add_bias(x: Any, bias: Any) -> Any:
    """x + bias, bias by the last axis: in TensorFlow the operation that it fuses with the convolution before it."""
    if _is_tensorflow():
        import tensorflow as tf

        return tf.nn.bias_add(x, bias)
    return x + bias
