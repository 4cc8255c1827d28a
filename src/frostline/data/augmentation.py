"""Seeded variants of an image, by the policies of the classic Keras `ImageDataGenerator`.

A variant is a function of the image's own digest, the seed and the variant's number: adding images or copies changes
no variant that exists already.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from frostline.data.images import Pixels
from frostline.params.schema import AugmentSection

# Keras's words for what lies outside the image, and SciPy's.
FILL_MODES = {"constant": "constant", "nearest": "nearest", "reflect": "reflect", "wrap": "grid-wrap"}


@dataclass(frozen=True)
class Policy:
    """The ranges to draw from; see `params.Augment` for their units."""

    rotation: float
    width_shift: float
    height_shift: float
    shear: float
    zoom: float
    horizontal_flip: bool
    vertical_flip: bool
    brightness: tuple[float, float] | None
    fill_mode: str

    @classmethod
    def of(cls, settings: AugmentSection) -> Policy:
        """The policy that params.yaml describes."""
        return cls(**{field.name: getattr(settings, field.name) for field in fields(cls)})


@dataclass(frozen=True)
class Drawn:
    """One draw from a policy: angles in degrees, shifts in shares of the side, zooms and brightness as factors."""

    rotation: float
    shift_y: float
    shift_x: float
    shear: float
    zoom_y: float
    zoom_x: float
    flip_x: bool
    flip_y: bool
    brightness: float


def draw(policy: Policy, sha256: str, variant: int, seed: int) -> Drawn:
    """The draw for one image (by the hex digest of its pixels) and one variant (1, 2, ...)."""
    rng = np.random.default_rng([seed, variant, int(sha256[:16], 16)])

    def within(bound: float) -> float:
        return float(rng.uniform(-bound, bound))

    # Everything is drawn every time, in this order, so that switching one policy off leaves the others' draws alone.
    rotation, shift_y, shift_x = within(policy.rotation), within(policy.height_shift), within(policy.width_shift)
    shear, zoom_y, zoom_x = within(policy.shear), 1 + within(policy.zoom), 1 + within(policy.zoom)
    flip_x, flip_y = (rng.random(2) < 0.5).tolist()
    brightness = float(rng.uniform(*(policy.brightness or (1.0, 1.0))))
    return Drawn(
        rotation, shift_y, shift_x, shear, zoom_y, zoom_x,
        policy.horizontal_flip and flip_x, policy.vertical_flip and flip_y, brightness,
    )  # fmt: skip


def apply(pixels: Pixels, drawn: Drawn, fill_mode: str) -> Pixels:
    """Transform uint8 (size, size, 3) into the same shape: one bilinear resampling, then flips, then brightness."""
    from scipy.ndimage import affine_transform

    size = pixels.shape[0]
    matrix = _matrix(drawn)
    out = pixels
    if not np.array_equal(matrix, np.eye(2)) or drawn.shift_x or drawn.shift_y:
        centre = np.full(2, (size - 1) / 2)
        shift = np.array([drawn.shift_y, drawn.shift_x]) * size
        offset = centre - matrix @ (centre + shift)
        out = np.empty_like(pixels)
        for channel in range(3):
            plane = pixels[..., channel].astype(np.float32)
            moved = affine_transform(plane, matrix, offset, order=1, mode=FILL_MODES[fill_mode])
            out[..., channel] = np.clip(moved + 0.5, 0, 255)
    if drawn.flip_x:
        out = out[:, ::-1]
    if drawn.flip_y:
        out = out[::-1]
    if drawn.brightness != 1:
        out = np.clip(out * np.float32(drawn.brightness) + 0.5, 0, 255).astype(np.uint8)
    return np.ascontiguousarray(out)


def _matrix(drawn: Drawn) -> NDArray[np.float64]:
    """Output (y, x) around the centre -> input (y, x): rotation, then shear, then zoom, as Keras composes them."""
    angle, shear = np.deg2rad([drawn.rotation, drawn.shear])
    rotate = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    slant = np.array([[1, -np.sin(shear)], [0, np.cos(shear)]])
    return rotate @ slant @ np.diag([drawn.zoom_y, drawn.zoom_x])
