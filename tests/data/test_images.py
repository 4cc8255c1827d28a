"""Every common kind of image is decoded, and every other file gets a reason."""

from __future__ import annotations

import ast
import os
import struct
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from frostline.data import images
from frostline.data.images import FORMATS, UnreadableImageError, decode, load, prepare, resize
from frostline.data.memory_budget import Budget

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


@pytest.fixture
def image() -> NDArray[np.uint8]:
    """uint8 (4, 6, 3), all pixels different."""
    return np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)


def encode(image: Image.Image | NDArray[Any], kind: str, **options: Any) -> bytes:
    out = BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(out, kind, **options)
    return out.getvalue()


def png(width: int, height: int) -> bytes:
    """A PNG with this size in its header, but hardly any pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_come_back_exactly(image: NDArray[np.uint8], kind: str) -> None:
    pixels = decode(encode(image, kind))
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, image)


def test_webp_and_jpeg_are_decoded(image: NDArray[np.uint8]) -> None:
    np.testing.assert_array_equal(decode(encode(image, "WEBP", lossless=True)), image)
    assert decode(encode(np.full((8, 8, 3), 77, np.uint8), "JPEG")).tolist() == [[[77] * 3] * 8] * 8


def test_heic_is_decoded() -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    stream = BytesIO()
    pillow_heif.from_pillow(photo(9)).save(stream, quality=90)
    assert np.abs(decode(stream.getvalue()).astype(int) - np.asarray(photo(9))).mean() < 6


# A PostScript program that writes a file, or never ends. Pillow would run it with Ghostscript.
EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 20 20
%%EndComments
ACTION
0 0 20 20 rectfill
showpage
%%EOF
"""


def test_a_program_in_a_file_is_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    for action in (b"(%s) (w) file closefile" % bytes(mark), b"{} loop", b""):
        path = tmp_path / "cat.jpg"
        path.write_bytes(EPS.replace(b"ACTION", action))
        for source in (path, path.read_bytes()):
            with pytest.raises(UnreadableImageError, match=r"^not an image"):
                load(source)
    assert not mark.exists()


def test_only_formats_of_the_list_are_read_and_no_other_reader_is_loaded(tmp_path: Path) -> None:
    Image.init()
    for kind in sorted(set(Image.SAVE) - {"PDF", "HEIF"}):  # Pillow can only write these
        for mode in ("RGB", "L", "1"):
            with suppress(OSError, ValueError, KeyError):
                (tmp_path / f"{kind}.jpg").write_bytes(encode(Image.new(mode, (32, 32)), kind))
                break
    assert len(list(tmp_path.iterdir())) > 15
    code = (
        "import sys, pathlib\n"
        "from frostline.data import images\n"
        "for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):\n"
        "    try:\n"
        "        images.load(path)\n"
        "        print(path.stem)\n"
        "    except images.UnreadableImageError as error:\n"
        "        assert str(error).startswith('not an image'), (path, error)\n"
        "print(sorted(images.Image.OPEN), file=sys.stderr)\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path)]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    # MPO is a JPEG followed by others, PPM includes PBM and PGM, and DIB is a BMP without its first header.
    assert set(process.stdout.split()) == {*FORMATS, "MPO"}
    assert set(ast.literal_eval(process.stderr)) <= {*FORMATS, "DIB", "MPO"}


@pytest.mark.parametrize("mode", ["I;16", "I", "F", "RGBA", "LA", "P"])
def test_converting_in_strips_gives_the_same_as_at_once(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    rng = np.random.default_rng(0)
    if mode in ("I;16", "I", "F"):
        kinds = {"I;16": np.uint16, "I": np.int32, "F": np.float32}
        image = Image.fromarray((rng.random((37, 41)) * 70_000 - 2_000).astype(kinds[mode]))
    else:
        image = Image.fromarray(rng.integers(0, 256, (37, 41, 4), dtype=np.uint8)).convert(mode)
        if mode == "P":
            image.info["transparency"] = 3
    assert image.mode == mode
    convert = images._rgb if mode in ("RGBA", "LA", "P") else partial(images._from_deep, grey_range=(-10.0, 40_000.0))
    whole = np.asarray(convert(image))
    monkeypatch.setattr(images, "STRIP", 100)
    np.testing.assert_array_equal(np.asarray(convert(image)), whole)


def test_a_path_that_is_no_regular_file_does_not_hang(tmp_path: Path) -> None:
    pipe = tmp_path / "a.png"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero"), tmp_path):
        with pytest.raises(UnreadableImageError, match="not a regular file"):
            load(path)


def test_large_files_and_images_are_refused_before_they_are_read(tmp_path: Path) -> None:
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(images.MAX_BYTES + 1)
    with pytest.raises(UnreadableImageError, match="holds more than 1 GB"):
        load(tmp_path / "large.png")
    data = encode(np.zeros((100, 100, 3), np.uint8), "PNG")
    load(data, most=10_000)
    with pytest.raises(UnreadableImageError, match="too many pixels: 100x100, and the limit is"):
        load(data, most=9_999)


def test_images_share_a_budget_and_wait_for_their_turn() -> None:
    budget = Budget(100)
    most, now, lock = 0, 0, threading.Lock()

    def one(amount: int) -> None:
        nonlocal most, now
        with budget.turn():
            budget.take(amount)
            with lock:
                now += min(amount, 100)
                most = max(most, now)
            time.sleep(0.002)
            with lock:
                now -= min(amount, 100)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, [10, 60, 50, 1000, 90, 20] * 8))
    assert 60 < most <= 100
    budget.take(10**9)  # outside of a turn there is no limit
    with budget.turn():
        budget.take(60)
        budget.take(60)  # a thread that has bytes gets more at once


