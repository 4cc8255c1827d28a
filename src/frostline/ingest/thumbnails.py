"""The small picture by which copies of a picture are known again."""

from __future__ import annotations

import numpy as np
from PIL import Image

from frostline.data.images import Pixels

SIDE = 32  # pixels
BYTES = SIDE * SIDE * 3


def draw(image: Image.Image) -> Pixels:
    """Average a picture's blocks: uint8 (SIDE, SIDE, 3) of a picture of mode RGB."""
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX))
