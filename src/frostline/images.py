"""The one decode-and-resize, used alike when data is prepared and when a picture is predicted."""

from __future__ import annotations

import re
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
    """A file that can't be decoded; the text is the reason in a few words, without the file's name.

    kind: the reason as a word that a program can look for.
    """

    def __init__(self, reason: str, kind: str = "unreadable") -> None:
        super().__init__(reason)
        self.kind = kind


def load(source: Path | bytes | IO[bytes]) -> Image.Image:
    """Decode a picture fully, in mode RGB.

    EXIF orientation is applied, transparency is laid over white, CMYK and 16-bit grey are converted, and of an
    animation the first frame is taken. Raises UnreadableImageError, and MemoryError where memory is short.
    """
    opened = BytesIO(source) if isinstance(source, bytes) else source
    try:
        with Image.open(opened) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UnreadableImageError(f"{image.width}x{image.height} pixels are too many", "too_many_pixels")
            image.load()
            _set_upright(image)
            return _rgb(image)
    except (UnreadableImageError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise UnreadableImageError(f"not an image{' (empty)' if _is_empty(source) else ''}", "not_an_image") from None
    except Image.DecompressionBombError:
        raise UnreadableImageError("too many pixels", "too_many_pixels") from None
    except Exception as error:  # whatever a parser of Pillow's trips over in a broken file
        # The text of an operating system's error would name the file.
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        kind = "truncated" if _TRUNCATED.search(reason) else "unreadable"
        raise UnreadableImageError(" ".join(reason.split()) or type(error).__name__, kind) from None


# What Pillow's decoders say of a file that ends too early.
_TRUNCATED = re.compile(r"truncated|premature|broken data stream|unexpected end|not enough", re.IGNORECASE)


def _is_empty(source: Path | bytes | IO[bytes]) -> bool:
    return source.stat().st_size == 0 if isinstance(source, Path) else source == b""


def decode(source: Path | bytes | IO[bytes]) -> Pixels:
    """As `load`, as uint8 RGB of shape (height, width, 3)."""
    return np.asarray(load(source))


def resize(picture: Pixels | Image.Image, size: int, how: Resize) -> Pixels:
    """Bring a picture, uint8 (height, width, 3) or of mode RGB, to uint8 (size, size, 3), bilinear and antialiased.

    `stretch` ignores the aspect ratio, `crop` cuts the longer side's ends, `pad` fills the shorter side with black.
    """
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    box = (size, size)
    if image.size == box:
        return np.asarray(picture)
    if how == "stretch":
        image = image.resize(box, Image.Resampling.BILINEAR)
    elif how == "crop":
        image = ImageOps.fit(image, box, Image.Resampling.BILINEAR)
    else:
        image = ImageOps.pad(image, box, Image.Resampling.BILINEAR)
    return np.asarray(image)


def _set_upright(image: Image.Image) -> None:
    """Apply the EXIF orientation; a picture whose EXIF data are broken is left as it lies, as viewers show it."""
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except MemoryError:
        raise
    except Exception:
        return


def _rgb(image: Image.Image) -> Image.Image:
    """Convert any of Pillow's modes to RGB."""
    if image.mode.startswith("I") or image.mode == "F":  # 16-bit and float grey; Pillow itself would clip to 255
        grey = np.asarray(image, np.float64)
        top = 65535.0 if image.mode != "F" else max(float(np.nanmax(grey, initial=1.0)), 1e-12)
        image = Image.fromarray((np.clip(np.nan_to_num(grey) / top, 0, 1) * 255 + 0.5).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")  # converting would copy it
