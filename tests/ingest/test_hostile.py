"""A folder with the kinds of files that real folders have: no crash, each bad file is listed, each good one is used."""

from __future__ import annotations

import json
import os
import socket
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet  # noqa: F401
import pytest
import scipy.sparse.csgraph  # noqa: F401
from conftest import make_params
from PIL import Image, ImageEnhance, PngImagePlugin

from frostline.data import shards
from frostline.ingest import splits
from frostline.paths import DATA_REPORT, PREPARED
from frostline.stages import prepare

GOOD = "good"


def photo(seed: int, width: int = 60, height: int = 48) -> Image.Image:
    """An image with large blotches, like a photo: it differs from that of another seed, and can be resized."""
    rng = np.random.default_rng(seed)
    blotches = Image.fromarray(rng.integers(0, 256, (6, 7, 3), dtype=np.uint8))
    return blotches.resize((width, height), Image.Resampling.BICUBIC)


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG with that size in its header but without the pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def wrong_checksum() -> bytes:
    data = bytearray(encode(photo(101), "PNG"))
    data[30] ^= 255
    return bytes(data)


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode(photo(102), "JPEG", exif=exif)


def grey16(seed: int) -> Image.Image:
    return Image.fromarray(np.asarray(photo(seed).convert("L")).astype(np.uint16) * 257)


def with_text() -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "x" * 5000, zip=True)
    return encode(photo(103), "PNG", pnginfo=info)


def copy(seed: int, kind: str, **options: Any) -> Callable[[], bytes]:
    return lambda: encode(photo(seed), kind, **options)


def frames(kind: str, seed: int) -> bytes:
    rest = [photo(seed + 1), photo(seed + 2)]
    return encode(photo(seed), kind, save_all=True, append_images=rest)


