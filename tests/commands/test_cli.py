import errno
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
import pytest
from conftest import ROOT
from typer.testing import CliRunner

from frostline import cli
from frostline.core.mapped import Memory
from frostline.errors import DataError, of_system
from frostline.features.store import Entry, Store

COMMANDS = ["prepare", "augment", "finetune", "evaluate", "report", "doctor", "backbones", "features"]


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def frostline(monkeypatch):
    """`frostline(*arguments, cwd=...)`: what the command line prints in that folder, and its exit code."""

    def run(*arguments, cwd):
        monkeypatch.chdir(cwd)
        result = CliRunner().invoke(cli.app, [*arguments], catch_exceptions=False)
        return Done(result.exit_code, result.stdout, result.stderr)

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


def test_help_fits_a_screen_and_imports_nothing_heavy(tmp_path):
    heavy = ["tensorflow", "keras", "mlflow", "pandas", "sklearn", "optuna", "scipy", "matplotlib"]
    code = "import sys; sys.argv = ['frostline', '--help']\nimport frostline.cli\ntry: frostline.cli.main()\n"
    code += f"finally: print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    lines = done.stdout.splitlines()
    assert lines[-1] == "[]"
    assert len(lines) < 40
    assert all(command in done.stdout for command in COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--max-megapixels", "0"], "--max-megapixels: 0 megapixels; give a number above 0 and up to 178"),
        (["--max-megapixels", "nan"], "--max-megapixels: nan megapixels; give a number above 0 and up to 178"),
        (["--allow-host", "http://a/"], "--allow-host http://a/: is no name of a host; write it as in example.org"),
        (["--host", "192.0.2.1"], "192.0.2.1:8000: listening is not possible"),
        (["--host", "no such name"], "no such name:8000: listening is not possible"),
        (["models/none"], "models/none: holds no classifier"),
    ],
    ids=str,
)
def test_a_mistake_in_what_to_serve_is_one_line_and_exit_code_2(tmp_path, arguments, says, frostline):
    done = frostline("serve", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    (line,) = [each for each in done.stderr.splitlines() if each.startswith("error: ")]
    assert says in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("before", "after", "command", "says"),
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
def test_a_mistake_is_one_line_and_exit_code_2(project, before, after, command, says, frostline):
    change(project, before, after)
    done = frostline(command, cwd=project)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert says in line
    left = {path.name for path in project.rglob("*") if path.is_file()}
    assert left == {"params.yaml", "digits.yaml"}


def test_the_doctor_says_what_will_be_trained_and_names_a_cache_that_cannot_be_written(project, monkeypatch, frostline):
    about = {"backbone": "frostnet", "layer": "block4_out", "image_size": 64}
    images = np.array(["a", "b"], "S32")
    Store(project / ".frostline" / "features", 1e9, Memory(0)).add(
        Entry("0" * 64, (1000,), "float32", about), images, lambda rows: np.ones((len(rows), 1000), np.float32), 8
    )
    said = frostline("doctor", cwd=project).stdout.splitlines()
    assert said[0].startswith("doctor: frostnet (builtin) on data/digits.yaml")
    assert said[1].startswith("features: 0.00 of 10 GB in ")
    assert " 1 entry; deleting any of it is safe" in said[1]
    assert "0.0 MB          2 images  frostnet to block4_out, 64 px, float32, used 20" in said[2]
    (project / "file").touch()
    monkeypatch.setenv("FROSTLINE_CACHE", "file/cache")
    done = frostline("doctor", cwd=project)
    assert done.returncode == 2
    assert "file/cache: can't be made" in done.stderr


def test_our_own_mistake_is_one_line_and_exit_code_1(project, frostline):
    (project / "reports").mkdir()
    (project / "reports" / "metrics.json").write_text("{}")
    done = frostline("report", cwd=project)
    assert done.returncode == 1
    assert "error: frostline's own mistake: KeyError: 'accuracy_ci95'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_debug_shows_the_traceback(project, frostline):
    change(project, "data/digits.yaml", "no/where")
    with pytest.raises(DataError, match="no/where: not found"):  # not turned into a line
        frostline("--debug", "prepare", cwd=project)


def test_an_unwritable_place_is_one_line(project, frostline):
    (project / "reports").write_text("a file in the way")
    done = frostline("prepare", cwd=project)
    assert done.returncode == 2
    assert "reports: can't be made" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (project / "data" / "prepared").exists()


@pytest.mark.parametrize(
    ("error", "said"),
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
def test_an_error_of_the_system_is_told_by_its_number_and_place(error, said):
    assert said in of_system(error)


def test_the_version_is_the_package_s(frostline, tmp_path):
    assert frostline("--version", cwd=tmp_path).stdout == f"frostline {version('frostline')}\n"


def test_a_reader_that_has_seen_enough_is_no_error(project):
    done = subprocess.run(
        f"{sys.executable} -m frostline backbones | head -1", shell=True, capture_output=True, text=True, cwd=project
    )
    assert done.stderr == ""
