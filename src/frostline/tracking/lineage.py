"""Where a run comes from: git, DVC's experiment, the stages that dvc.lock records; and how to get back there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from frostline.core import digest, plain_yaml
from frostline.errors import StateError

COMMIT, DIRTY, EXPERIMENT, LOCK = "frostline.git_commit", "frostline.git_dirty", "DVC_EXP_NAME", "frostline.dvc_lock"

Hashes = dict[str, str]  # md5 by path


@dataclass(frozen=True)
class LockedStage:
    """What dvc.lock knows of a stage: md5 of its dependencies and outputs, and the values of its params."""

    deps: Hashes = field(default_factory=dict)
    outs: Hashes = field(default_factory=dict)
    params: dict[str, Any] = field(default_factory=dict)


def stages(dvc_lock: Path) -> dict[str, LockedStage]:
    """The stages that dvc.lock records, by name; none where there is no dvc.lock yet."""
    if not dvc_lock.is_file():
        return {}
    known = (plain_yaml.read(dvc_lock) or {}).get("stages") or {}

    def hashes(entries: list[dict[str, Any]]) -> Hashes:
        return {entry["path"]: entry["md5"] for entry in entries if "md5" in entry}

    return {
        name: LockedStage(
            hashes(stage.get("deps", [])),
            hashes(stage.get("outs", [])),
            {key: value for values in stage.get("params", {}).values() for key, value in values.items()},
        )
        for name, stage in known.items()
    }


def tags(dvc_lock: Path, inputs: list[Path], outputs: list[Path]) -> dict[str, str]:
    """What identifies the state of code and data while a stage runs, as tags of a run.

    inputs: outputs of earlier stages that the run reads, whose md5 dvc.lock knows. outputs: folders that the pipeline
    itself writes, so that they don't make the state count as dirty.
    """
    recorded = _outs(dvc_lock)
    found = {f"dvc.lock.{path}": recorded[str(path)] for path in inputs if str(path) in recorded}
    for name in (EXPERIMENT, "DVC_EXP_BASELINE_REV"):  # MLflow's own git tag shows the baseline inside `dvc exp`
        if value := os.environ.get(name):
            found[name] = value
    return found | _git_tags([dvc_lock, *outputs])


def state_tags(folder: Path, dvc_lock: Path) -> dict[str, str]:
    """What identifies a finished state of the project in that folder: nothing of it may differ from the commit."""
    outs = {f"dvc.lock.{path}": md5 for path, md5 in _outs(folder / dvc_lock).items()}
    return {**outs, LOCK: digest.of_file(folder / dvc_lock), **_git_tags([])}


def require_up_to_date() -> None:
    """Raise StateError where the stages' files are not what dvc.lock says, or there is no pipeline at all."""
    command = [sys.executable, "-m", "dvc", "status", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise StateError(f"dvc.lock: can't be compared with the files ({reason}); run it in the project's folder")
    changed = json.loads(done.stdout or "{}")
    if changed:
        raise StateError(f"dvc.lock: {', '.join(changed)} is not what it says; run `dvc repro` first")


def way_back(commit: str) -> list[str]:
    """The commands that bring a state back, in a clone of the repository."""
    return [f"git checkout {commit}", "dvc checkout  # or `dvc pull`, where the files are on a remote", "dvc repro"]


def is_revision(name: str) -> bool:
    """Whether git itself knows a commit by that name; DVC's experiments it does not."""
    return _git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}") is not None


def _git_tags(written: list[Path]) -> dict[str, str]:
    commit = _git("rev-parse", "HEAD")
    if not commit:
        return {}
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", *(f":(exclude){p}" for p in written))
    return {COMMIT: commit, DIRTY: str(changed != "").lower()}


def _git(*arguments: str) -> str | None:
    """Output of a git command, or None where there is no git or no repository."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _outs(dvc_lock: Path) -> Hashes:
    """md5 of each output that dvc.lock knows, by its path."""
    return {path: md5 for stage in stages(dvc_lock).values() for path, md5 in stage.outs.items()}
