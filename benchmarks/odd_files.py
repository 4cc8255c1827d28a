"""Files of images that decoders and resizers treat differently, made from one picture: for exports.py and the tests."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, ImageCms

ORIENTATION = 0x0112
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
)


def corpus(picture: Image.Image) -> dict[str, bytes]:
    """The files by name. picture: of mode RGB, best not square."""
    return {
        **_turned(picture),
        **_jpegs(picture),
        **_pngs(picture),
        **_sizes(picture),
        **_others(picture),
        **_broken(picture),
    }


def coded(image: Image.Image, form: str, **options: Any) -> bytes:
    """The bytes of an image in one of Pillow's formats."""
    file = BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def _turned(picture: Image.Image) -> dict[str, bytes]:
    files = {}
    for number in range(1, 9):
        exif = Image.Exif()
        exif[ORIENTATION] = number
        exif[0x010F] = "a maker"
        files[f"exif {number}.jpg"] = coded(picture, "JPEG", exif=exif)
        files[f"exif {number}.png"] = coded(picture, "PNG", exif=exif)
    big = Image.Exif()
    big.endian = ">"
    big[ORIENTATION] = 8
    wrong = Image.Exif()
    wrong[ORIENTATION] = 9
    return files | {
        "exif big-endian.jpg": coded(picture, "JPEG", exif=big),
        "exif out of range.jpg": coded(picture, "JPEG", exif=wrong),
        "orientation in XMP.jpg": coded(picture, "JPEG", xmp=XMP),
    }


def _jpegs(picture: Image.Image) -> dict[str, bytes]:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    plain = coded(picture, "JPEG", quality=92)
    return {
        "4:4:4.jpg": coded(picture, "JPEG", subsampling=0),
        "4:2:2.jpg": coded(picture, "JPEG", subsampling=1),
        "4:2:0.jpg": coded(picture, "JPEG", subsampling=2),
        "quality 5.jpg": coded(picture, "JPEG", quality=5),
        "quality 100.jpg": coded(picture, "JPEG", quality=100),
        "progressive.jpg": coded(picture, "JPEG", progressive=True),
        "grey.jpg": coded(picture.convert("L"), "JPEG"),
        "CMYK.jpg": coded(picture.convert("CMYK"), "JPEG"),
        "ICC.jpg": coded(picture, "JPEG", icc_profile=profile),
        "comment.jpg": coded(picture, "JPEG", comment=b"Exif" * 100),
        "restart markers.jpg": coded(picture, "JPEG", restart_marker_blocks=4),
        "bytes after the end.jpg": plain + b"\xff\xc0\x00\x0b\x08" + bytes(99),
    }


def _pngs(picture: Image.Image) -> dict[str, bytes]:
    grey = picture.convert("L")
    alpha = Image.fromarray(np.linspace(0, 255, grey.width * grey.height).reshape(grey.size[::-1]).astype(np.uint8))
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257 + 3)
    palette = picture.quantize(16)
    rgba = Image.merge("RGBA", (*picture.split(), alpha))
    first = picture.getpixel((0, 0))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return {
        "plain.png": coded(picture, "PNG"),
        "grey.png": coded(grey, "PNG"),
        "1 bit.png": coded(grey.convert("1"), "PNG"),
        "2 bits.png": coded(picture.quantize(4), "PNG", bits=2),
        "palette.png": coded(palette, "PNG"),
        "palette of 256.png": coded(picture.quantize(256), "PNG"),
        "transparent palette.png": coded(palette, "PNG", transparency=3),
        "transparent colour.png": coded(picture, "PNG", transparency=first),
        "transparent grey.png": coded(grey, "PNG", transparency=grey.getpixel((0, 0))),
        "alpha.png": coded(rgba, "PNG"),
        "grey with alpha.png": coded(Image.merge("LA", (grey, alpha)), "PNG"),
        "16-bit grey.png": coded(deep, "PNG"),
        "16-bit colour.png": deep_colour(np.asarray(picture)),
        "ICC.png": coded(picture, "PNG", icc_profile=profile),
        "gamma.png": with_chunk(coded(picture, "PNG"), b"gAMA", struct.pack(">I", 100_000)),
    }


def with_chunk(png: bytes, kind: bytes, data: bytes) -> bytes:
    """A PNG with one more chunk behind its header."""
    return png[:33] + _chunk(kind, data) + png[33:]


def deep_colour(pixels: np.ndarray) -> bytes:
    """A PNG of 16 bits a colour, which Pillow does not write. pixels: uint8 (height, width, 3)."""
    height, width, _ = pixels.shape
    values = (pixels.astype(np.uint16) * 257 ^ 5).astype(">u2").reshape(height, -1).view(np.uint8)
    lines = np.hstack([np.zeros((height, 1), np.uint8), values]).tobytes()
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    chunks = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(lines)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _sizes(picture: Image.Image) -> dict[str, bytes]:
    sides = [(1, 1), (1, 400), (400, 1), (3, 2), (31, 33), (64, 64), (101, 97), (30, 900), (900, 30)]
    files = {f"{w}x{h}.png": coded(picture.resize((w, h)), "PNG") for w, h in sides}
    return files | {
        "6000x4000.jpg": coded(picture.resize((6000, 4000), Image.Resampling.BICUBIC), "JPEG"),
        "1501x2003.jpg": coded(picture.resize((1501, 2003), Image.Resampling.BICUBIC), "JPEG"),
        "3000x2000.png": coded(picture.resize((3000, 2000), Image.Resampling.BICUBIC), "PNG", compress_level=1),
    }


def _others(picture: Image.Image) -> dict[str, bytes]:
    return {
        "lossless.webp": coded(picture, "WEBP", lossless=True),
        "plain.gif": coded(picture.quantize(64), "GIF"),
        "plain.bmp": coded(picture, "BMP"),
        "plain.tiff": coded(picture, "TIFF"),
    }


def _broken(picture: Image.Image) -> dict[str, bytes]:
    jpeg, png = coded(picture, "JPEG"), coded(picture, "PNG")
    return {
        "cut off.jpg": jpeg[: len(jpeg) // 2],
        "cut off.png": png[: len(png) // 2],
        "header alone.jpg": jpeg[:200],
        "empty.jpg": b"",
        "text.jpg": b"no image at all",
    }
