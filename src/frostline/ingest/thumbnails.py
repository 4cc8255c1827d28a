"""Thumbnails: small images by which near-copies are recognised."""

from __future__ import annotations

import numpy as np
from PIL import Image

from frostline.data.images import Pixels

SIDE = 32  # pixels
BYTES = SIDE * SIDE * 3


def draw(image: Image.Image) -> Pixels:
    """The thumbnail of an image of mode RGB: averages of its blocks, uint8 (SIDE, SIDE, 3)."""
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX))
