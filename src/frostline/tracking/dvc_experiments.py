"""The experiments of `dvc exp run`: which of them holds a state of the project.

DVC keeps an experiment as a git commit that no branch has, under `refs/exps/<commit that it began with>/<its name>`.
After `dvc exp apply`, git shows the state as uncommitted changes although that commit holds it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from frostline.tracking import git

# Other names below refs/exps/ are notes that DVC makes for itself.
REF = re.compile(r"refs/exps/[0-9a-f]{2}/[0-9a-f]{38,}/(?P<name>.+)")


@dataclass(frozen=True)
class Experiment:
    """An experiment of DVC. commit: the git commit that holds its files."""

    name: str
    commit: str


def holding(dvc_lock: Path, preferred: str | None = None) -> Experiment | None:
    """The experiment whose dvc.lock is the same as this file; None if there is none.

    dvc.lock has the digests of everything that a state was made from and of what was made, so it stands for the state.
    Of several experiments, the one named `preferred` is taken, or else the newest.
    """
    content = git.output("hash-object", "--", str(dvc_lock))
    path = git.output("ls-files", "--full-name", "--", str(dvc_lock))
    if not content or not path:
        return None
    experiments = _all()
    objects = git.output(
        "cat-file", "--batch-check=%(objectname)", text="".join(f"{each.commit}:{path}\n" for each in experiments)
    )
    found = [
        experiment
        for experiment, line in zip(experiments, (objects or "").splitlines(), strict=False)
        if line == content
    ]
    return next((experiment for experiment in found if experiment.name == preferred), next(iter(found), None))


def _all() -> list[Experiment]:
    """All experiments of the repository, the newest first."""
    lines = git.output("for-each-ref", "--sort=-creatordate", "--format=%(objectname) %(refname)", "refs/exps/") or ""
    parts = (line.split(" ", 1) for line in lines.splitlines())
    return [Experiment(match["name"], commit) for commit, ref in parts if (match := REF.fullmatch(ref))]
