"""The store of activations: what is found again, what is made anew, and that nothing half-written is ever read."""

import dataclasses
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest

from frostline.core.mapped import Memory
from frostline.errors import StateError
from frostline.features import store as room
from frostline.features.store import Entry, Store

ENTRY = Entry("a" * 64, (5, 3), "float32", {"backbone": "frostnet", "layer": "stem", "image_size": 32})


def names(*numbers):
    return np.array([f"{number:032x}" for number in numbers], "S32")


def value(identity):
    """What the features of an image are made of here: its own name."""
    return np.full((5, 3), int(identity, 16), np.float32)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "features", 1e9, Memory(1e9))


def add(store, images, entry=ENTRY, batch=2):
    """Store features; the numbers of the images that had to be computed."""
    computed = []

    def make(rows):
        computed.extend(int(images[row], 16) for row in rows)
        return np.stack([value(images[row]) for row in rows]).astype(entry.dtype)

    assert store.add(entry, images, partial(map, make), batch)
    return computed


def check(store, images, entry=ENTRY):
    found = store.find(entry, images)
    assert found.missing.tolist() == []
    expected = np.stack([value(image) for image in images])
    np.testing.assert_array_equal(found.take(np.arange(len(images))), expected)


def blocks(store):
    return sorted(store.folder.glob("*/[!.]*.npy"))


def fresh(store):
    """The same folder, as another process sees it."""
    return Store(store.folder, store.budget, store.memory)


def test_features_are_found_again_in_any_order_and_twice(store):
    assert add(store, names(3, 1, 2, 7, 5)) == [3, 1, 2, 7, 5]
    check(fresh(store), names(5, 1, 1, 7))
    assert add(fresh(store), names(1, 2, 3)) == []
    assert len(blocks(store)) == 1


def test_new_images_extend_an_entry_and_the_same_image_is_computed_once(store):
    add(store, names(1, 2, 3))
    assert sorted(add(fresh(store), names(2, 9, 3, 8, 9))) == [8, 9]
    assert store.count(ENTRY, names(1, 2, 3, 8, 9, 10)) == 5
    check(fresh(store), names(9, 1, 8, 2))
    assert store.find(ENTRY, names(1, 10, 2, 11)).missing.tolist() == [1, 3]


def test_another_key_dtype_or_shape_is_another_entry(store):
    add(store, names(1, 2))
    half = dataclasses.replace(ENTRY, dtype="float16")
    other = dataclasses.replace(ENTRY, key="b" * 64)
    assert add(store, names(1, 2), half) == add(store, names(1, 2), other) == [1, 2]
    assert [entry.images for entry in store.usage()] == [2, 2, 2]
    assert {entry.dtype for entry in store.usage()} == {"float16", "float32"}
    assert store.usage()[0].about["layer"] == "stem"


def test_large_entries_are_written_in_blocks(store, monkeypatch):
    monkeypatch.setattr(room, "BLOCK_BYTES", 4 * ENTRY.row_bytes)
    images = names(*range(11))
    add(store, images)
    assert len(blocks(store)) == 3
    check(fresh(store), images)
    monkeypatch.setattr(room, "BLOCK_SECONDS", 0.0)
    add(store, names(*range(20, 26)))
    assert len(blocks(store)) == 6


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-10],
        lambda data: data[:100],
        lambda data: data + b"more",
        lambda data: data[:-7] + bytes([data[-7] ^ 1]) + data[-6:],
        lambda data: b"GIF89a" + data[6:],
    ],
    ids=["empty", "short", "very short", "long", "one bit", "foreign"],
)
def test_a_damaged_block_is_one_line_of_warning_and_computed_again(store, capsys, damage):
    images = names(*range(6))
    add(store, images)
    (block,) = blocks(store)
    block.write_bytes(damage(block.read_bytes()))
    other = fresh(store)
    assert sorted(add(other, images)) == list(range(6))
    (line,) = capsys.readouterr().err.splitlines()
    assert str(block) in line
    assert "is damaged" in line
    check(fresh(store), images)


