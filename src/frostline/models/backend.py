"""The backend of Keras, here called its engine: import it quietly, and call what Keras itself does not offer."""

from __future__ import annotations

import gc
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from frostline.errors import UserError

if TYPE_CHECKING:
    import keras

# Images in one call of a network that only predicts. On a CPU it is small, so that a layer's output stays in the cache,
# and a multiple of 4, 6, 8, 12, 16 and 24: kernels of matrix products take that many rows at a time, depending on the
# processor, and compute the remaining rows in another order, which rounds them differently.
CPU_ROWS, GPU_ROWS = 48, 256


SUPPORTED = ("tensorflow", "jax")  # backends of Keras
ENGINES = {"tensorflow", "keras", "jax", "jaxlib"}


@contextmanager
def quiet() -> Iterator[None]:
    """Import Keras, and in the block what needs it. TensorFlow's C++ code prints lines that look like errors but are
    not; they are not shown.

    They go to file descriptor 2 before any log level has an effect, so the descriptor itself is redirected meanwhile.
    Python's own exceptions and warnings about the import are not affected. Raises UserError if KERAS_BACKEND names a
    backend that is not supported.
    """
    set_up()
    stderr = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        if "keras" not in sys.modules:
            _import_keras()
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def set_up() -> None:
    """Set what TensorFlow reads when it is imported. Raises UserError if KERAS_BACKEND names no supported backend."""
    name = os.environ.get("KERAS_BACKEND", SUPPORTED[0])
    if name not in SUPPORTED:
        raise UserError(f"KERAS_BACKEND: {name} is not supported; set it to one of {', '.join(SUPPORTED)}")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # TensorFlow does not use oneDNN on processors without AVX-512, although it is faster there too.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it warns of every compilation


def share_gpus() -> None:
    """Take the memory of a GPU as it is needed: other processes compute there too. Call it before `quiet`."""
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def _import_keras() -> None:
    """Import Keras in about half of the usual time (measured by benchmarks/start.py).

    Keras imports scikit-learn for wrappers, and TensorFlow imports JAX for a converter, if they are installed; nothing
    here uses these. The garbage collector would look at the new objects many times, again when the process ends.
    """
    unneeded = {"sklearn"} if os.environ.get("KERAS_BACKEND") == "jax" else {"sklearn", "jax"}
    hidden = unneeded - sys.modules.keys()
    was_enabled = gc.isenabled()
    gc.disable()
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: as if it were not installed
    try:
        import keras  # noqa: F401
    finally:
        for name in hidden:
            del sys.modules[name]
        gc.freeze()
        if was_enabled:
            gc.enable()


def has_gpu() -> bool:
    """Whether the engine computes on a GPU."""
    import keras

    if keras.backend.backend() == "jax":
        import jax

        return str(jax.default_backend()) == "gpu"
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


def jax_devices() -> int:
    """The number of devices of one kind that JAX finds on this machine, GPUs first; 0 if it is not the engine."""
    import keras

    if keras.backend.backend() != "jax":
        return 0
    import jax

    return int(jax.local_device_count())


def batch_rows() -> int:
    """Images in one call of a network that only predicts. `predict` fills up smaller batches."""
    return GPU_ROWS if has_gpu() else CPU_ROWS


def best_precision() -> str:
    """The fastest dtype policy of Keras that trains well: mixed on a GPU with units for it, otherwise float32."""
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
    """Seed all random numbers of Keras. On a CPU, also make TensorFlow's order of operations deterministic."""
    import keras

    keras.utils.set_random_seed(seed)
    if _is_tensorflow() and not has_gpu():  # on a GPU the deterministic kernels cost too much
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()


def is_its_own(error: Exception) -> bool:
    """Whether an error comes from the engine, such as for too little memory, or shapes that don't fit.

    Many of its errors are plain ValueErrors, so the place decides: an error counts if the engine's code raised it.
    """
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    module = place.tb_frame.f_globals.get("__name__", "") if place is not None else ""
    packages = {name.partition(".")[0] for name in (type(error).__module__, module)}
    return isinstance(error, MemoryError) or not packages.isdisjoint(ENGINES)


class Predicts(Protocol):
    """A network that only predicts: a Keras model, or one whose batches several devices share (`devices`)."""

    def predict_on_batch(self, batch: NDArray[Any]) -> NDArray[Any]:
        """The outputs for a batch of inputs, one row each."""
        ...


def predict(model: Predicts, batch: NDArray[Any], rows: int) -> NDArray[Any]:
    """A model's output for a batch of at most `rows` rows. The batch is filled up, so that one shape is compiled."""
    full = batch if len(batch) == rows else batch[np.resize(np.arange(len(batch)), rows)]
    return np.asarray(model.predict_on_batch(full))[: len(batch)]


def rounds_alike(run: Callable[[NDArray[Any]], NDArray[Any]], batch: NDArray[Any]) -> bool:
    """Whether a row's output is the same to the last bit at any place in a batch, tried with one batch.

    run: the network, rows (n, ...) -> outputs (n, ...); batch: rows that differ.
    """
    return bool(np.array_equal(run(batch), run(batch[::-1].copy())[::-1]))


def values(variables: Sequence[keras.Variable]) -> list[NDArray[Any]]:
    """Copies of the values of variables, in the host's memory."""
    if _is_tensorflow():  # without Keras, which takes longer than the copy of a small variable
        return [np.asarray(variable.value.numpy()) for variable in variables]
    return [np.array(variable) for variable in variables]


def tensors(variables: Sequence[keras.Variable]) -> list[Any]:
    """The values of variables as tensors on their device. Later changes of the variables don't change them."""
    if _is_tensorflow():
        return [variable.value.read_value() for variable in variables]
    return [variable.value for variable in variables]


def assign(variables: Sequence[keras.Variable], arrays: Sequence[Any]) -> None:
    """Set variables to arrays or tensors of their shapes."""
    for variable, array in zip(variables, arrays, strict=True):
        if _is_tensorflow():
            variable.value.assign(array, read_value=False)
        else:
            variable.assign(array)


def _is_tensorflow() -> bool:
    import keras

    return bool(keras.backend.backend() == "tensorflow")


def add_bias(x: Any, bias: Any) -> Any:
    """x + bias, along the last axis, by an operation that TensorFlow fuses with the convolution before it."""
    if _is_tensorflow():
        import tensorflow as tf

        return tf.nn.bias_add(x, bias)
    return x + bias