def test_a_path_bytes_and_an_open_file_give_the_same(tmp_path: Path, image: NDArray[np.uint8]) -> None:
    data = encode(image, "JPEG")
    path = tmp_path / "upper.JPG"
    path.write_bytes(data)
    with path.open("rb") as file:
        from_file = decode(file)
    np.testing.assert_array_equal(decode(path), decode(data))
    np.testing.assert_array_equal(from_file, decode(data))


UPRIGHT = {  # EXIF orientation -> the function that turns the stored image upright
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: np.rot90(p, 2).transpose(1, 0, 2),
    8: lambda p: np.rot90(p, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation_is_applied(image: NDArray[np.uint8], orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(decode(encode(image, "PNG", exif=exif)), UPRIGHT[orientation](image))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_an_image_with_broken_exif_is_decoded(image: NDArray[np.uint8], kind: str) -> None:
    assert decode(encode(image, kind, exif=b"Exif\0\0garbage")).shape == image.shape


def test_palettes_are_looked_up() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *BLUE])
    image.putpixel((1, 0), 1)
    assert decode(encode(image, "PNG")).tolist() == [[list(RED), list(BLUE)]]
    assert decode(encode(image, "PNG", transparency=0)).tolist() == [[list(WHITE), list(BLUE)]]


def test_transparency_is_laid_over_white() -> None:
    image = Image.new("RGBA", (3, 1), (*RED, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    image.putpixel((2, 0), (0, 0, 0, 128))
    assert decode(encode(image, "PNG")).tolist() == [[list(RED), list(WHITE), [127, 127, 127]]]
    assert decode(encode(Image.new("LA", (1, 1), (0, 0)), "PNG")).tolist() == [[list(WHITE)]]


def test_cmyk_becomes_rgb() -> None:
    pixels = decode(encode(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"))
    np.testing.assert_allclose(pixels, np.broadcast_to(RED, (8, 8, 3)), atol=3)


def test_16_bit_grey_keeps_its_tones() -> None:
    grey = np.array([[0, 128 * 257, 65535]], np.uint16)
    assert decode(encode(grey, "PNG"))[0, :, 0].tolist() == [0, 128, 255]


def test_1_bit_becomes_black_and_white() -> None:
    image = Image.new("1", (2, 1))
    image.putpixel((1, 0), 1)
    assert decode(encode(image, "PNG")).tolist() == [[[0] * 3, [255] * 3]]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_the_first_frame_of_an_animation_is_used(kind: str) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, GREEN, BLUE)]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert decode(data)[0, 0].tolist() == list(RED)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not an image"),
        (b"these are words", "not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
        (png(100_000, 100_000), "too many pixels"),
        (png(0, 5), "not an image"),
        (png(10, 10), "truncated"),
        (encode(np.zeros((64, 64, 3), np.uint8), "JPEG")[:-40], "truncated"),
    ],
    ids=["empty", "text", "svg", "bomb", "no-pixels", "short-png", "short-jpeg"],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_the_reason_for_a_broken_file_does_not_contain_its_name(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "secret.jpg"
    path.write_bytes(data)
    for source in (path, data):
        with pytest.raises(UnreadableImageError, match=reason) as error:
            decode(source)
        message = str(error.value)
        assert "secret" not in message
        assert "0x" not in message, "an object's address would change every report"
        assert "\n" not in message


def test_the_reason_for_a_missing_file_or_a_folder_does_not_contain_its_path(tmp_path: Path) -> None:
    for path in (tmp_path / "none.png", tmp_path):
        with pytest.raises(UnreadableImageError) as error:
            decode(path)
        assert str(tmp_path) not in str(error.value)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "AVIF", "PPM"])
def test_damaged_files_give_pixels_or_a_reason_and_nothing_else(kind: str) -> None:
    rng = np.random.default_rng(1)
    whole = encode(rng.integers(0, 256, (24, 20, 3), dtype=np.uint8), kind)
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(int(rng.integers(1, 12))):
            data[int(rng.integers(min(len(data), 200)))] = int(rng.integers(256))
        with suppress(UnreadableImageError):
            pixels = decode(bytes(data[: int(rng.integers(len(data) // 2, len(data)))]))
            assert pixels.ndim == 3
            assert pixels.shape[2] == 3
            assert pixels.dtype == np.uint8


@pytest.mark.parametrize("how", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("shape", [(30, 20), (20, 30), (8, 8), (1, 1), (1, 3000), (3000, 1), (16, 16)])
def test_resize_gives_a_square_of_uint8(shape: tuple[int, int], how: Any) -> None:
    pixels = resize(np.full((*shape, 3), 9, np.uint8), 16, how)
    assert pixels.shape == (16, 16, 3)
    assert pixels.dtype == np.uint8
    if how != "pad":
        assert (pixels == 9).all()


def test_stretch_crop_and_pad_differ_in_the_right_places() -> None:
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, :8], wide[:, 8:16], wide[:, 16:] = RED, GREEN, BLUE
    assert (resize(wide, 8, "crop") == GREEN).all()
    with_borders = resize(wide, 24, "pad")
    assert (with_borders[:8] == 0).all()
    assert (with_borders[16:] == 0).all()
    np.testing.assert_array_equal(with_borders[8:16], wide)
    wide_square = resize(wide, 24, "stretch")
    assert (wide_square[:, 0] == RED).all()
    assert (wide_square[:, -1] == BLUE).all()


def test_an_image_of_the_right_size_does_not_change(image: NDArray[np.uint8]) -> None:
    square = image[:, :4]
    for how in ("stretch", "crop", "pad"):
        np.testing.assert_array_equal(resize(square, 4, how), square)


def test_shrinking_is_antialiased() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(resize(stripes, 8, "stretch").astype(int) - 128).max() < 30


def photo(seed: int, width: int = 400, height: int = 300) -> Image.Image:
    rng = np.random.default_rng(seed)
    blotches = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
    return blotches.resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize(("least", "size"), [(None, (400, 300)), (151, (400, 300)), (150, (200, 150)), (40, (100, 75))])
def test_a_large_jpeg_is_decoded_at_a_fraction_of_its_size(least: int | None, size: tuple[int, int]) -> None:
    data = encode(np.asarray(photo(1)), "JPEG")
    loaded = load(data, least)
    assert loaded.image.size == size
    assert loaded.size == (400, 300)
    assert load(encode(np.asarray(photo(1)), "PNG"), least).image.size == (400, 300)


@pytest.mark.parametrize("how", ["stretch", "crop", "pad"])
def test_the_fraction_looks_like_the_whole(how: Any) -> None:
    data = encode(np.asarray(photo(2)), "JPEG")
    slow = resize(decode(data), 64, how).astype(float)
    assert np.abs(prepare(data, 64, how) - slow).mean() < 2


def test_the_orientation_of_a_jpeg_is_applied_at_a_fraction_too() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = BytesIO()
    photo(3).save(buffer, "JPEG", exif=exif)
    loaded = load(buffer.getvalue(), 60)
    assert loaded.size == (300, 400)
    assert loaded.image.size == (75, 100)
    assert loaded.orientation == 6


def test_a_truncated_jpeg_is_noticed_at_a_fraction_too() -> None:
    data = encode(np.asarray(photo(4)), "JPEG")
    for cut in (200, 1000, len(data) // 2):
        with pytest.raises(UnreadableImageError, match="truncated"):
            load(data[:-cut], 40)
