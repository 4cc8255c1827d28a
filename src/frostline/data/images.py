"""Decode and resize images, in the same way for preparing data and for prediction.

Only this module opens images, so it protects against hostile files: a file is read as one of `FORMATS` by its content,
whatever its name, and Pillow's other readers are never loaded (the one for EPS runs the file as a program). Every
registered model contains a copy of this file (see packaging.py), so it imports only files that are copied with it.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

# The readers of FORMATS that Pillow does not load by default. If one were missing, Pillow would load all its readers.
from PIL import AvifImagePlugin, ExifTags, Image, ImageOps, TiffImagePlugin, UnidentifiedImageError, WebPImagePlugin

from . import deep_grey, dicom
from .deep_grey import GreyRange
from .memory_budget import Budget

Pixels = NDArray[np.uint8]
Resize = Literal["stretch", "crop", "pad"]

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "PPM")  # and HEIC and DICOM, with the extras
NOT_AN_IMAGE = f"not an image ({', '.join(FORMATS[:-1])} or {FORMATS[-1]})"
READERS = (AvifImagePlugin, TiffImagePlugin, WebPImagePlugin)
HEIC = re.compile(rb"....ftyp(heic|heix|heim|heis|hevc|hevx|mif1|msf1)", re.DOTALL)

MAX_PIXELS = 178_956_970  # Pillow's own limit for decompression bombs
MAX_BYTES = 10**9  # of an encoded image
STRIP = 2**20  # pixels that are converted at a time, if the conversion needs copies of many bytes per pixel
PIXEL_BYTES, WEBP_BYTES = 10, 16  # memory per pixel for decoding; measured were 3 to 9.3, and 16.1


class UnreadableImageError(Exception):
    """A file that can't be decoded. The text is a short reason, without the name of the file.

    kind: the reason as a word for programs.
    """

    def __init__(self, reason: str, kind: str = "unreadable") -> None:
        super().__init__(reason)
        self.kind = kind


def too_many(width: int, height: int, most: int) -> UnreadableImageError:
    """The error for an image with more than `most` pixels."""
    reason = f"too many pixels: {width}x{height}, and the limit is {most / 1e6:.4g} megapixels"
    return UnreadableImageError(reason, "too_many_pixels")


class LoadedImage(NamedTuple):
    """A decoded image.

    image: upright, of mode RGB, possibly at a fraction of its size; size: width and height of the original, upright;
    orientation: the EXIF orientation, 1 to 8, already applied; deep: the grey values at their own depth (height, width)
    if they have more than 8 bits; is_windowed: whether the file says which of them are shown; has_deep_colour: whether
    the file has 16 bits for each colour, of which the upper 8 were read.
    """

    image: Image.Image
    size: tuple[int, int]
    orientation: int
    deep: NDArray[Any] | None = None
    is_windowed: bool = False
    has_deep_colour: bool = False


budget = Budget(2**30)  # for the threads of this process; `decoding` replaces it by one for all its workers


def load(
    source: Path | bytes | IO[bytes],
    least: int | None = None,
    most: int = MAX_PIXELS,
    grey_range: GreyRange = None,
) -> LoadedImage:
    """Decode an image completely.

    most: pixels, width times height; an image with more pixels is refused before it is decoded. least: a JPEG may be
    decoded at a half, a quarter or an eighth of its size, if neither side gets shorter than this. This takes a fraction
    of the time, but still reads the whole file. None: at its own size. grey_range: for grey images of more than 8 bits.

    The EXIF orientation is applied, transparent images are laid over white, CMYK and deep grey are converted, and
    only the first frame of an animation is used. Raises UnreadableImageError, and MemoryError if there is not enough
    memory.
    """
    if isinstance(source, Path):
        source = read_file(source)
    file = BytesIO(source) if isinstance(source, bytes) else source
    try:
        with _opened(file, most) as image:
            width, height = image.size
            _require_size(width, height, most)
            if least is not None:
                image.draft(None, (least, least))
            is_whole = (
                image.format != "JPEG" or "progressive" in image.info
            )  # a progressive JPEG is in memory as a whole before it is scaled
            pixels = width * height if is_whole else image.size[0] * image.size[1]
            budget.take(pixels * (WEBP_BYTES if image.format == "WEBP" else PIXEL_BYTES))
            has_deep_colour = deep_grey.has_deep_colour(image)
            image.load()
            orientation = _set_upright(image)
            size = (height, width) if orientation > 4 else (width, height)
            if not deep_grey.is_deep(image):
                return LoadedImage(_rgb(image), size, orientation, has_deep_colour=has_deep_colour)
            values, is_windowed = np.asarray(image), deep_grey.WINDOW in image.info
            return LoadedImage(_rgb(_from_deep(image, grey_range)), size, orientation, values, is_windowed)
    except (UnreadableImageError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise UnreadableImageError("not an image (empty)" if source == b"" else NOT_AN_IMAGE, "not_an_image") from None
    except Image.DecompressionBombError:
        raise UnreadableImageError("too many pixels", "too_many_pixels") from None
    except Exception as error:  # Pillow's parsers raise many kinds of errors for broken files
        # `strerror`, because the whole text of an operating system's error contains the name of the file.
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        kind = "truncated" if _TRUNCATED.search(reason) else "unreadable"
        raise UnreadableImageError(" ".join(reason.split()) or type(error).__name__, kind) from None


# Messages of Pillow's decoders for a file that ends too early.
_TRUNCATED = re.compile(r"truncated|premature|broken data stream|unexpected end|not enough", re.IGNORECASE)


def read_file(path: Path | str) -> bytes:
    """The bytes of a regular file. Raises UnreadableImageError for anything else. A named pipe does not block it."""
    try:
        # Check before opening, since opening a device can have effects, and after it, since a file can be replaced.
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116  faster, and called a million times
            raise UnreadableImageError("not a regular file", "not_a_file")
        with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise UnreadableImageError("not a regular file", "not_a_file")
            if status.st_size > MAX_BYTES:
                raise UnreadableImageError(f"holds more than {MAX_BYTES // 10**9} GB", "too_large")
            return file.read(MAX_BYTES)
    except FileNotFoundError:
        raise UnreadableImageError("no such file", "missing") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise UnreadableImageError(getattr(error, "strerror", None) or "not the name of a file") from None


def _opened(file: IO[bytes], most: int) -> Image.Image:
    """The image in a file, not yet decoded if Pillow reads it. most: see `load`."""
    if not dicom.is_dicom(file):
        return Image.open(file, formats=_formats(file))

    def require(width: int, height: int) -> None:
        _require_size(width, height, most)
        budget.take(width * height * PIXEL_BYTES)

    try:
        return dicom.read(file, require)
    except ImportError:
        raise UnreadableImageError(dicom.INSTALL, "not_an_image") from None


def _require_size(width: int, height: int, most: int) -> None:
    if width * height > most:
        raise too_many(width, height, most)


def _formats(file: IO[bytes]) -> tuple[str, ...]:
    """The formats as which a file may be read. HEIC needs an extra package, which is only loaded for HEIC files."""
    start = file.read(12)
    file.seek(0)
    if not HEIC.match(start):
        return FORMATS
    try:
        import pillow_heif
    except ImportError:
        raise UnreadableImageError("HEIC needs a package: pip install 'frostline[heic]'", "not_an_image") from None
    pillow_heif.register_heif_opener()
    return ("HEIF",)


def decode(source: Path | bytes | IO[bytes]) -> Pixels:
    """Decode an image at its own size, see `load`: uint8 RGB of shape (height, width, 3)."""
    return np.asarray(load(source).image)


def fit(image: Image.Image, size: int, how: Resize) -> Image.Image:
    """Resize an image of mode RGB to a square of `size` pixels a side, bilinear and antialiased.

    how: `stretch` ignores the aspect ratio, `crop` cuts off the ends of the longer side, `pad` adds black to the
    shorter side.
    """
    box = (size, size)
    if image.size == box:
        return image
    if how == "stretch":
        return image.resize(box, Image.Resampling.BILINEAR)
    return (ImageOps.fit if how == "crop" else ImageOps.pad)(image, box, Image.Resampling.BILINEAR)


def resize(pixels: Pixels, size: int, how: Resize) -> Pixels:
    """Like `fit`, for arrays: uint8 (height, width, 3) to uint8 (size, size, 3)."""
    return np.asarray(fit(Image.fromarray(pixels), size, how))


def prepare(
    source: Path | bytes | IO[bytes],
    size: int,
    how: Resize,
    most: int = MAX_PIXELS,
    grey_range: GreyRange = None,
) -> Pixels:
    """Decode and resize an image for training or prediction: uint8 (size, size, 3). most, grey_range: see `load`."""
    with budget.turn():
        return np.asarray(fit(load(source, size, most, grey_range).image, size, how))


def _set_upright(image: Image.Image) -> int:
    """Apply the EXIF orientation and return it. If the EXIF data are broken, the image stays as it is."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        ImageOps.exif_transpose(image, in_place=True)
    except MemoryError:
        raise
    except Exception:
        return 1
    return orientation if orientation in range(1, 9) else 1


