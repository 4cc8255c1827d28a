"""Where a run comes from: git, DVC's experiment and dvc.lock; and how to restore that state."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from frostline.core import digest, plain_yaml
from frostline.errors import StateError
from frostline.tracking import dvc_experiments, git

COMMIT, DIRTY, EXPERIMENT, LOCK = "frostline.git_commit", "frostline.git_dirty", "DVC_EXP_NAME", "frostline.dvc_lock"

Hashes = dict[str, str]  # md5 by path


@dataclass(frozen=True)
class LockedStage:
    """A stage in dvc.lock: the md5 of its dependencies and outputs, and the values of its params."""

    deps: Hashes = field(default_factory=dict)
    outs: Hashes = field(default_factory=dict)
    params: dict[str, Any] = field(default_factory=dict)


def stages(dvc_lock: Path) -> dict[str, LockedStage]:
    """The stages in dvc.lock by name; none if there is no dvc.lock yet."""
    if not dvc_lock.is_file():
        return {}
    entries = (plain_yaml.read(dvc_lock) or {}).get("stages") or {}

    def hashes(files: list[dict[str, Any]]) -> Hashes:
        return {file["path"]: file["md5"] for file in files if "md5" in file}

    return {
        name: LockedStage(
            hashes(stage.get("deps", [])),
            hashes(stage.get("outs", [])),
            {key: value for values in stage.get("params", {}).values() for key, value in values.items()},
        )
        for name, stage in entries.items()
    }


def inputs(dvc_lock: Path, outputs: list[Path]) -> Hashes:
    """The md5 in dvc.lock of those outputs of earlier stages that a run reads."""
    recorded = {path: md5 for stage in stages(dvc_lock).values() for path, md5 in stage.outs.items()}
    return {str(path): recorded[str(path)] for path in outputs if str(path) in recorded}


def tags(dvc_lock: Path, outputs: list[Path]) -> dict[str, str]:
    """Tags that identify the state of the code while a stage runs.

    outputs: folders that the pipeline itself writes, which therefore don't count as uncommitted changes.
    """
    tags = {}
    for name in (EXPERIMENT, "DVC_EXP_BASELINE_REV"):  # MLflow's own git tag shows the baseline inside `dvc exp`
        if value := os.environ.get(name):
            tags[name] = value
    return tags | _git_tags([dvc_lock, *outputs])


def running_experiment() -> str | None:
    """The name of the DVC experiment that this process works for; None outside `dvc exp run`."""
    return os.environ.get(EXPERIMENT)


def state_tags(folder: Path, dvc_lock: Path) -> dict[str, str]:
    """Tags that identify a finished state of the project in a folder. Any change since the commit counts as dirty."""
    return {LOCK: digest.of_file(folder / dvc_lock), **_git_tags([])}


def with_experiment(tags: Mapping[str, str], dvc_lock: Path, trained_in: str | None) -> dict[str, str]:
    """The tags of a state, with the DVC experiment that it belongs to and, if HEAD lacks it, that experiment's commit.

    trained_in: the experiment that the tags of the training's run name. A state with the same dvc.lock is the same to
    all stages, so it is clean even if other files differ.
    """
    found = {EXPERIMENT: trained_in, **tags} if trained_in else dict(tags)
    if tags.get(DIRTY) == "true" and (experiment := dvc_experiments.holding(dvc_lock, trained_in)):
        found |= {EXPERIMENT: experiment.name, COMMIT: experiment.commit, DIRTY: "false"}
    return found


def require_up_to_date() -> None:
    """Raise StateError if the files of the stages differ from dvc.lock, or if there is no pipeline."""
    command = [sys.executable, "-m", "dvc", "status", "--json"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise StateError(f"dvc.lock: can't be compared with the files ({reason}); run it in the project's folder")
    changed = json.loads(result.stdout or "{}")
    if changed:
        raise StateError(f"dvc.lock: {', '.join(changed)} differs from it; run `dvc repro` first")


def way_back(commit: str, experiment: str | None, is_dirty: bool) -> list[str]:
    """The commands that restore a state in a clone of the repository.

    experiment: the DVC experiment that the state belongs to; is_dirty: the commit lacks a part of the state.
    """
    pull = f"  # a clone may need `dvc exp pull origin {experiment}` first" if experiment else ""
    apply = [f"dvc exp apply {experiment}"] if experiment and is_dirty else []
    return [
        f"git checkout {commit}{pull}",
        *apply,
        "dvc checkout  # or `dvc pull`, if the files are on a remote",
        "dvc repro",
    ]


def is_revision(name: str) -> bool:
    """Whether git has a commit by that name; it does not know the names of DVC's experiments."""
    return git.output("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}") is not None


def _git_tags(written: list[Path]) -> dict[str, str]:
    commit = git.output("rev-parse", "HEAD")
    if not commit:
        return {}
    excluded = [f":(exclude){path}" for path in written]
    changed = git.output("status", "--porcelain", "--untracked-files=no", "--", ".", *excluded)
    return {COMMIT: commit, DIRTY: str(changed != "").lower()}
