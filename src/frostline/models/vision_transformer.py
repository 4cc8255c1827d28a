"""Vision transformers as plain Keras graphs, block by block, whatever library their weights are from.

The design is that of Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021, with what later ones changed:
further tokens (DeiT, Touvron et al., ICML 2021), register tokens (Darcet et al., ICLR 2024), the scales of residuals
(CaiT, Touvron et al., ICCV 2021), gated layers (Shazeer, "GLU Variants Improve Transformer", 2020) and rotary positions
(DINOv3, Simeoni et al., 2025). Every sum of a residual is a cut point, so each block has two.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from frostline.models import keras_internals

Arrays = Mapping[str, list[NDArray[np.float32]]]

# The layer that cuts an image into patches; its output is (n, rows, patch, columns, patch, 3).
PATCHES = "patches"


def _quick_gelu(x: Any) -> Any:
    """The approximation of GELU that CLIP was trained with (Hendrycks & Gimpel, 2016)."""
    return x * keras.ops.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "gelu": lambda x: keras.ops.gelu(x, approximate=False),
    "gelu_approximate": lambda x: keras.ops.gelu(x, approximate=True),
    "quick_gelu": _quick_gelu,
    "silu": keras.ops.silu,
}


@dataclass(frozen=True)
class Design:
    """The numbers of a vision transformer.

    patch: side of a patch in pixels; width: of a token; blocks, heads: their numbers; hidden: width of the layer inside
    a block, of one of its two halves if `gated`; leading: tokens before those of the patches (class, distillation,
    registers); activation: a name of ACTIVATIONS; epsilon: of the norms; first_norm: whether a norm follows the
    embedding; scaled: whether each residual has a scale for each channel; rope_theta: the base period of rotary
    positions, None without them; dropout, drop_path: rates in training.
    """

    patch: int
    width: int
    blocks: int
    heads: int
    hidden: int
    leading: int = 1
    activation: str = "gelu"
    gated: bool = False
    epsilon: float = 1e-6
    first_norm: bool = False
    scaled: bool = False
    rope_theta: float | None = None
    dropout: float = 0.0
    drop_path: float = 0.0


def build(design: Design, size: int, name: str) -> keras.Model:
    """A body: float32 (n, size, size, 3) -> tokens (n, leading + (size // patch)^2, width), behind the last norm.

    The pixels that remain at the right and the bottom are cut off, as a convolution with these strides does.
    `set_arrays` sets its weights, which are those of Keras's initializers until then.
    """
    layers = keras.layers
    with keras_internals.names_from_one():
        images = keras.Input((size, size, 3), name="input")
        x = _embedded(images, design)
        if design.dropout:
            x = layers.Dropout(design.dropout, name="dropout")(x)
        if design.first_norm:
            x = _norm(x, design, "first_norm")
        rope = None if design.rope_theta is None else _Rope.of(design, design.rope_theta, size // design.patch)
        for number in range(1, design.blocks + 1):
            part = f"block{number}"
            y = _attention(_norm(x, design, f"{part}_norm1"), design, rope, part)
            x = _residual(x, y, design, f"{part}_", "1")
            y = _feed_forward(_norm(x, design, f"{part}_norm2"), design, part)
            x = _residual(x, y, design, f"{part}_", "2")
        return keras.Model(images, _norm(x, design, "norm"), name=name)


def set_arrays(model: keras.Model, arrays: Arrays) -> None:
    """Set the weights of all layers, by name. Raises ValueError if a layer is missing, or has another shape."""
    layers = {layer.name: layer for layer in model.layers if layer.weights}
    if missing := layers.keys() ^ arrays.keys():
        raise ValueError(f"layer {min(missing)} is not in both the body and the weights")
    for name, layer in layers.items():
        layer.set_weights(arrays[name])


def embedding(
    kernel: NDArray[Any], bias: Any, tokens: NDArray[Any], positions: NDArray[Any]
) -> list[NDArray[np.float32]]:
    """The weights of the layer `embedding` from those that other libraries have.

    kernel: of the convolution, (patch, patch, 3, width); bias: (width,) or None; tokens: the leading ones, with their
    positions added, (leading, width); positions: of the patches, (rows * columns, width), zeros if they are rotary.
    """
    width = kernel.shape[-1]
    patches = positions if bias is None else positions + np.asarray(bias)
    rows = np.concatenate([tokens, patches])
    return [np.reshape(kernel, (-1, width)).astype(np.float32), rows.astype(np.float32)]


def resampled(positions: NDArray[Any], side: int, antialias: bool = False) -> NDArray[np.float32]:
    """The positions (old_side^2, width) of a square grid for one of side^2 patches, by bicubic interpolation.

    Dosovitskiy et al., section 3.2, resample them for images of another size than those of the pretraining.
    """
    old_side = math.isqrt(len(positions))
    if old_side == side:
        return np.asarray(positions, np.float32)
    grid = np.reshape(positions, (1, old_side, old_side, -1)).astype(np.float32)
    resized = keras.ops.image.resize(grid, (side, side), "bicubic", antialias=antialias, data_format="channels_last")
    return np.reshape(np.asarray(resized, np.float32), (side * side, -1))


def grid(model: keras.Model) -> tuple[int, int] | None:
    """Rows and columns of the patches of a body from `build`; None for other bodies."""
    layer = next((each for each in model.layers if each.name == PATCHES), None)
    return None if layer is None else (layer.output.shape[1], layer.output.shape[3])


def leading_tokens(model: keras.Model) -> int:
    """The number of tokens before those of the patches, in a body or a part of one; 0 if it has none."""
    places = grid(model)
    return 0 if places is None or len(model.output.shape) != 3 else model.output.shape[1] - math.prod(places)


def _embedded(images: keras.KerasTensor, design: Design) -> keras.KerasTensor:
    """Tokens of patches, with the leading ones before them and all positions added.

    One product of matrices does it: the leading tokens are rows of zeros before it, and the bias has a row for each
    token, which is the position of a patch, or the leading token itself. A convolution and layers of one's own, which
    Keras could not load without our code, would do the same.
    """
    patch, layers = design.patch, keras.layers
    side = images.shape[1] // patch
    if images.shape[1] != side * patch:
        images = images[:, : side * patch, : side * patch]
    x = layers.Reshape((side, patch, side, patch, 3), name=PATCHES)(images)
    x = layers.Permute((1, 3, 2, 4, 5), name="patches_in_order")(x)
    x = layers.Reshape((side * side, patch * patch * 3), name="patches_as_vectors")(x)
    if design.leading:
        x = layers.ZeroPadding1D((design.leading, 0), name="leading_tokens")(x)
    shape = (design.leading + side * side, design.width)
    return layers.EinsumDense("ntp,pw->ntw", shape, bias_axes="tw", name="embedding")(x)


def _norm(x: keras.KerasTensor, design: Design, name: str) -> keras.KerasTensor:
    return keras.layers.LayerNormalization(epsilon=design.epsilon, name=name)(x)


def _attention(x: keras.KerasTensor, design: Design, rope: _Rope | None, part: str) -> keras.KerasTensor:
    """Self-attention with one product for queries, keys and values, which is faster than three."""
    tokens, width = x.shape[1:]
    x = keras.layers.Dense(3 * width, name=f"{part}_qkv")(x)
    x = keras.layers.Reshape((tokens, 3, design.heads, width // design.heads), name=f"{part}_heads")(x)
    value, x = x[:, :, 2], x[:, :, :2]
    if rope is not None:
        x = rope(x)
    query, key = x[:, :, 0], x[:, :, 1]
    x = keras.ops.dot_product_attention(query, key, value)
    x = keras.layers.Reshape((tokens, width), name=f"{part}_attention")(x)
    return keras.layers.Dense(width, name=f"{part}_projection")(x)


def _feed_forward(x: keras.KerasTensor, design: Design, part: str) -> keras.KerasTensor:
    x = keras.layers.Dense(design.hidden * (2 if design.gated else 1), name=f"{part}_expand")(x)
    activation = ACTIVATIONS[design.activation]
    x = activation(x[..., : design.hidden]) * x[..., design.hidden :] if design.gated else activation(x)
    if design.dropout:
        x = keras.layers.Dropout(design.dropout, name=f"{part}_expand_dropout")(x)
    return keras.layers.Dense(design.width, name=f"{part}_project")(x)


def _residual(x: keras.KerasTensor, y: keras.KerasTensor, design: Design, part: str, number: str) -> keras.KerasTensor:
    """x + y, with what training and some designs do to y before."""
    layers = keras.layers
    if design.dropout:
        y = layers.Dropout(design.dropout, name=f"{part}dropout{number}")(y)
    if design.scaled:
        y = layers.EinsumDense("ntw,w->ntw", y.shape[1:], name=f"{part}scale{number}")(y)
    if design.drop_path:  # Huang et al., "Deep Networks with Stochastic Depth", ECCV 2016
        y = layers.Dropout(design.drop_path, noise_shape=(None, 1, 1), name=f"{part}drop_path{number}")(y)
    return layers.Add(name=f"{part}add{number}")([x, y])


@dataclass(frozen=True)
class _Rope:
    """Rotary positions of the patches: each pair of channels is turned by an angle.

    cos, sin: float32 (patches, 1, 1, 1, pairs of a head); leading: tokens that are not turned. Half of the pairs turn
    with the row, half with the column, whose centres are in [-1, 1]. These are constants of each block: a tensor that
    all blocks read would be alive everywhere, and the graph would have no cut points.
    """

    cos: NDArray[np.float32]
    sin: NDArray[np.float32]
    leading: int

    @classmethod
    def of(cls, design: Design, theta: float, side: int) -> _Rope:
        channels = design.width // design.heads
        frequencies = 1.0 / theta ** np.arange(0, 1, 4 / channels, dtype=np.float32)
        centers = 2 * (np.arange(0.5, side, dtype=np.float32) / side) - 1
        coordinates = np.stack(np.meshgrid(centers, centers, indexing="ij"), axis=-1).reshape(-1, 2, 1)
        angles = (2 * np.pi * coordinates * frequencies).astype(np.float32).reshape(side * side, 1, 1, 1, -1)
        return cls(np.cos(angles), np.sin(angles), design.leading)

    def __call__(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """Turn queries and keys (n, tokens, 2, heads, channels)."""
        ops = keras.ops
        patches = x[:, self.leading :]
        half = x.shape[-1] // 2
        first, second = patches[..., :half], patches[..., half:]
        turned = ops.stack([first, second], axis=-2) * self.cos + ops.stack([-second, first], axis=-2) * self.sin
        turned = ops.cast(ops.reshape(turned, (-1, *patches.shape[1:])), x.dtype)
        return ops.concatenate([x[:, : self.leading], turned], axis=1)
