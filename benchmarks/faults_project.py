"""A small project for faults.py: built once in steps, copied for each attempt, and run by commands that can be killed.

All attempts use one path, because MLflow keeps absolute paths. A command runs in a fork of a process that has imported
what it needs and computed nothing, so that a start costs milliseconds and not the 12 seconds of TensorFlow's import.
"""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parent.parent
ENDS_WITHIN = 4.0  # seconds that child processes of a killed one have to end
LONGEST = 300.0  # seconds after which a command is taken to hang

PARAMS = {
    "data": {
        "source": "data/pets",
        "train_per_class": 12,
        "image_size": 32,
        "split": {"train": 0.6, "val": 0.2, "test": 0.2},
    },
    "augment": {"copies": 1},
    "finetune": {"head_epochs": 1, "epochs": 2, "freeze": "block6_out"},
    "evaluate": {"top_k": 1, "bootstrap": 100},
    "registry": {"name": "pets", "gate": {"metric": "accuracy", "margin": 1.0, "confidence": 0.95}},
    "sweep": {"trials": 3, "space": {"finetune.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}},
}
LIGHT = ("frostline.cli", "frostline.params.schema", "frostline.stages.prepare", "frostline.stages.augment")
HEAVY = (
    *("frostline.stages.finetune", "frostline.stages.evaluate"),
    *(f"frostline.commands.{name}" for name in ("export", "register", "promote", "sweep")),
    *("keras", "mlflow", "mlflow.pyfunc", "mlflow.tracking", "mlflow.store.tracking.sqlalchemy_store"),
    *("sklearn.metrics", "matplotlib.pyplot", "optuna", "frostline.search.study_log", "frostline.search.worker"),
    *("frostline.search.report", "frostline.training.trainer", "frostline.models.classifier"),
    "frostline.evaluation.gradcam",
)

Command = Sequence[str] | Callable[[], Any]


@dataclass
class Process:
    """A command that runs in a fork."""

    pid: int
    began: float = field(default_factory=time.monotonic)

    def wait(self, seconds: float = LONGEST) -> int | None:
        """Its exit status, negative for a signal; None where it still runs after so many seconds."""
        end = self.began + seconds
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            if (left := end - time.monotonic()) <= 0:
                return None
            time.sleep(min(0.002, left))

    def kill(self) -> bool:
        """Kill it; whether it had not ended by then."""
        os.kill(self.pid, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]) == -signal.SIGKILL

    def orphans(self) -> list[str]:
        """Command lines of the processes that it started and that still run some seconds after its end."""
        end = time.monotonic() + ENDS_WITHIN
        while (found := _of_session(self.pid)) and time.monotonic() < end:
            time.sleep(0.1)
        for pid in found:
            os.kill(pid, signal.SIGKILL)
        return list(found.values())


@dataclass(frozen=True)
class Place:
    """Folders below a state folder. project: where every command runs; template: kept states of it."""

    state: Path

    @property
    def project(self) -> Path:
        return self.state / "project"

    @property
    def temporary(self) -> Path:
        return self.state / "tmp"

    @property
    def log(self) -> Path:
        return self.state / "log"

    def template(self, name: str) -> Path:
        return self.state / "templates" / name

    def use(self, name: str) -> None:
        """Bring the project to a kept state, and empty the folder of temporary files."""
        for folder in (self.project, self.temporary):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.template(name), self.project, symlinks=True)
        self.temporary.mkdir()
        self.log.write_text("")

    def keep(self, name: str) -> None:
        """Keep the project's present state."""
        partial = self.template(f"{name}.part")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(self.project, partial, symlinks=True)
        partial.rename(self.template(name))

    def start(self, command: Command) -> Process:
        """Begin a command of frostline's, or a function, in a fork that has the project for its root."""
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            self._become(command)
        return Process(pid)

    def run(self, command: Command, ok: bool = True) -> tuple[int, str]:
        """Exit status of a command that runs to its end, and what it printed."""
        before = self.log.stat().st_size
        process = self.start(command)
        status = process.wait()
        if status is None:
            process.kill()
            status = -signal.SIGKILL
        printed = self.log.read_bytes()[before:].decode(errors="replace")
        if ok and status:
            raise SystemExit(f"{command}: exit status {status}\n{printed[-3000:]}")
        return status, printed

    def _become(self, command: Command) -> None:
        """In the fork: run the command and end, without a return to the caller."""
        status = 1
        try:
            os.setsid()
            target = os.open(self.log, os.O_WRONLY | os.O_APPEND)
            for descriptor in (1, 2):
                os.dup2(target, descriptor)
            os.chdir(self.project)
            os.environ |= {"DVC_ROOT": str(self.project), "TMPDIR": str(self.temporary)}
            status = _call(command)
            sys.stdout.flush()
            sys.stderr.flush()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)


