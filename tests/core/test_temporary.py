"""Each process has one folder for temporary files, which is removed however the process ends."""

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


def leftovers(signal: str, system: Path) -> list[str]:
    code = LEAVES_A_FILE.format(signal=signal)
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "TMPDIR": str(system)}, capture_output=True)
    return sorted(path.name for path in system.iterdir())


def test_temporary_files_of_libraries_are_in_the_folder():
    before = tempfile.gettempdir()
    with temporary.of_this_process():
        folder = Path(tempfile.mkdtemp()).parent
        assert folder.parent == Path(before).resolve()
        assert folder.stat().st_mode & 0o777 == 0o700
    assert not folder.exists()
    assert tempfile.gettempdir() == before


def test_an_interrupted_process_leaves_nothing_and_the_next_cleans_up_after_a_killed_one(tmp_path):
    assert leftovers("SIGINT", tmp_path) == []
    assert len(leftovers("SIGKILL", tmp_path)) == 1
    assert leftovers("SIGINT", tmp_path) == []


def test_without_the_folder_tempfile_stays_as_it_is(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/proc/no-such-place")
    with temporary.of_this_process():
        assert tempfile.gettempdir() == "/proc/no-such-place"
