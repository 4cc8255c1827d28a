"""The one decode-and-resize, used alike when data is prepared and when a picture is predicted."""

from __future__ import annotations

import hashlib
import re
from io import BytesIO
from pathlib import Path
from typing import IO, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

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


class Picture(NamedTuple):
    """A decoded picture.

    image: upright, of mode RGB, maybe at a fraction of its size; size: the original's width and height, upright;
    orientation: that EXIF names, 1 to 8, already applied.
    """

    image: Image.Image
    size: tuple[int, int]
    orientation: int


def load(source: Path | bytes | IO[bytes], least: int | None = None) -> Picture:
    """Decode a picture fully.

    least: a JPEG may be decoded at a half, a quarter or an eighth of its size, as long as neither side gets shorter
    than this; that takes a fraction of the time, and all of the file is read nevertheless. None: at its own size.
    EXIF orientation is applied, transparency is laid over white, CMYK and 16-bit grey are converted, and of an
    animation the first frame is taken. Raises UnreadableImageError, and MemoryError where memory is short.
    """
    opened = BytesIO(source) if isinstance(source, bytes) else source
    try:
        with Image.open(opened) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise UnreadableImageError(f"{width}x{height} pixels are too many", "too_many_pixels")
            if least is not None:
                image.draft(None, (least, least))
            image.load()
            orientation = _set_upright(image)
            return Picture(_rgb(image), (height, width) if orientation > 4 else (width, height), orientation)
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
    """Decode a picture fully and at its own size, as `load` does: uint8 RGB of shape (height, width, 3)."""
    return np.asarray(load(source).image)


def fit(image: Image.Image, size: int, how: Resize) -> Image.Image:
    """Bring a picture of mode RGB to `size` pixels square, bilinear and antialiased.

    `stretch` ignores the aspect ratio, `crop` cuts the longer side's ends, `pad` fills the shorter side with black.
    """
    box = (size, size)
    if image.size == box:
        return image
    if how == "stretch":
        return image.resize(box, Image.Resampling.BILINEAR)
    return (ImageOps.fit if how == "crop" else ImageOps.pad)(image, box, Image.Resampling.BILINEAR)


def resize(pixels: Pixels, size: int, how: Resize) -> Pixels:
    """As `fit`, of uint8 (height, width, 3) to uint8 (size, size, 3)."""
    return np.asarray(fit(Image.fromarray(pixels), size, how))


def prepare(source: Path | bytes | IO[bytes], size: int, how: Resize) -> Pixels:
    """What the network gets of a picture, in training and ever after: uint8 (size, size, 3)."""
    return np.asarray(fit(load(source, size).image, size, how))


def _set_upright(image: Image.Image) -> int:
    """Apply the EXIF orientation; a picture whose EXIF data are broken is left as it lies, as viewers show it."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        ImageOps.exif_transpose(image, in_place=True)
    except MemoryError:
        raise
    except Exception:
        return 1
    return orientation if orientation in range(1, 9) else 1


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


def jpeg_digest(data: bytes, orientation: int) -> bytes | None:
    """SHA-256 of what fixes a JPEG's pixels: its orientation and its segments, without those that only say things.

    So a comment or a date that is added changes nothing. None where it is no JPEG. Source of the format: ITU-T T.81,
    annex B.
    """
    if data[:3] != b"\xff\xd8\xff":
        return None
    sha = hashlib.sha256(b"JPEG" + bytes([orientation]))
    place = 2
    while data[place : place + 1] == b"\xff" and (marker := data[place + 1 : place + 2]) not in (b"", b"\xda"):
        if marker == b"\xff":  # a byte of filling
            place += 1
            continue
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        # Application data and comments, but Adobe's, which says how colours are coded.
        if not (0xE0 <= marker[0] <= 0xEF or marker == b"\xfe") or marker == b"\xee":
            sha.update(data[place:end])
        place = end
    sha.update(data[place:])
    return sha.digest()
