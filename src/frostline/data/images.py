"""Decode and resize images, in the same way for preparing data and for prediction.

Only this module opens images, so it protects against hostile files: a file is read as one of `FORMATS` by its content,
whatever its name, and Pillow's other readers are never loaded (the one for EPS runs the file as a program). Every
registered model contains a copy of this file (see packaging.py).
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

# The readers of FORMATS that Pillow does not load by default. If one were missing, Pillow would load all its readers.
from PIL import AvifImagePlugin, ExifTags, Image, ImageOps, TiffImagePlugin, UnidentifiedImageError, WebPImagePlugin

Pixels = NDArray[np.uint8]
Resize = Literal["stretch", "crop", "pad"]

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "PPM")  # and HEIC, if pillow-heif is installed
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
    orientation: the EXIF orientation, 1 to 8, already applied.
    """

    image: Image.Image
    size: tuple[int, int]
    orientation: int


class Budget:
    """Limits the memory of all images that are decoded at the same time. A thread waits until there is enough.

    total: bytes; an image that needs more is decoded alone. condition, used: a condition and an object with the number
    of used bytes in its attribute `value`, shared by all threads, or by all processes if they are of `multiprocessing`.
    """

    def __init__(self, total: float, condition: Any = None, used: Any = None) -> None:
        self.total = int(total)
        self._condition = condition if condition is not None else threading.Condition()
        self._used = used if used is not None else SimpleNamespace(value=0)
        self._turn = threading.local()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """A block that decodes and uses an image. Its memory counts as free again after the block."""
        self._turn.amount = 0
        try:
            yield
        finally:
            amount, self._turn.amount = self._turn.amount, None
            if amount:
                with self._condition:
                    self._used.value -= amount
                    self._condition.notify_all()

    def take(self, amount: int) -> None:
        """Take bytes until the end of this thread's turn. Outside of a turn there is no limit."""
        earlier_amount = getattr(self._turn, "amount", None)
        if earlier_amount is None:
            return
        amount = min(amount, self.total)
        with self._condition:
            if not earlier_amount:  # a thread that has bytes must not wait for threads that may wait for it
                self._condition.wait_for(lambda: self._used.value + amount <= self.total)
            self._used.value += amount
        self._turn.amount = earlier_amount + amount


budget = Budget(2**30)  # for the threads of this process; `decoding` replaces it by one for all its workers


def load(source: Path | bytes | IO[bytes], least: int | None = None, most: int = MAX_PIXELS) -> LoadedImage:
    """Decode an image completely.

    most: pixels, width times height; an image with more pixels is refused before it is decoded. least: a JPEG may be
    decoded at a half, a quarter or an eighth of its size, if neither side gets shorter than this. This takes a fraction
    of the time, but still reads the whole file. None: at its own size.

    The EXIF orientation is applied, transparent images are laid over white, CMYK and 16-bit grey are converted, and
    only the first frame of an animation is used. Raises UnreadableImageError, and MemoryError if there is not enough
    memory.
    """
    if isinstance(source, Path):
        source = read_file(source)
    file = BytesIO(source) if isinstance(source, bytes) else source
    try:
        with Image.open(file, formats=_formats(file)) as image:
            width, height = image.size
            if width * height > most:
                raise too_many(width, height, most)
            if least is not None:
                image.draft(None, (least, least))
            is_whole = (
                image.format != "JPEG" or "progressive" in image.info
            )  # a progressive JPEG is in memory as a whole before it is scaled
            pixels = width * height if is_whole else image.size[0] * image.size[1]
            budget.take(pixels * (WEBP_BYTES if image.format == "WEBP" else PIXEL_BYTES))
            image.load()
            orientation = _set_upright(image)
            return LoadedImage(_rgb(image), (height, width) if orientation > 4 else (width, height), orientation)
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


def prepare(source: Path | bytes | IO[bytes], size: int, how: Resize, most: int = MAX_PIXELS) -> Pixels:
    """Decode and resize an image for training or prediction: uint8 (size, size, 3). most: see `load`."""
    with budget.turn():
        return np.asarray(fit(load(source, size, most).image, size, how))


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


def _rgb(image: Image.Image) -> Image.Image:
    """Convert any of Pillow's modes to RGB."""
    if image.mode.startswith("I") or image.mode == "F":  # 16-bit and float grey; Pillow itself would clip to 255
        image = _in_strips(image, "L", _grey(image))
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


def _grey(image: Image.Image) -> Callable[[Image.Image], Image.Image]:
    """A function that converts a part of a 16-bit or float image to 8-bit grey."""
    top = 65535.0
    if image.mode == "F":
        top = max(float(np.nanmax(np.asarray(part), initial=1.0)) for _, part in _strips(image))

    def convert(part: Image.Image) -> Image.Image:
        grey = np.asarray(part, np.float64)
        return Image.fromarray((np.clip(np.nan_to_num(grey) / top, 0, 1) * 255 + 0.5).astype(np.uint8))

    return convert


def _over_white(part: Image.Image) -> Image.Image:
    part = part.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", part.size, "white"), part).convert("RGB")


def jpeg_digest(data: bytes, orientation: int) -> bytes | None:
    """SHA-256 of the parts of a JPEG that its pixels depend on: the orientation, and all segments except metadata.

    So adding a comment or a date does not change it. None if the file is not a JPEG. Source of the format: ITU-T T.81,
    annex B.
    """
    if data[:3] != b"\xff\xd8\xff":
        return None
    sha = hashlib.sha256(b"JPEG" + bytes([orientation]))
    place = 2
    while data[place : place + 1] == b"\xff" and (marker := data[place + 1 : place + 2]) not in (b"", b"\xda"):
        if marker == b"\xff":  # a fill byte
            place += 1
            continue
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        # Skip application data and comments, except Adobe's segment, which says how colours are coded.
        if not (0xE0 <= marker[0] <= 0xEF or marker == b"\xfe") or marker == b"\xee":
            sha.update(data[place:end])
        place = end
    sha.update(data[place:])
    return sha.digest()
