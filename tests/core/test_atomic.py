"""Outputs appear whole or not at all, and leftovers of dead processes are removed."""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from frostline.core import atomic
from frostline.errors import StateError

HOST = socket.gethostname()


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@pytest.fixture
def dead_pid() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_folder_replaces_the_one_before(tmp_path: Path) -> None:
    for text in ("one", "two"):
        with atomic.folder(tmp_path / "deep" / "out") as folder:
            (folder / text).write_text(text)
            assert not (tmp_path / "deep" / "out" / text).exists()
    assert names(tmp_path / "deep") == ["out"]
    assert names(tmp_path / "deep" / "out") == ["two"]


@pytest.mark.parametrize("before", ["file", "link", "broken link"])
def test_a_folder_replaces_files_and_links_but_not_what_they_point_to(tmp_path: Path, before: str) -> None:
    out, target = tmp_path / "out", tmp_path / "target"
    if before == "file":
        out.write_text("x")
    else:
        out.symlink_to(target)
        if before == "link":
            target.mkdir()
            (target / "kept").touch()
    with atomic.folder(out) as folder:
        (folder / "new").touch()
    assert names(out) == ["new"]
    assert not out.is_symlink()
    assert not target.exists() or names(target) == ["kept"]


def test_an_error_leaves_the_old_output_and_nothing_else(tmp_path: Path) -> None:
    with atomic.folder(tmp_path / "out") as folder:
        (folder / "old").touch()
    atomic.write_json(tmp_path / "a.json", 1)
    with pytest.raises(KeyboardInterrupt):
        _interrupted_folder(tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):
        _interrupted_file(tmp_path / "a.json")
    assert names(tmp_path) == ["a.json", "out"]
    assert names(tmp_path / "out") == ["old"]
    assert json.loads((tmp_path / "a.json").read_text()) == 1


def _interrupted_folder(path: Path) -> None:
    with atomic.folder(path) as folder:
        (folder / "half").touch()
        raise KeyboardInterrupt


def _interrupted_file(path: Path) -> None:
    with atomic.file(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt


def test_a_file_keeps_its_suffix_while_it_is_written(tmp_path: Path) -> None:
    with atomic.file(tmp_path / "deep" / "b.png") as path:
        assert path.suffix == ".png"
        path.write_bytes(b"1")
    assert names(tmp_path / "deep") == ["b.png"]


def test_json_is_readable_and_refuses_values_that_json_cannot_represent(tmp_path: Path) -> None:
    atomic.write_json(tmp_path / "a.json", {"class": "Ω"})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "class": "Ω"\n}\n'
    with pytest.raises(ValueError, match="JSON"):
        atomic.write_json(tmp_path / "a.json", math.nan)
    assert names(tmp_path) == ["a.json"]


def test_leftovers_of_dead_processes_are_removed(tmp_path: Path, dead_pid: int) -> None:
    (tmp_path / f".out.{HOST}-{dead_pid}.part").mkdir()
    (tmp_path / f".out.{HOST}-{dead_pid}.part" / "x").touch()
    (tmp_path / f".out.{HOST}-{10**30}.part").mkdir()
    (tmp_path / f".a.{HOST}-{dead_pid}.part.json").touch()
    with atomic.folder(tmp_path / "out"):
        pass
    atomic.write_json(tmp_path / "a.json", 1)
    assert names(tmp_path) == ["a.json", "out"]


def test_a_leftover_with_our_own_number_is_replaced(tmp_path: Path) -> None:
    (tmp_path / f".out.{HOST}-{os.getpid()}.part").mkdir()
    (tmp_path / f".out.{HOST}-{os.getpid()}.part" / "half").touch()
    with atomic.folder(tmp_path / "out") as folder:
        (folder / "new").touch()
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == ["new"]


def test_files_of_living_processes_and_other_outputs_stay(tmp_path: Path, dead_pid: int) -> None:
    other_names = sorted(
        [
            f".out.{HOST}-{os.getppid()}.part",
            f".out.{HOST}-x.part",
            f".out.elsewhere-{dead_pid}.part",
            f".out.other.{HOST}-{dead_pid}.part",
            ".out",
            "out.part",
        ]
    )
    for name in other_names:
        (tmp_path / name).mkdir()
    with atomic.folder(tmp_path / "out"):
        pass
    assert names(tmp_path) == sorted([*other_names, "out"])


def test_outputs_of_similar_names_can_be_written_at_once(tmp_path: Path) -> None:
    with atomic.file(tmp_path / "x.y.json") as one, atomic.file(tmp_path / "x.json") as two:
        one.write_text("1")
        two.write_text("2")
    assert names(tmp_path) == ["x.json", "x.y.json"]


def test_a_name_with_wildcards_is_only_a_name(tmp_path: Path, dead_pid: int) -> None:
    (tmp_path / f".run[1]*.{HOST}-{dead_pid}.part").mkdir()
    with atomic.folder(tmp_path / "run[1]*"):
        pass
    assert names(tmp_path) == ["run[1]*"]


def test_a_file_in_the_place_of_the_parent_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "reports").touch()
    with pytest.raises(StateError, match=r"reports: can't be made \(File exists\)"):
        atomic.write_json(tmp_path / "reports" / "a.json", 1)


def test_scratch_is_removed_at_the_end_or_by_the_next_process(tmp_path: Path) -> None:
    with atomic.scratch(tmp_path / "state" / "model") as folder:
        (folder / "file").touch()
    assert names(tmp_path / "state") == []
    code = (
        "import os, signal, sys, pathlib\n"
        "from frostline.core import atomic\n"
        "with atomic.scratch(pathlib.Path(sys.argv[1])) as folder:\n"
        "    (folder / 'file').touch()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "state" / "model")])
    assert len(names(tmp_path / "state")) == 1
    with atomic.scratch(tmp_path / "state" / "model"):
        assert len(names(tmp_path / "state")) == 1
    assert names(tmp_path / "state") == []
