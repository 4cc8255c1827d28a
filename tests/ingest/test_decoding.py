"""A source is decoded once, by any number of processes, and unusable files are listed with the reason."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image

from frostline.core import executors
from frostline.data import images
from frostline.data.deep_grey import GreyRange
from frostline.data.images import NOT_AN_IMAGE
from frostline.errors import InternalError
from frostline.ingest import decoding, thumbnails
from frostline.ingest.decoding import Decoder
from frostline.ingest.reading import ReadImage
from frostline.ingest.sources import open_source


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of 71 images of various sizes in two classes, two of them with the same pixels, and 3 broken files."""
    root = tmp_path / "source"
    rng = np.random.default_rng(0)
    for i in range(70):
        (root / f"class-{i % 2}").mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (10 + i % 5, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"class-{i % 2}" / f"{i:02d}.png")
    Image.open(root / "class-0" / "00.png").save(root / "class-0" / "00-copy.bmp")
    (root / "class-0" / "empty.jpg").touch()
    (root / "class-1" / "text.jpg").write_text("words")
    (root / "class-1" / "short.png").write_bytes((root / "class-1" / "01.png").read_bytes()[:60])
    return root


@pytest.fixture
def alarm() -> Iterator[None]:
    """Makes a test that hangs fail."""

    def ring(*_: object) -> None:
        raise TimeoutError("it hangs")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def decode(folder: Path, scratch: Path) -> tuple[pd.DataFrame, NDArray[np.uint8]]:
    """The result for each path, and the pixels of the usable images."""
    source = open_source(folder, folder)
    decoder = Decoder(source.reader, 16, "stretch", 1, scratch)
    paths = source.table["path"].tolist()
    table = pd.DataFrame(decoder.all(paths)).assign(path=paths)
    return table, np.stack(list(decoder.pixels(np.flatnonzero(table["kind"] == ""))))


def test_every_image_is_decoded_and_resized(folder: Path, tmp_path: Path) -> None:
    table, pixels = decode(folder, tmp_path / "scratch")
    usable = table[table["kind"] == ""]
    assert len(usable) == len(pixels) == 71
    for path, image in zip(usable["path"], pixels, strict=True):
        np.testing.assert_array_equal(image, images.prepare(folder / path, 16, "stretch"))


def test_digests_are_of_pixels_not_of_files(folder: Path, tmp_path: Path) -> None:
    table, _ = decode(folder, tmp_path / "scratch")
    sha = table.set_index("path")["sha256"]
    assert sha["class-0/00.png"] == sha["class-0/00-copy.bmp"]
    assert sha[sha != b""].nunique() == 70


def test_records_hold_the_digest_of_their_pixels_and_a_thumbnail(folder: Path, tmp_path: Path) -> None:
    source = open_source(folder, folder)
    decoder = Decoder(source.reader, 16, "stretch", 1, tmp_path / "scratch")
    results = list(decoder.all(source.table["path"].tolist()))
    rows = [row for row, image in enumerate(results) if not image.kind]
    records = zip(rows, decoder.pixels(rows), decoder.digests(rows), decoder.thumbnails(rows), strict=True)
    for row, pixels, digest, small in records:
        sha = hashlib.sha256(pixels.tobytes())
        assert sha.digest() == digest
        assert int.from_bytes(sha.digest()[:8], "big", signed=True) == results[row].prepared
        np.testing.assert_array_equal(small, thumbnails.draw(Image.fromarray(pixels)))


def test_images_below_the_smallest_side_are_unusable(folder: Path, tmp_path: Path) -> None:
    source = open_source(folder, folder)
    decoder = Decoder(source.reader, 16, "stretch", 12, tmp_path / "scratch")
    results = dict(zip(source.table["path"], decoder.all(source.table["path"].tolist()), strict=True))
    assert results["class-0/00.png"].kind == "too_small"
    assert results["class-0/00.png"].reason == "12x10 pixels, smaller than data.min_side = 12"
    assert not results["class-0/02.png"].kind


def test_the_same_bytes_in_another_shape_are_another_image(tmp_path: Path) -> None:
    for height, width in ((2, 6), (3, 4)):
        (tmp_path / f"s/{height}").mkdir(parents=True)
        Image.new("RGB", (width, height), "red").save(tmp_path / f"s/{height}/1.png")
    assert decode(tmp_path / "s", tmp_path / "scratch")[0]["sha256"].nunique() == 2


