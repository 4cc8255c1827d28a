import errno
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version

import numpy as np
import pytest
from conftest import ROOT
from typer.testing import CliRunner

from frostline import cli
from frostline.core.mapped import Memory
from frostline.errors import DataError, of_system
from frostline.features.store import Entry, Store

COMMANDS = [
    "prepare",
    "augment",
    "finetune",
    "evaluate",
    "choose",
    "probe",
    "report",
    "doctor",
    "backbones",
    "features",
]


@dataclass(frozen=True)
class Result:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def frostline(monkeypatch):
    """`frostline(*arguments, cwd=...)`: run the command line in a folder; its exit code and what it prints."""

    def run(*arguments, cwd):
        monkeypatch.chdir(cwd)
        outcome = CliRunner().invoke(cli.app, [*arguments], catch_exceptions=False)
        return Result(outcome.exit_code, outcome.stdout, outcome.stderr)

    return run


@pytest.fixture
def project(tmp_path):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "data").mkdir()
    shutil.copy(ROOT / "data" / "digits.yaml", tmp_path / "data")
    (tmp_path / ".dvc").mkdir()
    return tmp_path


def change(project, before, after):
    path = project / "params.yaml"
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def test_the_help_fits_on_a_screen_and_imports_no_heavy_library(tmp_path):
    heavy = ["tensorflow", "keras", "mlflow", "pandas", "sklearn", "optuna", "scipy", "matplotlib"]
    code = "import sys; sys.argv = ['frostline', '--help']\nimport frostline.cli\ntry: frostline.cli.main()\n"
    code += f"finally: print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    lines = result.stdout.splitlines()
    assert lines[-1] == "[]"
    assert len(lines) < 40
    assert all(command in result.stdout for command in COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-megapixels", "0"], "--max-megapixels: 0 megapixels; give a number above 0 and up to 178"),
        (["--max-megapixels", "nan"], "--max-megapixels: nan megapixels; give a number above 0 and up to 178"),
        (["--max-body", "0"], "--max-body: 0; give a number from 0.01 to 4096"),
        (["--allow-host", "http://a/"], "--allow-host http://a/: is not a host name; write it like example.org"),
        (["--host", "192.0.2.1"], "192.0.2.1:8000: listening is not possible"),
        (["--host", "no such name"], "no such name:8000: listening is not possible"),
        (["models/none"], "models/none: holds no classifier"),
    ],
    ids=str,
)
def test_a_mistake_in_the_arguments_of_serve_is_one_line_and_exit_code_2(tmp_path, arguments, message, frostline):
    result = frostline("serve", *arguments, cwd=tmp_path)
    assert result.returncode == 2
    (line,) = [each for each in result.stderr.splitlines() if each.startswith("error: ")]
    assert message in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("before", "after", "command", "message"),
    [
        ("  copies: 12", "  copy: 12", "augment", "params.yaml: augment.copy is not a key; did you mean copies?"),
        ("\n  epochs: 13", "\n  epochs: ten", "finetune", "params.yaml: finetune.epochs: "),
        ("data/digits.yaml", "no/where", "prepare", "no/where: not found; set data.source to a folder"),
        (
            "name: frostnet",
            "name: frotsnet",
            "finetune",
            "backbone.name 'frotsnet' is not known; did you mean frostnet?",
        ),
        ("weights: builtin", "weights: a.h5", "finetune", "a.h5: backbone.weights names no file"),
        ("seed: 7", "seed: 7", "finetune", "data/prepared/train: holds no prepared images"),
        ("data/digits.yaml", "no/where", "doctor", "no/where: not found; set data.source to a folder"),
        ("seed: 7", "seed: 7", "report", "reports/metrics.json: not found; run `dvc repro` first"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(project, before, after, command, message, frostline):
    change(project, before, after)
    result = frostline(command, cwd=project)
    assert result.returncode == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert message in line
    files = {path.name for path in project.rglob("*") if path.is_file()}
    assert files == {"params.yaml", "digits.yaml"}


def test_the_doctor_says_what_will_be_trained_and_names_a_cache_that_cannot_be_written(project, monkeypatch, frostline):
    about = {"backbone": "frostnet", "layer": "block4_out", "image_size": 64}
    images = np.array(["a", "b"], "S32")
    Store(project / ".frostline" / "features", 1e9, Memory(0)).add(
        Entry("0" * 64, (1000,), "float32", about),
        images,
        partial(map, lambda rows: np.ones((len(rows), 1000), np.float32)),
        8,
    )
    lines = frostline("doctor", cwd=project).stdout.splitlines()
    assert lines[0].startswith("doctor: frostnet (builtin) on data/digits.yaml")
    assert lines[1].startswith("features: 0.00 of 10 GB in ")
    assert " 1 entry; all files can be deleted" in lines[1]
    assert "0.0 MB          2 images  frostnet to block4_out, 64 px, float32, used 20" in lines[2]
    (project / "file").touch()
    monkeypatch.setenv("FROSTLINE_CACHE", "file/cache")
    result = frostline("doctor", cwd=project)
    assert result.returncode == 2
    assert "file/cache: can't be made" in result.stderr


def test_a_damaged_result_is_one_line_and_exit_code_2(project, frostline):
    (project / "reports").mkdir()
    for text in ("{}", "[1]", "{", '{"accuracy": 1, "else": 2}'):
        (project / "reports" / "metrics.json").write_text(text)
        result = frostline("report", cwd=project)
        assert result.returncode == 2
        assert "reports/metrics.json: does not hold the numbers of an evaluation; remove it" in result.stderr


def test_a_bug_of_frostline_is_one_line_and_exit_code_1(project, frostline, monkeypatch):
    monkeypatch.setattr("frostline.commands.report.run", lambda params: {}["accuracy"])
    result = frostline("report", cwd=project)
    assert result.returncode == 1
    assert "error: frostline's own mistake: KeyError: 'accuracy'" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_debug_shows_the_traceback(project, frostline):
    change(project, "data/digits.yaml", "no/where")
    with pytest.raises(DataError, match="no/where: not found"):  # the error is raised
        frostline("--debug", "prepare", cwd=project)


def test_a_folder_that_cannot_be_created_is_one_line(project, frostline):
    (project / "reports").write_text("a file in the way")
    result = frostline("prepare", cwd=project)
    assert result.returncode == 2
    assert "reports: can't be made" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (project / "data" / "prepared").exists()


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a/b"), "a/b: No space left on device; free some space, or"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device; free some space there, or name"),
        (PermissionError(errno.EACCES, "Permission denied", "a"), "a: Permission denied; change its permissions, or"),
        (OSError(errno.EIO, "Input/output error", "a"), "a: Input/output error; its disk fails: check the disk, or"),
        (FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"), "another folder for temp"),
        (OSError("no words of the system's"), "no words of the system's; check the disk and the network"),
    ],
    ids=str,
)
def test_an_error_of_the_system_names_the_file_and_a_fix(error, text):
    assert text in of_system(error)


def test_the_version_is_the_package_s(frostline, tmp_path):
    assert frostline("--version", cwd=tmp_path).stdout == f"frostline {version('frostline')}\n"


def test_a_reader_that_closes_its_pipe_is_not_an_error(project):
    result = subprocess.run(
        f"{sys.executable} -m frostline backbones | head -1", shell=True, capture_output=True, text=True, cwd=project
    )
    assert result.stderr == ""


@pytest.mark.parametrize("command", ["backbones", "doctor", "--help"])
def test_a_reader_that_has_ended_is_no_error(project, command):
    """As in `frostline backbones | head -1`."""
    reader, writer = os.pipe()
    os.close(reader)
    program = [sys.executable, "-m", "frostline", command]
    result = subprocess.run(program, stdout=writer, stderr=subprocess.PIPE, text=True, cwd=project)
    os.close(writer)
    assert result.stderr == ""
