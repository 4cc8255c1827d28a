"""The one decode-and-resize, used alike when data is prepared and when an image is predicted.

It is also the one place that opens an image, so what a stranger's file can do is decided here: it is read as one of
`FORMATS` by its content, whatever its name, and Pillow's other readers are never loaded (that of EPS runs the file as a
program). This file goes into every registered model as a part of its own code (see packaging.py).
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

# The readers of FORMATS that Pillow does not load by itself; were one missing, it would load all that it has.
from PIL import AvifImagePlugin, ExifTags, Image, ImageOps, TiffImagePlugin, UnidentifiedImageError, WebPImagePlugin

Pixels = NDArray[np.uint8]
Resize = Literal["stretch", "crop", "pad"]

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "PPM")  # and HEIC, where pillow-heif is installed
NOT_AN_IMAGE = f"not an image ({', '.join(FORMATS[:-1])} or {FORMATS[-1]})"
READERS = (AvifImagePlugin, TiffImagePlugin, WebPImagePlugin)
HEIC = re.compile(rb"....ftyp(heic|heix|heim|heis|hevc|hevx|mif1|msf1)", re.DOTALL)

MAX_PIXELS = 178_956_970  # Pillow's own bound of a decompression bomb
MAX_BYTES = 10**9  # of an encoded image
STRIP = 2**20  # pixels that are converted at a time, where that takes copies of many bytes a pixel
PIXEL_BYTES, WEBP_BYTES = 10, 16  # of memory that decoding takes for each pixel; seen were 3 to 9.3, and 16.1


class UnreadableImageError(Exception):
    """A file that can't be decoded; the text is the reason in a few words, without the file's name.

    kind: the reason as a word that a program can look for.
    """

    def __init__(self, reason: str, kind: str = "unreadable") -> None:
        super().__init__(reason)
        self.kind = kind


def too_many(width: int, height: int, most: int) -> UnreadableImageError:
    """The error for an image that has more pixels than are read."""
    reason = f"too many pixels: {width}x{height}, and the limit is {most / 1e6:.4g} megapixels"
    return UnreadableImageError(reason, "too_many_pixels")


class LoadedImage(NamedTuple):
    """A decoded image.

    image: upright, of mode RGB, maybe at a fraction of its size; size: the original's width and height, upright;
    orientation: that EXIF names, 1 to 8, already applied.
    """

    image: Image.Image
    size: tuple[int, int]
    orientation: int


class Budget:
    """Bytes that the images which are being decoded may take together; who finds too little left waits.

    total: bytes; an image that wants more than all of them has them to itself. condition, used: what the parties share,
    of `multiprocessing` where they are processes: a condition, and a number in its attribute `value`.
    """

    def __init__(self, total: float, condition: Any = None, used: Any = None) -> None:
        self.total = int(total)
        self._condition = condition if condition is not None else threading.Condition()
        self._used = used if used is not None else SimpleNamespace(value=0)
        self._turn = threading.local()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """A block that decodes an image and keeps it; what that took is free again behind the block."""
        self._turn.held = 0
        try:
            yield
        finally:
            held, self._turn.held = self._turn.held, None
            if held:
                with self._condition:
                    self._used.value -= held
                    self._condition.notify_all()

    def take(self, amount: int) -> None:
        """Take bytes until the end of this thread's turn; outside of a turn nothing is bounded."""
        held = getattr(self._turn, "held", None)
        if held is None:
            return
        amount = min(amount, self.total)
        with self._condition:
            if not held:  # who holds some must not wait for others that may wait for it
                self._condition.wait_for(lambda: self._used.value + amount <= self.total)
            self._used.value += amount
        self._turn.held = held + amount


budget = Budget(2**30)  # of this process's threads; `decoding` gives its workers one in common


def load(source: Path | bytes | IO[bytes], least: int | None = None, most: int = MAX_PIXELS) -> LoadedImage:
    """Decode an image fully.

    most: pixels, width times height; an image that has more is refused before it is decoded.
    least: a JPEG may be decoded at a half, a quarter or an eighth of its size, as long as neither side gets shorter
    than this; that takes a fraction of the time, and all of the file is read nevertheless. None: at its own size.
    EXIF orientation is applied, transparency is laid over white, CMYK and 16-bit grey are converted, and of an
    animation the first frame is taken. Raises UnreadableImageError, and MemoryError where memory is short.
    """
    if isinstance(source, Path):
        source = read_file(source)
    opened = BytesIO(source) if isinstance(source, bytes) else source
    try:
        with Image.open(opened, formats=_formats(opened)) as image:
            width, height = image.size
            if width * height > most:
                raise too_many(width, height, most)
            if least is not None:
                image.draft(None, (least, least))
            is_whole = image.format != "JPEG" or "progressive" in image.info  # which is held whole before it is scaled
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
    except Exception as error:  # whatever a parser of Pillow's trips over in a broken file
        # The text of an operating system's error would name the file.
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        kind = "truncated" if _TRUNCATED.search(reason) else "unreadable"
        raise UnreadableImageError(" ".join(reason.split()) or type(error).__name__, kind) from None


# What Pillow's decoders say of a file that ends too early.
_TRUNCATED = re.compile(r"truncated|premature|broken data stream|unexpected end|not enough", re.IGNORECASE)


def read_file(path: Path | str) -> bytes:
    """The bytes of a regular file. Raises UnreadableImageError for anything else, without waiting at a named pipe."""
    try:
        # Asked before it is opened, since opening a device can do something, and after it, since names can be moved.
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116  a million times, and faster
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


def _formats(opened: IO[bytes]) -> tuple[str, ...]:
    """The formats that a file may be read as. HEIC wants a package of its own, which is loaded for HEIC alone."""
    start = opened.read(12)
    opened.seek(0)
    if not HEIC.match(start):
        return FORMATS
    try:
        import pillow_heif
    except ImportError:
        raise UnreadableImageError("HEIC needs a package: pip install 'frostline[heic]'", "not_an_image") from None
    pillow_heif.register_heif_opener()
    return ("HEIF",)


def decode(source: Path | bytes | IO[bytes]) -> Pixels:
    """Decode an image fully and at its own size, as `load` does: uint8 RGB of shape (height, width, 3)."""
    return np.asarray(load(source).image)


def fit(image: Image.Image, size: int, how: Resize) -> Image.Image:
    """Bring an image of mode RGB to `size` pixels square, bilinear and antialiased.

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


def prepare(source: Path | bytes | IO[bytes], size: int, how: Resize, most: int = MAX_PIXELS) -> Pixels:
    """What the network gets of an image, in training and ever after: uint8 (size, size, 3). most: as `load` says."""
    with budget.turn():
        return np.asarray(fit(load(source, size, most).image, size, how))


def _set_upright(image: Image.Image) -> int:
    """Apply the EXIF orientation; an image whose EXIF data are broken is left as it lies, as viewers show it."""
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
    """An image converted to a mode some rows at a time, so that what `convert` needs in between stays small."""
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
    """What makes 8-bit grey of a part of a 16-bit or float image."""
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
