"""The small picture by which copies of a picture are known again."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 32  # pixels
BYTES = SIDE * SIDE * 3

Pixels = NDArray[np.uint8]


def draw(pixels: Pixels) -> Pixels:
    """Average a picture's blocks: uint8 (height, width, 3) to (SIDE, SIDE, 3)."""
    return np.asarray(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BOX))
