"""Grey images with more than 8 bits a pixel: which value becomes black, and which becomes white.

A 12-bit X-ray is stored in 16 bits, and computed tomography has values from about -1000 to 3000. If such values were
divided by the largest value of their type, an image would keep a few grey levels. So one range holds for the whole
source. `prepare` measures it, or `data.range` gives it; the bundle keeps it for prediction. Every registered model
contains a copy of this file (see packaging.py), so it imports nothing else from this package.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# `dtype`: the whole range of the pixels' type; `own`: of each image by itself; None: the window of a DICOM image, the
# range of the type for unsigned 16-bit values, and no other image can be converted.
GreyRange = tuple[float, float] | Literal["dtype", "own"] | None
Ends = tuple[float, float]  # the values of black and white

UNSIGNED_16 = (0.0, 65535.0)
UNIT = (0.0, 1.0)  # of floating-point images
TAIL = 0.001  # share of an image's pixels below its low tone, and above its high tone, such as dead and hot pixels
ODD = 0.005  # share of the images whose tones may lie outside of the range of a source, on either side
MOST = 2**20  # pixels of an image that are looked at
BITS, SAMPLE_FORMAT, SIGNED = 258, 339, 2  # of TIFF 6.0, section 19
WINDOW = "frostline window"  # key of `Image.info`: the lowest and highest value that a DICOM image shows
INVERTED = "frostline inverted"  # key of `Image.info`: whether the lowest value is white


class Tones(NamedTuple):
    """The tones of a deep grey image: the values above and below which almost all pixels lie.

    is_windowed: whether the image itself says which range of values is shown.
    """

    low: float
    high: float
    is_windowed: bool


def is_deep(image: Image.Image) -> bool:
    """Whether an image has one channel of more than 8 bits."""
    return image.mode.startswith("I") or image.mode == "F"


def has_deep_colour(image: Image.Image) -> bool:
    """Whether a colour image has 16 bits a channel. Pillow reads only the upper 8. Call it before `image.load`."""
    return image.format in ("PNG", "TIFF") and not is_deep(image) and ";16" in repr(getattr(image, "tile", ""))


def tones(values: NDArray[Any], is_windowed: bool = False) -> Tones:
    """The tones of an image, from its values, any real dtype, any shape. They are 0 if no value is finite."""
    flat = values.reshape(-1)
    flat = flat[:: max(1, flat.size // MOST)]
    finite = flat[np.isfinite(flat)]
    if not finite.size:
        return Tones(0.0, 0.0, is_windowed)
    low, high = np.quantile(finite, [TAIL, 1 - TAIL], method="nearest")
    return Tones(float(low), float(high), is_windowed)


def measured(lows: NDArray[np.float64], highs: NDArray[np.float64]) -> Ends:
    """The range of a source from the tones of its images, float64 (n,) each. A few images may lie outside of it."""
    low = float(np.quantile(lows, ODD, method="higher"))
    high = float(np.quantile(highs, 1 - ODD, method="lower"))
    return (low, high) if low < high else (float(lows.min()), float(highs.max()))


def bounds(image: Image.Image, grey_range: GreyRange) -> Ends | None:
    """The values of black and white for a deep grey image. None if only `data.range` can tell."""
    limits = _limits(image, grey_range)
    return limits[::-1] if limits and image.info.get(INVERTED) else limits


def _limits(image: Image.Image, grey_range: GreyRange) -> Ends | None:
    """The lowest and highest value that is shown."""
    if isinstance(grey_range, tuple):
        return grey_range
    if grey_range == "dtype":
        return _of_type(image)
    window: Ends | None = image.info.get(WINDOW)
    if window or grey_range is None:
        by_type = _of_type(image)
        return window or (by_type if by_type == UNSIGNED_16 else None)
    low, high, _ = tones(np.asarray(image))
    return low, high


def recorded(value: Any) -> GreyRange:
    """The range that a file of JSON holds. Raises ValueError if it is none."""
    if isinstance(value, list) and len(value) == 2 and all(type(number) in (int, float) for number in value):
        return float(value[0]), float(value[1])
    if value in ("dtype", None):
        return None if value is None else "dtype"
    raise ValueError(f"a grey_range that is not [low, high] or dtype, but {value!r}")


def _of_type(image: Image.Image) -> Ends:
    """The range of the type of an image's pixels."""
    if image.mode == "F":
        return UNIT
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(BITS, (16,))[0] if image.mode == "I" else 16  # PNG and PGM have 16 bits at most
    if tags.get(SAMPLE_FORMAT, (1,))[0] == SIGNED:
        return -float(2 ** (bits - 1)), float(2 ** (bits - 1) - 1)
    return 0.0, float(2**bits - 1)


def to_8_bits(limits: Ends) -> Callable[[Image.Image], Image.Image]:
    """A function that converts a part of a deep grey image to mode L. Values outside of the bounds are clipped."""
    low, high = limits
    scale = 255 / (high - low) if high != low else 1.0

    def convert(part: Image.Image) -> Image.Image:
        grey = np.nan_to_num(np.asarray(part, np.float64), nan=low)
        return Image.fromarray((np.clip((grey - low) * scale, 0, 255) + 0.5).astype(np.uint8))

    return convert
