"""Every command of the README, the tutorial and some how-to pages, in their order, as a stranger would run them.

The trainings are cut to a few epochs and the sweep to three trials. `make test` is not run but read, and servers get
free ports. A how-to page goes on in the project that the tutorial made.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import browser
import numpy as np
import pytest
from conftest import ROOT
from PIL import Image
from project import Project

from frostline.params import edit

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(sys.prefix == sys.base_prefix, reason="the tests do not run in a virtual environment"),
    pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed"),
]

DIGITS = {"params.yaml": {"finetune": {"head_epochs": 2, "epochs": 1}, "augment": {"copies": 1}}}
SHORT = {"finetune.head_epochs": 2, "finetune.epochs": 1, "sweep.trials": 3, "evaluate.bootstrap": 200}
SERVERS = ("frostline serve", "mlflow ui")
PAGES = ("choose-a-body", "sweep", "promote-and-serve", "compare-in-mlflow")
PER_CLASS = 52  # images, from which on `frostline init` picks the recipe of the pages


def commands(page):
    """The commands of all console blocks of a page, without their comments."""
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    assert lines
    assert all(line.startswith("$ ") for line in lines)
    return [re.sub(r"\s{2,}#.*$", "", line.removeprefix("$ ")) for line in lines]


def draw_images(folder):
    """Three classes of noise in a colour of their own, as JPEG."""
    rng = np.random.default_rng(0)
    for label, colour in {"red": (200, 60, 40), "blue": (40, 60, 200), "green": (60, 180, 60)}.items():
        (folder / label).mkdir(parents=True)
        for number in range(PER_CLASS):
            noise = rng.normal(0, 40, (20, 24, 3)) + colour
            image = Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8)).resize((240, 200))
            image.save(folder / label / f"{number}.jpg")


class Reader:
    """Someone who types commands, in a folder outside the repository. place: where `cd` has led."""

    def __init__(self, folder, clone):
        self.place, self.clone, self.done = folder, clone, []
        self.ports = {name: browser.free_port() for name in SERVERS}
        names = {
            f"GIT_{role}_{what}": "me@example.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
        }
        # One store for both projects: their images are the same.
        self.env = clone.env | names | {"FROSTLINE_CACHE": str(folder / "features")}
        self.servers = []

    def type(self, command):
        """Run a command, or start a server and wait until it answers."""
        place = self.clone.folder if command.startswith("make ") else self.place
        line = command.replace("make test", "make --dry-run test").replace("models:/frostline@", "models:/clothes@")
        line = line.replace(":8000", f":{self.ports['frostline serve']}")
        if command.startswith("cd "):
            self.place /= command.removeprefix("cd ")
        elif command.startswith(SERVERS):
            self._serve(line, self.ports[" ".join(command.split()[:2])])
        else:
            result = subprocess.run(["bash", "-c", line], cwd=place, env=self.env, capture_output=True, text=True)
            assert result.returncode == 0, f"{command}\n{result.stdout[-2000:]}{result.stderr[-2000:]}"
            if command.startswith("curl "):
                assert '"label"' in result.stdout
        if command.startswith("frostline init "):
            self._shorten(self.place / command.split()[2])
            subprocess.run(["git", "add", "-A"], cwd=self.place / command.split()[2], env=self.env, check=True)
        if " --apply --yes" in command:
            self._shorten(self.place)
        self.done.append(command)

    def _shorten(self, folder):
        edit.change(folder / "params.yaml", SHORT)

    def _serve(self, line, port):
        process = subprocess.Popen(
            ["bash", "-c", f"exec {line} --port {port}"],
            cwd=self.place,
            env=self.env,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.servers.append(process)
        end = time.monotonic() + 90
        while time.monotonic() < end and process.poll() is None:
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
                assert answer.status == 200
                return
            time.sleep(0.3)
        raise AssertionError(f"{line}: does not answer")

    def leave(self):
        """Stop the servers."""
        for process in self.servers:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.servers = []


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    project = Project(tmp_path_factory.mktemp("readme") / "clone")
    _borrow_environment(project.folder)
    for path, changes in DIGITS.items():
        project.change(changes, path)
    project.commit()
    return project


@pytest.fixture
def reader(tmp_path, clone):
    reader = Reader(tmp_path, clone)
    yield reader
    reader.leave()


def _borrow_environment(clone):
    """Let the clone use the environment of the tests as its .venv, because to install it takes minutes."""
    real, ours = Path(sys.prefix), clone / ".venv"
    ours.mkdir()
    for name in ("bin", "lib"):
        (ours / name).symlink_to(real / name)
    shutil.copy(real / "pyvenv.cfg", ours)
    (ours / ".ready").touch()


def test_every_command_of_the_readme_runs_in_its_order(reader):
    draw_images(reader.place / "path/to/images")
    for command in commands("README.md"):
        reader.type(command)
    assert {"make repro", "make test", "dvc repro"} <= set(reader.done)
    assert (reader.place / "reports" / "model_card.md").is_file()


def test_every_command_of_the_tutorial_runs_and_then_those_of_the_pages(reader):
    draw_images(reader.place / "photos")
    start = reader.place
    for command in commands("docs/tutorial.md"):
        if "photo.jpg" in command and not (reader.place / "photo.jpg").exists():
            shutil.copy(start / "photos" / "red" / "0.jpg", reader.place / "photo.jpg")
        reader.type(command)
    reader.leave()
    assert "mlflow ui --backend-store-uri sqlite:///mlflow.db" in reader.done
    for page in PAGES:
        for command in commands(f"docs/how-to/{page}.md"):
            if not (command.startswith(SERVERS) and command in reader.done):  # to start a server takes long
                reader.type(command)
        reader.leave()
    assert len(reader.done) >= 30
    assert {command.split()[1] for command in reader.done if command.startswith("frostline ")} >= {
        "init", "doctor", "recipe", "backbones", "lr-find", "features", "report", "sweep", "register", "promote",
        "rollback", "lineage", "predict", "serve",
    }  # fmt: skip
