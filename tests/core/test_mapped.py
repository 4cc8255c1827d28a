"""Rows in several mapped files, with a limit on their memory."""

import subprocess
import sys

import numpy as np
import pytest

from frostline.core.mapped import Memory, Pieces


def test_rows_come_from_the_right_array(tmp_path):
    arrays = [np.arange(12).reshape(3, 4), np.arange(100, 108).reshape(2, 4)]
    memory = Memory(1e9)
    for number, array in enumerate(arrays):
        np.save(tmp_path / f"{number}.npy", array)
    mapped_arrays = [memory.load(tmp_path / f"{number}.npy") for number in range(2)]
    pieces = Pieces(mapped_arrays, np.array([1, 0, -1, 0]), np.array([1, 2, 0, 0]), (4,), np.dtype(np.int64), memory)
    assert pieces.missing.tolist() == [2]
    rows = pieces.take(np.array([3, 0, 0, 1]))
    assert rows.tolist() == [[0, 1, 2, 3], [104, 105, 106, 107], [104, 105, 106, 107], [8, 9, 10, 11]]
    assert pieces.take(np.array([], np.int64)).shape == (0, 4)


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "a.npy").write_bytes(b"GIF89a" * 30)
    with pytest.raises(ValueError, match="magic string"):
        Memory(1e9).load(tmp_path / "a.npy")
    np.save(tmp_path / "b.npy", np.asfortranarray(np.ones((3, 2))))
    with pytest.raises(ValueError, match="Fortran"):
        Memory(1e9).load(tmp_path / "b.npy")


READ_ALL = """
import re, sys
import numpy as np
from pathlib import Path
from frostline.core.mapped import Memory, Pieces
memory = Memory(float(sys.argv[2]))
array = memory.load(Path(sys.argv[1]))
rows = np.random.default_rng(0).permutation(len(array))
pieces = Pieces([array], np.zeros(len(array), int), np.arange(len(array)), array.shape[1:], array.dtype, memory)
peak = lambda: 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
before = peak()
for start in range(0, len(rows), 32):
    pieces.take(rows[start : start + 32])
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_resident_memory_stays_within_the_limit(tmp_path):
    np.save(tmp_path / "large.npy", np.zeros((6000, 32 * 1024), np.uint8))  # 197 MB
    growth = {}
    for limit in (20e6, 1e12):
        process = subprocess.run(
            [sys.executable, "-c", READ_ALL, tmp_path / "large.npy", str(limit)],
            check=True,
            capture_output=True,
            text=True,
        )
        growth[limit] = int(process.stdout)
    assert growth[20e6] < 40e6
    assert growth[1e12] > 150e6
