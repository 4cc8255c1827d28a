"""One flipped bit in each kind of file that a project of faults.py keeps, and what the command that reads it says."""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import faults_content
from faults_project import Place

Row = tuple[str, str, str, str, str, str]


@dataclass(frozen=True)
class Kind:
    """Files of one kind. start: the kept state that has them; pattern: from the project; command: what reads them."""

    name: str
    start: str
    pattern: str
    command: Sequence[str]


KINDS = (
    Kind("prepared images, read by training", "augmented", "data/prepared/[tv][ra]*/*", ["finetune"]),
    Kind("prepared images, read by evaluation", "trained", "data/prepared/test/*", ["evaluate"]),
    Kind("augmented images", "augmented", "data/augmented/*/*", ["finetune"]),
    Kind("stored features", "trained", ".frostline/features/**/*", ["finetune"]),
    Kind("checkpoint of a killed training", "half trained", ".frostline/checkpoints/*.snapshot", ["finetune"]),
    Kind("bundle", "trained", "models/classifier/*", ["evaluate"]),
    Kind("reports, read by register", "committed", "reports/**/*", ["register"]),
    Kind("predictions kept in MLflow", "challenged", "mlartifacts/*/artifacts/evaluations/*/*.parquet", ["promote"]),
    Kind("paused trials", "half searched", ".frostline/sweeps/**/*.snapshot", ["sweep"]),
    Kind("Optuna's database (SQLite)", "half searched", ".frostline/optuna.db", ["sweep"]),
    Kind("MLflow's database (SQLite)", "challenged", "mlflow.db", ["promote"]),
)


def row(place: Place, kind: Kind, seed: int, flips: int) -> Row:
    """Flip so many bits, each in a fresh copy; how often it was noticed, mattered not, or did harm."""
    place.use(kind.start)
    place.run(kind.command)
    expected = faults_content.of(place.project)
    found = {"detected": 0, "harmless": 0, "wrong": 0}
    harm = []
    for number in range(flips):
        drawn = random.Random(f"{seed} {kind.name} {number}")
        place.use(kind.start)
        file = flip(place.project, kind.pattern, drawn)
        status, printed = place.run(kind.command, ok=False)
        outcome, why = judged(place, status, printed, expected, file)
        found[outcome] += 1
        print(f"{kind.name}: {file}: {outcome} {why}", flush=True)
        harm += [f"{file.name}: {why}"] if outcome == "wrong" else []
    said = "; ".join(harm).replace("|", "\\|")[:300]
    return (kind.name, str(flips), *(str(found[key]) for key in ("detected", "harmless", "wrong")), said)


def flip(project: Path, pattern: str, drawn: random.Random) -> Path:
    """Flip one bit of one of the files; which one, from the project."""
    files = sorted(path for path in project.glob(pattern) if path.is_file() and path.stat().st_size)
    file = drawn.choice(files)
    content = bytearray(file.read_bytes())
    place = drawn.randrange(len(content))
    content[place] ^= 1 << drawn.randrange(8)
    changed = file.with_name(f"{file.name}.changed")
    changed.write_bytes(content)
    shutil.copystat(file, changed)
    changed.replace(file)  # a file may be a hard link to another one
    return file.relative_to(project)


def judged(place: Place, status: int, printed: str, expected: faults_content.Content, file: Path) -> tuple[str, str]:
    """detected, harmless or wrong; and why."""
    lines = [line for line in printed.splitlines() if line.startswith(("error:", "warning:"))]
    told = " ".join(lines)[-200:]
    if status == 2 and lines:
        return "detected", told
    if status:
        return "wrong", f"exit status {status}: {told or printed[-200:]}"
    try:
        content = faults_content.of(place.project)
    except Exception as error:  # a database that can't be read any more
        return "wrong", f"unnoticed, and unreadable afterwards: {error}"
    differ = [key for key in faults_content.differences(content, expected) if key != file.as_posix()]
    if differ:
        return "wrong", f"{'after a warning' if lines else 'unnoticed'}, differs: {', '.join(differ)}"
    return ("detected", told) if lines else ("harmless", "")
