"""Live variants: drawn anew for every batch, inside the network, by the same policy as stored variants.

Each of Keras's own layers (`RandomRotation`, `RandomZoom`, ...) resamples the image. Here one matrix combines all
moves, and the operation that those layers use applies it. So an image is resampled once, like a stored variant, and a
policy means the same in both modes.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from frostline.data.augmentation import Policy


class Variants(keras.layers.Layer):
    """Images (n, size, size, 3) in [0, 255] -> float32 of the same shape: variants in training, else the images
    themselves. The draws depend on the seed and on the number of batches since `reset`."""

    def __init__(self, policy: Policy, seed: int) -> None:
        super().__init__(name="variants", dtype="float32")
        self.policy = policy
        self.seed_generator = keras.random.SeedGenerator(seed)
        self._initial = np.array(self.seed_generator.state)
        self.built = True

    def reset(self) -> None:
        """Start the sequence of draws again."""
        self.seed_generator.state.assign(self._initial)

    def compute_output_spec(self, x: keras.KerasTensor) -> keras.KerasTensor:
        return keras.KerasTensor(x.shape, "float32")

    def call(self, x: Any, training: bool | None = None) -> Any:
        ops = keras.ops
        x = ops.cast(x, "float32")
        if not training:
            return x
        draws = keras.random.uniform((ops.shape(x)[0], DRAWS), -1.0, 1.0, dtype="float32", seed=self.seed_generator)
        return self.vary(x, draws)

    def vary(self, x: Any, draws: Any) -> Any:
        """The variants of float32 images by draws (n, DRAWS) in [-1, 1), in the order of `augmentation.Transform`."""
        ops, policy = keras.ops, self.policy
        turn, shift_y, shift_x, slant, zoom_y, zoom_x, flip_x, flip_y, light = ops.unstack(draws, axis=1)
        moves = (policy.rotation, policy.height_shift, policy.width_shift, policy.shear, policy.zoom)
        if any(moves):
            angle, slant = turn * float(np.deg2rad(policy.rotation)), slant * float(np.deg2rad(policy.shear))
            zoom_y, zoom_x = 1 + zoom_y * policy.zoom, 1 + zoom_x * policy.zoom
            sin, cos = ops.sin(angle), ops.cos(angle)
            # rotation @ shear @ zoom, as `augmentation` composes them: output (y, x) around the centre -> input.
            yy, yx = cos * zoom_y, (-cos * ops.sin(slant) - sin * ops.cos(slant)) * zoom_x
            xy, xx = sin * zoom_y, (-sin * ops.sin(slant) + cos * ops.cos(slant)) * zoom_x
            size = x.shape[1]
            centre = (size - 1) / 2
            to_y, to_x = centre + shift_y * (policy.height_shift * size), centre + shift_x * (policy.width_shift * size)
            zero = ops.zeros_like(yy)
            matrix = [xx, xy, centre - xx * to_x - xy * to_y, yx, yy, centre - yy * to_y - yx * to_x, zero, zero]
            x = ops.image.affine_transform(
                x, ops.stack(matrix, axis=1), interpolation="bilinear", fill_mode=policy.fill_mode
            )
        for is_on, draw, axis in ((policy.horizontal_flip, flip_x, 2), (policy.vertical_flip, flip_y, 1)):
            if is_on:
                x = ops.where(draw[:, None, None, None] < 0, ops.flip(x, axis=axis), x)
        if policy.brightness is not None:
            low, high = policy.brightness
            factor = (low + high) / 2 + light * ((high - low) / 2)
            x = ops.clip(x * factor[:, None, None, None], 0.0, 255.0)
        return x


# The number of random values for each image.
DRAWS = 9
