"""Read DICOM files, with the package pydicom, which is an extra.

The values are rescaled to those that the file means, such as Hounsfield units. Every registered model contains a copy
of this file (see packaging.py), so it imports only deep_grey.py.

Source: DICOM PS3.3, C.11.1 (rescale slope and intercept), C.11.2 (window) and C.7.6.3 (photometric interpretation).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import IO, Any

import numpy as np
from PIL import Image

from .deep_grey import INVERTED, WINDOW

PREAMBLE, MAGIC = 128, b"DICM"
INSTALL = "DICOM needs a package: pip install 'frostline[dicom]'"


def is_dicom(file: IO[bytes]) -> bool:
    """Whether a file is a DICOM file. The position in the file is 0 afterwards."""
    file.seek(PREAMBLE)
    magic = file.read(len(MAGIC))
    file.seek(0)
    return magic == MAGIC


def read(file: IO[bytes], require: Callable[[int, int], None]) -> Image.Image:
    """The first frame of a DICOM file, of mode F with the rescaled values, or RGB.

    The image's `info` has the window that the file names, and whether its lowest value is white. require: is called
    with width and height before anything is decoded. Raises ImportError without pydicom, and pydicom's errors for
    broken files.
    """
    import pydicom
    from pydicom.pixels import apply_modality_lut, convert_color_space, pixel_array

    dataset = pydicom.dcmread(file)
    require(int(dataset.Columns), int(dataset.Rows))
    colours = str(dataset.PhotometricInterpretation)
    first = 0 if int(dataset.get("NumberOfFrames") or 1) > 1 else None
    values = pixel_array(dataset, index=first)
    if colours == "PALETTE COLOR":
        raise ValueError("DICOM with a palette is not supported; convert it to PNG")
    if int(dataset.SamplesPerPixel) == 3:
        rgb = values if colours == "RGB" else convert_color_space(values, colours, "RGB")
        return Image.fromarray(np.ascontiguousarray(rgb, np.uint8))
    image = Image.fromarray(np.asarray(apply_modality_lut(values, dataset), np.float32))
    if window := _window(dataset):
        image.info[WINDOW] = window
    image.info[INVERTED] = colours == "MONOCHROME1"
    return image


def _window(dataset: Any) -> tuple[float, float] | None:
    """The lowest and highest value of the first window of the file, None if it names none."""
    centre, width = (_first(dataset.get(key)) for key in ("WindowCenter", "WindowWidth"))
    if centre is None or width is None or width <= 1:
        return None
    if str(dataset.get("VOILUTFunction") or "LINEAR") != "LINEAR":
        return centre - width / 2, centre + width / 2
    return centre - width / 2, centre - 1 + width / 2


def _first(value: Any) -> float | None:
    """The first of one or more numbers, as pydicom has them."""
    if value is None or value == "":
        return None
    try:
        return float(value)
    except TypeError:
        return float(value[0]) if len(value) else None