def _from_deep(image: Image.Image, grey_range: GreyRange) -> Image.Image:
    """A deep grey image as one of mode L."""
    limits = deep_grey.bounds(image, grey_range)
    if limits is None:
        raise UnreadableImageError(
            "has values of more than 16 bits, or signed or fractional ones, and no range says which of them are black "
            "and white; set data.range and train again",
            "no_range",
        )
    return _in_strips(image, "L", deep_grey.to_8_bits(limits))


def _rgb(image: Image.Image) -> Image.Image:
    """Convert any of Pillow's modes with 8 bits to RGB."""
    if image.has_transparency_data:
        return _in_strips(image, "RGB", _over_white)
    return image if image.mode == "RGB" else image.convert("RGB")  # converting would copy it


def _in_strips(image: Image.Image, mode: str, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """An image converted to a mode a few rows at a time, so that `convert` needs little memory."""
    out = Image.new(mode, image.size)
    for top, part in _strips(image):
        out.paste(convert(part), (0, top))
    return out


def _strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    width, height = image.size
    rows = max(1, STRIP // width)
    for top in range(0, height, rows):
        yield top, image.crop((0, top, width, min(top + rows, height)))


def _over_white(part: Image.Image) -> Image.Image:
    part = part.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", part.size, "white"), part).convert("RGB")
