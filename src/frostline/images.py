"""The one decode-and-resize, used alike when data is prepared and when a picture is predicted."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import IO, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

Pixels = NDArray[np.uint8]
Resize = Literal["stretch", "crop", "pad"]

MAX_PIXELS = 178_956_970  # Pillow's own bound of a decompression bomb: a gigabyte of RGB


class UnreadableImageError(Exception):
    """A file that can't be decoded; the text is the reason in a few words, without the file's name."""


def decode(source: Path | bytes | IO[bytes]) -> Pixels:
    """Decode a picture fully to uint8 RGB of shape (height, width, 3).

    EXIF orientation is applied, transparency is laid over white, CMYK and 16-bit grey are converted, and of an
    animation the first frame is taken. Raises UnreadableImageError, and MemoryError where memory is short.
    """
    opened = BytesIO(source) if isinstance(source, bytes) else source
    try:
        with Image.open(opened) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UnreadableImageError(f"{image.width}x{image.height} pixels are too many")
            image.load()
            return np.asarray(_rgb(_upright(image)))
    except (UnreadableImageError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise UnreadableImageError("not an image") from None
    except Image.DecompressionBombError:
        raise UnreadableImageError("too many pixels") from None
    except Exception as error:  # whatever a parser of Pillow's trips over in a broken file
        # The text of an operating system's error would name the file.
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        raise UnreadableImageError(" ".join(reason.split()) or type(error).__name__) from None


def resize(pixels: Pixels, size: int, how: Resize) -> Pixels:
    """Bring uint8 (height, width, 3) to (size, size, 3), bilinear and antialiased.

    `stretch` ignores the aspect ratio, `crop` cuts the longer side's ends, `pad` fills the shorter side with black.
    """
    image, box = Image.fromarray(pixels), (size, size)
    if image.size == box:
        return pixels
    if how == "stretch":
        image = image.resize(box, Image.Resampling.BILINEAR)
    elif how == "crop":
        image = ImageOps.fit(image, box, Image.Resampling.BILINEAR)
    else:
        image = ImageOps.pad(image, box, Image.Resampling.BILINEAR)
    return np.asarray(image)


def _upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation; a picture whose EXIF data are broken is left as it lies, as viewers show it."""
    try:
        return ImageOps.exif_transpose(image)
    except MemoryError:
        raise
    except Exception:
        return image


def _rgb(image: Image.Image) -> Image.Image:
    """Convert any of Pillow's modes to RGB."""
    if image.mode.startswith("I") or image.mode == "F":  # 16-bit and float grey; Pillow itself would clip to 255
        grey = np.asarray(image, np.float64)
        top = 65535.0 if image.mode != "F" else max(float(np.nanmax(grey, initial=1.0)), 1e-12)
        image = Image.fromarray((np.clip(np.nan_to_num(grey) / top, 0, 1) * 255 + 0.5).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")