def _call(command: Command) -> int:
    import tempfile

    tempfile.tempdir = None  # it is kept from before the fork
    if callable(command):
        command()
        return 0
    from frostline import cli

    sys.argv = ["frostline", *command]
    try:
        cli.main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _of_session(session: int) -> dict[int, str]:
    """The living processes of a session by their number, in words."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has ended
            continue
        if fields[0] != "Z" and int(fields[3]) == session:
            found[int(folder.name)] = words.strip()
    return found


def warm(modules: Sequence[str]) -> None:
    """Import what commands need, so that forks have it."""
    from frostline.models import backend
    from frostline.tracking import tracker

    for key, value in tracker.QUIET.items():
        os.environ.setdefault(key, value)
    with backend.quiet():
        for name in modules:
            importlib.import_module(name)


def connect() -> None:
    """Make MLflow's database where there is none."""
    from frostline.params.schema import load
    from frostline.tracking import tracker

    tracker.tracker(load(Path("params.yaml")).tracking).connect()


def ask_export() -> None:
    """Write down what an exported network answers."""
    import tensorflow as tf

    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    loaded = tf.saved_model.load("exported/saved_model")  # its variables live as long as it does
    answers = [loaded.serve(image)["probabilities"] for image in images]
    Path("exported/answers").write_bytes(np.asarray(answers).tobytes())


def change(folder: Path, changes: Mapping[str, Mapping[str, Any]]) -> None:
    """Change keys of a project's params.yaml."""
    yaml = YAML()
    values = yaml.load(folder / "params.yaml")
    for section, keys in changes.items():
        values[section].update(keys)
    yaml.dump(values, folder / "params.yaml")


def head(folder: Path) -> str:
    """The commit that a folder is at."""
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def draw(folder: Path, count: int = 120) -> None:
    """Images of two classes; a class is the side of a bright square."""
    rng = np.random.default_rng(0)
    for place, label in enumerate(("cat", "dog")):
        (folder / label).mkdir(parents=True)
        for number in range(count):
            image = rng.integers(0, 90, (36, 40, 3), dtype=np.uint8)
            image[:18, place * 20 : (place + 1) * 20] += 150
            Image.fromarray(image).save(folder / label / f"{number}.png")


def clone(folder: Path) -> None:
    """Clone the last commit of this repository, with the package that all commands run."""
    subprocess.run(["git", "clone", "-q", "--depth", "1", f"file://{ROOT}", str(folder)], check=True)
    for key, value in {"user.name": "faults", "user.email": "faults@example.org"}.items():
        subprocess.run(["git", "-C", str(folder), "config", key, value], check=True)


def use_package(folder: Path) -> None:
    """Take the package from a clone, for forks and for processes: edits of this repository must not be seen midway."""
    for key in [key for key in os.environ if key.startswith(("DVC_", "MLFLOW_", "FROSTLINE_CACHE"))]:
        del os.environ[key]
    sys.path.insert(0, str(folder / "src"))
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    os.environ |= {"PYTHONPATH": str(folder / "src"), "PATH": programs, "GIT_CONFIG_GLOBAL": os.devnull}


def commit(place: Place) -> None:
    """Let dvc.lock and git know the project's outputs, without running a stage again."""
    environment = {**os.environ, "DVC_NO_ANALYTICS": "true"}
    for command in (
        ["dvc", "commit", "-q", "-f"],
        ["git", "add", "-A"],
        ["git", "commit", "-q", "--allow-empty", "-m", "state"],
    ):
        done = subprocess.run(command, cwd=place.project, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}: {done.stdout}{done.stderr}")