def test_unreadable_files_have_a_kind_and_a_reason(folder: Path, tmp_path: Path) -> None:
    table, _ = decode(folder, tmp_path / "scratch")
    broken = table[table["kind"] != ""].set_index("path")
    assert (broken["sha256"] == b"").all()
    assert broken["reason"].to_dict() == {
        "class-0/empty.jpg": "not an image (empty)",
        "class-1/short.png": "image file is truncated",
        "class-1/text.jpg": NOT_AN_IMAGE,
    }
    assert broken["kind"].to_dict() == {
        "class-0/empty.jpg": "not_an_image",
        "class-1/short.png": "truncated",
        "class-1/text.jpg": "not_an_image",
    }


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_several_processes_give_the_same_as_one(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    inline = decode(folder, tmp_path / "inline")
    monkeypatch.setattr(decoding, "INLINE", 0)
    monkeypatch.setattr(executors, "_start_method", lambda: method)
    parallel = decode(folder, tmp_path / "parallel")
    pd.testing.assert_frame_equal(parallel[0], inline[0])
    np.testing.assert_array_equal(parallel[1], inline[1])


@pytest.mark.usefixtures("alarm")
def test_a_named_pipe_does_not_hang(folder: Path, tmp_path: Path) -> None:
    os.mkfifo(folder / "class-0" / "pipe.png")
    table, _ = decode(folder, tmp_path / "scratch")
    assert table.set_index("path")["reason"]["class-0/pipe.png"] == "not a regular file"


@dataclass(frozen=True)
class Greedy:
    """A reader of images that don't fit into memory."""

    def read(self, path: str, least: int | None, grey_range: GreyRange = None) -> ReadImage:
        raise MemoryError


def test_short_memory_stops_instead_of_dropping_the_image(tmp_path: Path) -> None:
    with pytest.raises(InternalError, match=r"a/1\.png: not enough memory"):
        list(Decoder(Greedy(), 8, "stretch", 1, tmp_path / "scratch").all(["a/1.png"]))


@dataclass(frozen=True)
class Deadly:
    """A reader that kills its process at one image. It is so large that its pickle does not fit into a pipe."""

    ballast: bytes

    def read(self, path: str, least: int | None, grey_range: GreyRange = None) -> ReadImage:
        if path == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        return ReadImage.of_pixels(Image.new("RGB", (4, 4)))


def test_workers_are_not_forked_if_threads_would_be_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    assert executors._start_method() == "spawn"


@pytest.mark.usefixtures("alarm")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_worker_that_dies_is_an_internal_error_and_not_a_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(executors, "_start_method", lambda: method)
    monkeypatch.setattr(decoding, "INLINE", 0)
    monkeypatch.setattr(decoding.machine, "cores", lambda: 2)
    with pytest.raises(InternalError, match="a worker process died"):
        list(Decoder(Deadly(bytes(300_000)), 4, "stretch", 1, tmp_path / "scratch").all([str(i) for i in range(2000)]))
    assert [path.name for path in tmp_path.iterdir()] == ["scratch"]


PARENT = """
import os, sys, time
from pathlib import Path
from frostline.core import executors; from frostline.ingest import decoding; from frostline.data import images

class Slow:
    def read(self, path, least, grey_range=None):
        Path(path).write_text(str(os.getpid()))
        time.sleep(60)

decoding.INLINE = 0
decoding.machine.cores = lambda: 2
executors._start_method = lambda: "fork"
list(decoding.Decoder(Slow(), 4, "stretch", 1, Path("scratch")).all([str(i) for i in range(64)]))
"""


def lives(pid: int) -> bool:
    """Whether a process runs. A zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], cwd=tmp_path)
    pid_files = [tmp_path / "0", tmp_path / "32"]

    def wait(until: Callable[[], bool]) -> None:
        end = time.monotonic() + 20
        while not until():
            assert time.monotonic() < end
            time.sleep(0.05)

    wait(lambda: all(path.exists() and path.read_text() for path in pid_files))
    workers = [int(path.read_text()) for path in pid_files]
    parent.kill()
    parent.wait()
    wait(lambda: not any(lives(worker) for worker in workers))
