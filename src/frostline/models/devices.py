"""The devices that share the work on each batch: one, or with JAX several of one machine.

Every device holds all weights and computes its part of a batch's rows, as with Keras's `DataParallel`. The program is
that of one device, which XLA partitions: where an operation looks at all rows, as the mean of the gradients or the
statistics of BatchNorm, it adds the communication between devices, and random numbers belong to the whole batch. So
the number of devices changes a result by no more than rounding (docs/decisions/0026-several-devices.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from frostline.errors import ParamsError
from frostline.models import backend

if TYPE_CHECKING:
    import keras

_ROWS = "rows"  # the name of the axis along which a batch is cut


@dataclass(frozen=True)
class Devices:
    """The first `number` devices of the engine. All methods but `predicting` need JAX."""

    number: int = 1

    @cached_property
    def _mesh(self) -> Any:
        import jax

        return jax.sharding.Mesh(np.array(jax.devices()[: self.number]), (_ROWS,))

    @property
    def everywhere(self) -> Any:
        """The sharding of a value that every device holds whole; None on one device, where JAX needs none."""
        import jax

        return jax.sharding.NamedSharding(self._mesh, jax.sharding.PartitionSpec()) if self.number > 1 else None

    def copies(self, variables: Sequence[keras.Variable]) -> list[Any]:
        """Copies of the values of variables, on every device."""
        import jax
        import jax.numpy as jnp

        values = [jnp.copy(variable.value) for variable in variables]
        return jax.device_put(values, self.everywhere) if self.number > 1 else values

    def spread(self, arrays: Sequence[NDArray[Any]], axis: int = 0) -> tuple[Any, ...]:
        """Arrays of which each device gets an equal part along an axis, or all of it where there are no equal parts.

        This only says which device computes what: the result is the same, whatever the axis means.
        """
        import jax

        if self.number == 1:
            return tuple(arrays)
        cut = jax.sharding.NamedSharding(self._mesh, jax.sharding.PartitionSpec(*[None] * axis, _ROWS))
        shardings = [cut if array.shape[axis] % self.number == 0 else self.everywhere for array in arrays]
        return tuple(jax.device_put(list(arrays), shardings))

    def first(self, value: Any) -> Any:
        """The first device's copy of a value that every device holds whole."""
        return value.addressable_data(0) if self.number > 1 else value

    def predicting(self, model: keras.Model) -> backend.Predicts:
        """A model whose batches the devices share. Its weights must not change any more."""
        return model if self.number == 1 else _Parallel(model, self)


class _Parallel:
    def __init__(self, model: keras.Model, devices: Devices) -> None:
        import jax

        groups = (model.trainable_variables, model.non_trainable_variables)
        self._devices, self._weights = devices, [devices.copies(group) for group in groups]
        self._run = jax.jit(lambda weights, batch: model.stateless_call(*weights, batch, training=False)[0])

    def predict_on_batch(self, batch: NDArray[Any]) -> NDArray[Any]:
        rows, number = len(batch), self._devices.number
        full = batch if rows % number == 0 else batch[np.resize(np.arange(rows), -(-rows // number) * number)]
        return np.asarray(self._run(self._weights, *self._devices.spread([full])))[:rows]


ONE = Devices()


def chosen(setting: int | Literal["auto"], batch_size: int) -> Devices:
    """The devices that `finetune.devices` asks for. `auto`: with JAX as many GPUs as share a batch equally, else one.

    Raises ParamsError if there are fewer, if they can't share a batch equally, and for several with TensorFlow.
    """
    if setting == 1:
        return ONE
    there = backend.jax_devices()
    if setting == "auto":
        most = there if backend.has_gpu() else 1
        return Devices(max((number for number in range(2, most + 1) if batch_size % number == 0), default=1))
    key = f"params.yaml: finetune.devices is {setting}"
    if not there:
        raise ParamsError(
            f"{key}, and only JAX trains on several devices here; set KERAS_BACKEND=jax (pip install "
            "'frostline[jax]'), or finetune.devices to 1"
        )
    if setting > there:
        raise ParamsError(f"{key}, but JAX finds {there} here; set it to {there} or less, or to auto")
    if batch_size % setting:
        raise ParamsError(
            f"{key}, which can't share a batch of {batch_size} equally; set finetune.batch_size to a multiple of "
            f"{setting}, or finetune.devices to auto"
        )
    return Devices(setting)
