"""Where a run comes from: git, DVC's experiment, the stages that dvc.lock records."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


def tags(dvc_lock: Path, inputs: list[Path], outputs: list[Path]) -> dict[str, str]:
    """What identifies the state of code and data, as tags of a run.

    inputs: outputs of earlier stages that the run reads, whose md5 dvc.lock knows. outputs: folders that the pipeline
    itself writes, so that they don't make the state count as dirty.
    """
    recorded = _stage_outputs(dvc_lock)
    found = {f"dvc.lock.{path}": recorded[str(path)] for path in inputs if str(path) in recorded}
    for name in ("DVC_EXP_NAME", "DVC_EXP_BASELINE_REV"):  # MLflow's own git tag shows the baseline inside `dvc exp`
        if value := os.environ.get(name):
            found[name] = value
    commit = _git("rev-parse", "HEAD")
    if commit:
        ours = [f":(exclude){path}" for path in [dvc_lock, *outputs]]
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", *ours)
        found |= {"frostline.git_commit": commit, "frostline.git_dirty": str(changed != "").lower()}
    return found


def _git(*arguments: str) -> str | None:
    """Output of a git command, or None where there is no git or no repository."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _stage_outputs(dvc_lock: Path) -> dict[str, str]:
    """md5 of each output that dvc.lock knows, by its path; nothing where there is no dvc.lock yet."""
    from ruamel.yaml import YAML

    if not dvc_lock.is_file():
        return {}
    stages = (YAML(typ="safe", pure=True).load(dvc_lock) or {}).get("stages") or {}
    return {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", []) if "md5" in out}
