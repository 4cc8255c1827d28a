"""One folder of temporary files a process: it ends with its process, however that ends."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from frostline.core import temporary

LEAVES_A_FILE = """
import os, signal, tempfile
from frostline.core import temporary
with temporary.of_this_process():
    tempfile.mkdtemp(), tempfile.NamedTemporaryFile(delete=False)
    os.kill(os.getpid(), signal.{signal})
"""


def left_by(signal: str, system: Path) -> list[str]:
    code = LEAVES_A_FILE.format(signal=signal)
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "TMPDIR": str(system)}, capture_output=True)
    return sorted(path.name for path in system.iterdir())


def test_what_libraries_make_lies_in_it_and_goes_with_it():
    before = tempfile.gettempdir()
    with temporary.of_this_process():
        folder = Path(tempfile.mkdtemp()).parent
        assert folder.parent == Path(before).resolve()
        assert folder.stat().st_mode & 0o777 == 0o700
    assert not folder.exists()
    assert tempfile.gettempdir() == before


def test_an_interrupted_process_leaves_nothing_and_the_next_removes_what_a_killed_one_left(tmp_path):
    assert left_by("SIGINT", tmp_path) == []
    assert len(left_by("SIGKILL", tmp_path)) == 1
    assert left_by("SIGINT", tmp_path) == []


def test_without_such_a_folder_work_goes_on(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/proc/no-such-place")
    with temporary.of_this_process():
        assert tempfile.gettempdir() == "/proc/no-such-place"
