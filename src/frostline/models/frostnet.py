"""frostnet: the embedded backbone, small enough to ship inside the package and to train on two CPU cores.

It is a plain residual network (He et al., "Deep Residual Learning", CVPR 2016): a stem and four stages of two basic
blocks. Every block ends in one live tensor, so the freeze line can be behind each of the 8 blocks. Its weights come
from `pretrain/`, this package's own pipeline run on generated images. They are beside this file as float16, which is
exact enough: rounding changes a logit by about 1e-3.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from frostline.errors import WeightsError
from frostline.models import weight_files, weights
from frostline.models.family import Family, reason
from frostline.models.made_from import LoadedWeights

if TYPE_CHECKING:
    import keras

WIDTHS = (32, 64, 128, 160)
BLOCKS = 2
WEIGHTS = Path(__file__).with_name("frostnet.npz")


def build(size: int) -> keras.Model:
    """frostnet without a head: float32 (n, size, size, 3) in [-1, 1] -> (n, s, s, 160) with s = ceil(size / 16)."""
    import keras
    from keras import layers

    def conv(x: keras.KerasTensor, width: int, kernel: int, strides: int, name: str) -> keras.KerasTensor:
        x = layers.Conv2D(width, kernel, strides, padding="same", use_bias=False, name=f"{name}_conv")(x)
        return layers.BatchNormalization(momentum=0.9, epsilon=1e-3, name=f"{name}_bn")(x)

    inputs = keras.Input((size, size, 3), name="frostnet_input")
    x = layers.ReLU(name="stem_relu")(conv(inputs, WIDTHS[0], 3, 2, "stem"))
    for stage, width in enumerate(WIDTHS, 1):
        for block in range(1, BLOCKS + 1):
            name = f"block{(stage - 1) * BLOCKS + block}"
            strides = 2 if block == 1 and stage > 1 else 1
            shortcut = x if width == x.shape[-1] else conv(x, width, 1, strides, f"{name}_shortcut")
            x = layers.ReLU(name=f"{name}_relu1")(conv(x, width, 3, strides, f"{name}_1"))
            x = layers.Add(name=f"{name}_add")([conv(x, width, 3, 1, f"{name}_2"), shortcut])
            x = layers.ReLU(name=f"{name}_out")(x)
    return keras.Model(inputs, x, name="frostnet")


def save_weights(model: keras.Model, path: Path) -> None:
    """Write the weights of a frostnet as float16 arrays, by their paths. The bytes depend only on the weights."""
    arrays: dict[str, Any] = {w.path: np.asarray(w).astype(np.float16) for w in model.weights}
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)


def load_weights(model: keras.Model, path: Path = WEIGHTS) -> None:
    """Set the weights of a frostnet from a file that `save_weights` wrote.

    Raises ValueError if the file is of a network with other layers.
    """
    weight_files.require_safe(path)
    with np.load(path) as archive:
        names = {w.path for w in model.weights}
        if names != set(archive.files):
            unequal = sorted(names.symmetric_difference(archive.files))
            raise ValueError(f"{len(unequal)} weights differ in name, the first is {unequal[0]}")
        for weight in model.weights:
            weight.assign(archive[weight.path].astype(np.float32))


def _built(name: str, keyword: str, size: int, alpha: float | None) -> keras.Model:
    """The only body of the family. keyword: `builtin` or `none`; alpha: None."""
    model = build(size)
    if keyword == "builtin":
        try:
            load_weights(model)
        except Exception as error:  # NumPy raises many kinds of errors for a damaged file
            raise WeightsError(f"{WEIGHTS}: is damaged ({reason(error)}); install frostline again") from error
    return model


def _load(model: keras.Model, name: str, path: Path) -> LoadedWeights | None:
    """Read this package's own `.npz` too."""
    if path.suffix != ".npz":
        return weights.load(model, name, path)
    load_weights(model, path)
    return None


FAMILY = Family(("builtin",), _built, _load)
