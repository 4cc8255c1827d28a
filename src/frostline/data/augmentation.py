"""Seeded variants of an image, with the policies of the classic Keras `ImageDataGenerator`.

A variant is a function of the image's digest, the seed and the variant's number. So adding images or variants does not
change the existing variants.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from frostline.core import own_code
from frostline.data.images import Pixels
from frostline.params.schema import AugmentSection

# Ways to fill the area outside the image: Keras's word -> SciPy's word.
FILL_MODES = {"constant": "constant", "nearest": "nearest", "reflect": "reflect", "wrap": "grid-wrap"}


@dataclass(frozen=True)
class Policy:
    """The ranges to draw from. For their units see `params.schema.AugmentSection`."""

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
class Transform:
    """A change of an image, drawn from a policy.

    rotation, shear: in degrees; shifts: as shares of the side; zooms, brightness: factors.
    """

    rotation: float
    shift_y: float
    shift_x: float
    shear: float
    zoom_y: float
    zoom_x: float
    flip_x: bool
    flip_y: bool
    brightness: float


def draw(policy: Policy, sha256: str, variant: int, seed: int) -> Transform:
    """Draw the transform of one variant (1, 2, ...) of one image. sha256: the hex digest of the image."""
    rng = np.random.default_rng([seed, variant, int(sha256[:16], 16)])

    def within(bound: float) -> float:
        return float(rng.uniform(-bound, bound))

    # All numbers are always drawn, in this order, so that switching off one setting does not change the others.
    rotation, shift_y, shift_x = within(policy.rotation), within(policy.height_shift), within(policy.width_shift)
    shear, zoom_y, zoom_x = within(policy.shear), 1 + within(policy.zoom), 1 + within(policy.zoom)
    flip_x, flip_y = (rng.random(2) < 0.5).tolist()
    brightness = float(rng.uniform(*(policy.brightness or (1.0, 1.0))))
    return Transform(
        rotation, shift_y, shift_x, shear, zoom_y, zoom_x,
        policy.horizontal_flip and flip_x, policy.vertical_flip and flip_y, brightness,
    )  # fmt: skip


class OwnAugmentation(Protocol):
    """An augmentation of one's own, `augment.function: package.module:function`."""

    def __call__(self, image: Pixels, rng: np.random.Generator) -> Pixels:
        """A changed copy of an image, uint8 (size, size, 3). rng: the only source of chance that it may use."""


def own(settings: AugmentSection) -> OwnAugmentation | None:
    """The function of `augment.function`, None without one. Raises ParamsError if it can't be imported."""
    return own_code.function(settings.function, "augment.function") if settings.function else None


def variant(
    pixels: Pixels, settings: AugmentSection, function: OwnAugmentation | None, sha256: str, number: int, seed: int
) -> Pixels:
    """A variant (1, 2, ...) of an image. function: `own(settings)`. Raises ParamsError if it fails."""
    policy = Policy.of(settings)
    out = apply(pixels, draw(policy, sha256, number, seed), policy.fill_mode)
    if function is None or settings.function is None:
        return out
    rng = np.random.default_rng([seed, number, int(sha256[:16], 16), 1])
    try:
        changed = np.asarray(function(out, rng))
        if changed.shape != out.shape or changed.dtype != np.uint8:
            raise ValueError(f"it gave {changed.dtype} {changed.shape} and not uint8 {out.shape}")
    except Exception as error:  # a user's own code may raise anything
        raise own_code.failed(settings.function, "augment.function", error) from error
    return np.ascontiguousarray(changed)


def apply(pixels: Pixels, transform: Transform, fill_mode: str) -> Pixels:
    """Transform uint8 (size, size, 3) into the same shape: one bilinear resampling, then flips, then brightness."""
    from scipy.ndimage import affine_transform

    size = pixels.shape[0]
    matrix = _matrix(transform)
    out = pixels
    if not np.array_equal(matrix, np.eye(2)) or transform.shift_x or transform.shift_y:
        centre = np.full(2, (size - 1) / 2)
        shift = np.array([transform.shift_y, transform.shift_x]) * size
        offset = centre - matrix @ (centre + shift)
        out = np.empty_like(pixels)
        for channel in range(3):
            plane = pixels[..., channel].astype(np.float32)
            new_plane = affine_transform(plane, matrix, offset, order=1, mode=FILL_MODES[fill_mode])
            out[..., channel] = np.clip(new_plane + 0.5, 0, 255)
    if transform.flip_x:
        out = out[:, ::-1]
    if transform.flip_y:
        out = out[::-1]
    if transform.brightness != 1:
        out = np.clip(out * np.float32(transform.brightness) + 0.5, 0, 255).astype(np.uint8)
    return np.ascontiguousarray(out)


def _matrix(transform: Transform) -> NDArray[np.float64]:
    """The matrix from output (y, x) to input (y, x) around the centre: rotation, then shear, then zoom, like Keras."""
    angle, shear = np.deg2rad([transform.rotation, transform.shear])
    rotate = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    slant = np.array([[1, -np.sin(shear)], [0, np.cos(shear)]])
    return rotate @ slant @ np.diag([transform.zoom_y, transform.zoom_x])
