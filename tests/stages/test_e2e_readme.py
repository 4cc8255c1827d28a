"""Every command of the README, in its order, in a clone with a folder of images as a stranger may have one.

The trainings are cut to a few epochs and the sweep to three trials. `make test` is not run but read, and the two
servers get a free port.
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

pytestmark = pytest.mark.process

SHORT = {
    "params.yaml": {"finetune": {"head_epochs": 2, "epochs": 2}, "augment": {"copies": 1}},
    "recipes/photos.yaml": {"finetune": {"head_epochs": 3, "epochs": 2}, "sweep": {"trials": 3}},
}
SERVERS = ("make ui", "frostline serve")
PHOTOS = Path("path/to/images")


def commands():
    """The commands of all console blocks, without their comments."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    assert all(line.startswith("$ ") for line in lines)
    return [re.sub(r"\s{2,}#.*$", "", line.removeprefix("$ ")) for line in lines]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    project = Project(tmp_path_factory.mktemp("readme") / "clone")
    _borrow_environment(project.folder)
    for path, changes in SHORT.items():
        project.change(changes, path)
    rng = np.random.default_rng(0)
    for label, colour in {"red": (200, 60, 40), "blue": (40, 60, 200), "green": (60, 180, 60)}.items():
        folder = project.folder / PHOTOS / label
        folder.mkdir(parents=True)
        for number in range(24):
            noise = rng.normal(0, 40, (20, 24, 3)) + colour
            image = Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8)).resize((240, 200))
            image.save(folder / f"{number}.jpg")
    shutil.copy(project.folder / PHOTOS / "red" / "0.jpg", project.folder / "photo.jpg")
    project.commit()
    return project


def _borrow_environment(clone):
    """Let the clone use the environment of the tests as its .venv, because to install it takes minutes."""
    real, ours = Path(sys.prefix), clone / ".venv"
    ours.mkdir()
    for name in ("bin", "lib"):
        (ours / name).symlink_to(real / name)
    shutil.copy(real / "pyvenv.cfg", ours)
    (ours / ".ready").touch()


def _answers(url, process):
    end = time.monotonic() + 90
    while time.monotonic() < end and process.poll() is None:
        with suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
        time.sleep(0.3)
    return False


@pytest.mark.skipif(sys.prefix == sys.base_prefix, reason="the tests do not run in a virtual environment")
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_every_command_of_the_readme_runs_in_its_order(project):
    port, ui_port = browser.free_port(), browser.free_port()
    environment = project.env | {"MLFLOW_PORT": str(ui_port)}
    servers, done = [], []
    try:
        for command in commands():
            if command.startswith("source "):
                continue  # PATH has it already, and each command has a shell of its own
            line = command.replace("make test", "make --dry-run test").replace(":8000", f":{port}")
            if command.startswith(SERVERS):
                serve = f"{line} --port {port}" if "serve" in command else line
                process = subprocess.Popen(
                    ["bash", "-c", f"exec {serve}"],
                    cwd=project.folder,
                    env=environment,
                    start_new_session=True,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
                servers.append(process)
                used = port if "serve" in command else ui_port
                assert _answers(f"http://127.0.0.1:{used}/", process), command
            else:
                result = subprocess.run(
                    ["bash", "-c", line], cwd=project.folder, env=environment, capture_output=True, text=True
                )
                assert result.returncode == 0, f"{command}\n{result.stdout[-2000:]}{result.stderr[-2000:]}"
                if command.startswith("curl "):
                    assert '"label"' in result.stdout
            done.append(command)
    finally:
        for process in servers:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert len(done) >= 20
    assert {command.split()[1] for command in done if command.startswith("frostline ")} >= {
        "recipe", "lr-find", "features", "report", "sweep", "register", "promote", "rollback", "lineage", "predict",
        "serve",
    }  # fmt: skip