# Name in class `ant` -> (content, or a function that makes it; the kind of its problem).
FILES: dict[str, tuple[bytes | Callable[[], bytes], str]] = {
    "grey.jpg": (lambda: encode(photo(1).convert("L"), "JPEG"), GOOD),
    "cmyk.jpg": (lambda: encode(photo(2).convert("CMYK"), "JPEG"), GOOD),
    "progressive.jpeg": (copy(3, "JPEG", progressive=True), GOOD),
    "palette.png": (lambda: encode(photo(4).quantize(16), "PNG"), GOOD),
    "palette-transparent.png": (lambda: encode(photo(5).quantize(16), "PNG", transparency=0), GOOD),
    "alpha.png": (lambda: encode(photo(6).convert("RGBA"), "PNG"), GOOD),
    "grey-alpha.png": (lambda: encode(photo(7).convert("LA"), "PNG"), GOOD),
    "one-bit.png": (lambda: encode(photo(8).convert("1"), "PNG"), GOOD),
    "sixteen-bit.png": (lambda: encode(grey16(9), "PNG"), GOOD),
    "sixteen-bit.tif": (lambda: encode(grey16(10), "TIFF"), GOOD),
    "float.tiff": (lambda: encode(photo(11).convert("F"), "TIFF"), GOOD),
    "pages.tif": (lambda: frames("TIFF", 12), GOOD),
    "animated.gif": (lambda: frames("GIF", 20), GOOD),
    "animated.webp": (lambda: frames("WEBP", 30), GOOD),
    "still.webp": (copy(40, "WEBP"), GOOD),
    "still.avif": (copy(41, "AVIF"), GOOD),
    "still.bmp": (copy(42, "BMP"), GOOD),
    "still.jp2": (copy(43, "JPEG2000"), "not_an_image"),
    "still.ppm": (copy(44, "PPM"), GOOD),
    "still.tga": (copy(45, "TGA"), "not_an_image"),
    "phone.jpg": (rotated, GOOD),
    "long comment.png": (with_text, GOOD),
    "broken-exif.jpg": (copy(46, "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"), GOOD),
    "lies.png": (copy(47, "JPEG"), GOOD),
    "no-suffix": (copy(48, "PNG"), GOOD),
    "LOUD.JPG": (copy(49, "JPEG"), GOOD),
    "ümläut-日本-🦋.png": (copy(50, "PNG"), GOOD),
    "two\nlines.png": (copy(51, "PNG"), GOOD),
    "quo'te\" $(rm) %s {x}.png": (copy(52, "PNG"), GOOD),
    "l" * 240 + ".png": (copy(53, "PNG"), GOOD),
    "deep/er/still.png": (copy(54, "PNG"), GOOD),
    "thin.png": (lambda: encode(photo(55, 3000, 9), "PNG"), GOOD),
    "tiny.png": (lambda: encode(photo(56, 7, 60), "PNG"), "too_small"),
    "one-pixel.gif": (lambda: encode(photo(57, 1, 1), "GIF"), "too_small"),
    "empty.jpg": (b"", "not_an_image"),
    "words.jpg": (b"these are words\n", "not_an_image"),
    "page.jpg": (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "not_an_image"),
    "drawing.svg": (b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>", "not_an_image"),
    "paper.pdf": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "not_an_image"),
    "archive.png": (b"PK\x03\x04" + bytes(60), "not_an_image"),
    "film.mp4": (b"\0\0\0\x18ftypmp42" + bytes(60), "not_an_image"),
    "noise.jpg": (np.random.default_rng(0).bytes(4000), "not_an_image"),
    "Thumbs.db": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500), "not_an_image"),
    "cut.jpg": (lambda: encode(photo(60), "JPEG")[:-300], "truncated"),
    "cut.png": (lambda: encode(photo(61), "PNG")[:-400], "truncated"),
    "cut.webp": (lambda: encode(photo(62), "WEBP")[:-60], "*"),
    "cut.gif": (lambda: encode(photo(63), "GIF")[:-900], "truncated"),
    "header-alone.jpg": (lambda: encode(photo(64), "JPEG")[:160], "*"),
    "checksum.png": (wrong_checksum, "*"),
    "bomb.png": (png_header(50_000, 50_000), "too_many_pixels"),
    "no-pixels.png": (png_header(0, 5), "not_an_image"),
    "unfilled.png": (png_header(40, 40), "truncated"),
    "original.png": (copy(70, "PNG"), GOOD),
    "the-same-again.bmp": (copy(70, "BMP"), "duplicate"),
    "under-another-name.png": (copy(71, "PNG"), "label_conflict"),
}


