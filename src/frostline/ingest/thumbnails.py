"""The small image by which copies of an image are known again."""

from __future__ import annotations

import numpy as np
from PIL import Image

from frostline.data.images import Pixels

SIDE = 32  # pixels
BYTES = SIDE * SIDE * 3


def draw(image: Image.Image) -> Pixels:
    """Average an image's blocks: uint8 (SIDE, SIDE, 3) of an image of mode RGB."""
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX))