def test_the_least_recently_used_go_when_the_budget_is_full(store):
    size = {}
    for number, key in enumerate("abc"):
        add(store, names(*range(4)), dataclasses.replace(ENTRY, key=key * 64))
        for block in set(blocks(store)) - set(size):
            size[block] = number
            os.utime(block, (number, number))
    each = blocks(store)[0].stat().st_size
    fourth = Store(store.folder, 3.5 * each, store.memory)
    assert fourth.room() == pytest.approx(3.5 * each)
    add(fourth, names(*range(4)), dataclasses.replace(ENTRY, key="d" * 64))
    assert [size.get(block) for block in blocks(store) if block in size] == [1, 2]
    assert fourth.room() == pytest.approx(2.5 * each)  # its own stay


def test_what_does_not_fit_the_budget_is_said_and_not_stored(store, capsys):
    small = Store(store.folder, 100, store.memory)
    assert not small.add(ENTRY, names(*range(4)), partial(map, lambda rows: np.ones((len(rows), 5, 3), np.float32)), 2)
    (line,) = capsys.readouterr().err.splitlines()
    assert "features can't be stored (cache.disk_gb 1e-07 is used up); they are computed again" in line
    assert not blocks(store)


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="mounting a tmpfs wants root")
def test_a_full_disk_is_one_line_of_warning_and_leaves_nothing(store, capsys):
    store.folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "none", store.folder], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        big = dataclasses.replace(ENTRY, shape=(1000,))
        wide = lambda rows: np.ones((len(rows), 1000), np.float32)  # noqa: E731
        assert not store.add(big, names(*range(200)), partial(map, wide), 32)
        (line,) = capsys.readouterr().err.splitlines()
        assert "features can't be stored (No space left on device)" in line
        # Another process may take the last space between the look and the write.
        assert fresh(store).room() <= 200 * 1024
        room_free = room._free
        try:
            room._free = lambda folder: 10**12
            assert not store.add(big, names(*range(200)), partial(map, wide), 32)
        finally:
            room._free = room_free
        assert "No space left on device" in capsys.readouterr().err
        assert not blocks(store)
        assert not list(store.folder.glob("*/.*"))
    finally:
        subprocess.run(["umount", store.folder], check=True)


def test_a_place_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StateError, match=r"file/features/a+-float32: can.t be made"):
        add(Store(tmp_path / "file" / "features", 1e9, Memory(1e9)), names(1))


def test_an_error_in_making_leaves_what_was_finished(store, monkeypatch):
    monkeypatch.setattr(room, "BLOCK_BYTES", 2 * ENTRY.row_bytes)
    images = names(*range(6))

    def make(rows):
        if 4 in rows:
            raise RuntimeError("boom")
        return np.stack([value(images[row]) for row in rows])

    with pytest.raises(RuntimeError, match="boom"):
        store.add(ENTRY, images, partial(map, make), 2)
    assert add(fresh(store), images) == [4, 5]
    assert not list(store.folder.glob("*/.*"))


def slowly(folder, images, log):
    """A writer that takes its time; what it computed, in a file."""

    def make(rows):
        time.sleep(0.1)
        with open(log, "a") as file:
            file.writelines(f"{int(images[row], 16)}\n" for row in rows)
        return np.stack([value(images[row]) for row in rows])

    room.BLOCK_BYTES = 4 * ENTRY.row_bytes
    Store(folder, 1e9, Memory(1e9)).add(ENTRY, images, partial(map, make), 2)


def test_two_writers_of_one_entry_share_the_work(store, tmp_path):
    images, log = names(*range(12)), tmp_path / "log"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=slowly, args=(store.folder, images, log)) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    assert sorted(map(int, log.read_text().split())) == list(range(12))
    check(fresh(store), images)


def test_a_killed_writer_leaves_only_whole_blocks(store, tmp_path):
    images, log = names(*range(200)), tmp_path / "log"
    writer = multiprocessing.get_context("spawn").Process(target=slowly, args=(store.folder, images, log))
    writer.start()
    deadline = time.monotonic() + 60
    while len(blocks(store)) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    (store.folder / ENTRY.name / ".123.npy").write_bytes(b"half")
    there = fresh(store).count(ENTRY, images)
    assert 8 <= there < 200
    assert len(add(fresh(store), images)) == 200 - there
    check(fresh(store), images)
    assert not list(store.folder.glob("*/.*"))