@pytest.fixture
def corpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with all FILES and more, in a place that other users may read too."""
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        home.chmod(0o777)
        monkeypatch.chdir(home)
        root = home / "source"
        for label in ("ant", "bee", "cat"):
            (root / label).mkdir(parents=True)
            for number in range(12):
                photo(1000 + 100 * len(label) + ord(label[0]) * 20 + number).save(root / label / f"{number}.jpg")
        for path, (content, _) in FILES.items():
            file = root / "ant" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content if isinstance(content, bytes) else content())
        photo(71).save(root / "bee" / "as-a-bee.png")
        (root / "empty").mkdir()
        (root / "broken").mkdir()
        (root / "broken" / "words.png").write_text("words")
        photo(80).save(root / "loose.png")
        photo(81).save(root / "ant" / ".hidden.png")
        (root / "__MACOSX" / "ant").mkdir(parents=True)
        (root / "__MACOSX" / "ant" / "._1.png").write_bytes(b"\0\x05\x16\x07")
        os.mkfifo(root / "ant" / "pipe.png")
        with socket.socket(socket.AF_UNIX) as listening:
            os.chdir(root / "ant")  # a socket's path is short
            listening.bind("socket.png")
            os.chdir(home)
        (root / "ant" / "zeros.png").symlink_to("/dev/zero")
        (root / "ant" / "nowhere.png").symlink_to("nothing.png")
        (root / "ant" / "itself.png").symlink_to("itself.png")
        (root / "ant" / "up").symlink_to("..")
        (root / "ant" / "folder.png").mkdir()
        (root / "round").symlink_to(".")
        (root / "self").symlink_to("self")
        photo(82).save(root / "cat" / "elsewhere.png")
        (root / "bee" / "linked.png").symlink_to("../../linked.png")
        photo(83).save(home / "linked.png")
        Path(os.fsdecode(os.fsencode(root) + b"/ant/caf\xe9.png")).write_bytes(encode(photo(84), "PNG"))
        (root / "ant" / "closed.png").write_bytes(encode(photo(85), "PNG"))
        (root / "ant" / "closed.png").chmod(0)
        (root / "ant" / "locked").mkdir()
        (root / "ant" / "locked").chmod(0)
        yield root
        (root / "ant" / "locked").chmod(0o755)


OTHERS = {
    "empty": "empty_class",
    "broken/words.png": "not_an_image",
    "broken": "empty_class",
    "loose.png": "outside",
    "ant/pipe.png": "not_a_file",
    "ant/socket.png": "not_a_file",
    "ant/zeros.png": "not_a_file",
    "ant/nowhere.png": "missing",
    "ant/itself.png": "*",
    "ant/up": "link",
    "round": "link",
    "self": "link",
    r"ant/caf\xe9.png": "name",
    "ant/closed.png": "unreadable",
    "ant/locked": "unreadable",
    "bee/as-a-bee.png": "label_conflict",
}


def test_nothing_crashes_all_bad_files_are_listed_and_all_good_ones_are_used(corpus: Path) -> None:
    expected = {f"ant/{path}": kind for path, (_, kind) in FILES.items() if kind != GOOD} | OTHERS
    assert len(FILES) + len(OTHERS) > 60
    good = {f"ant/{path}" for path, (_, kind) in FILES.items() if kind == GOOD}
    good |= {f"{label}/{number}.jpg" for label in ("ant", "bee", "cat") for number in range(12)}
    good |= {"cat/elsewhere.png", "bee/linked.png"}

    params = make_params(
        data__source="source", data__image_size=32, data__train_per_class=None, data__on_problem="drop"
    )
    if os.geteuid() == 0:  # root may read all files, even those without permissions
        os.seteuid(65534)  # this user may not import from everywhere, hence the unused imports above
    try:
        summary = prepare.run(params)
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
    report = json.loads(DATA_REPORT.read_text(encoding="utf-8"))
    kinds = {problem["path"]: problem["kind"] for problem in report["problems"]}
    assert kinds.keys() == expected.keys()
    assert {path: kind for path, kind in kinds.items() if expected[path] not in ("*", kind)} == {}
    for problem in report["problems"]:
        assert problem["reason"]
        assert "\n" not in problem["reason"]
        assert str(corpus) not in problem["reason"]
        assert "0x" not in problem["reason"], "an object's address would change every report"
    sets = [shards.open_folder(PREPARED / name) for name in splits.SPLITS]
    assert {path for split in sets for path in split.index["path"]} == good
    assert report["classes"] == ["ant", "bee", "cat"]
    assert all(line.isprintable() and len(line) < 160 for line in summary.splitlines())


def test_near_copies_are_in_one_split(corpus: Path) -> None:
    for label in ("bee", "cat"):
        for number in range(12):
            path = corpus / label / f"{number}.jpg"
            image = Image.open(path)
            image.resize((43, 35)).save(corpus / label / f"small-{number}.png")
            ImageEnhance.Brightness(image).enhance(0.8).save(corpus / label / f"dark-{number}.webp", quality=60)
    prepare.run(make_params(data__source="source", data__image_size=32, data__train_per_class=None))
    split_of = {path: name for name in splits.SPLITS for path in shards.open_folder(PREPARED / name).index["path"]}
    for label in ("bee", "cat"):
        for number in range(12):
            names = (f"{label}/{number}.jpg", f"{label}/small-{number}.png", f"{label}/dark-{number}.webp")
            assert len({split_of[path] for path in names}) == 1
    report = json.loads(DATA_REPORT.read_text(encoding="utf-8"))
    assert sorted(len(paths) for paths in report["near_duplicates"]) == [3] * 24
