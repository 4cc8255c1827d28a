"""The small picture by which copies of a picture are known again."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 32  # pixels
BYTES = SIDE * SIDE * 3

Pixels = NDArray[np.uint8]


def draw(image: Image.Image) -> Pixels:
    """Average a picture's blocks: uint8 (SIDE, SIDE, 3) of a picture of mode RGB."""
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX))
