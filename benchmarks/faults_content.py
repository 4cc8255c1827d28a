"""What a project of faults.py holds: what must be the same whether a command was killed or not, and what is left over.

Times, process numbers and random ids are left out. Databases are read by SQL, so that nothing is repaired by reading.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections import defaultdict
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

Content = dict[str, str]

OUTPUTS = ("data/prepared", "data/augmented", "models", "reports", "exported")
BY_NAME = ("reports/sweep/", "exported/saved_model/")  # files that hold times or random ids: their names count alone
NOT_SAME = {"seconds"}  # metrics
# Tags that say ids, or what was in the store of features when a training began.
PASSING = {"frostline.study", "frostline.plan", "mlflow.parentRunId", "mlflow.user", "mlflow.log-model.history"}
LEFT = (
    re.compile(r"(^|/)\.[^/]*\.part(\.[^/]*)?(/|$)"),
    re.compile(r"(^|/)worker-"),
    re.compile(r"outbox/.*calls\.jsonl$"),
    re.compile(r"\.snapshot$"),
    re.compile(r"-(journal|wal|shm)$"),
)


def of(project: Path) -> Content:
    """Everything that must come out the same, by names that say what differs."""
    return _files(project) | tracked(project / "mlflow.db") | _study(project / ".frostline/optuna.db")


def differences(found: Content, expected: Content) -> list[str]:
    """Names of what differs."""
    return sorted(key for key in found.keys() | expected.keys() if found.get(key) != expected.get(key))


def names(project: Path) -> set[str]:
    """All files, with random ids and process numbers replaced."""
    files = (path.relative_to(project).as_posix() for path in project.rglob("*") if path.is_file())
    return {_plain(file) for file in files if not file.startswith((".git/", ".dvc/"))}


def leftovers(project: Path, temporary: Path, usual: Iterable[str]) -> list[str]:
    """Files of unfinished work, files beyond the usual ones, and what lies in the folder of temporary files."""
    paths = [path.relative_to(project).as_posix() for path in project.rglob("*")]
    partial = [path for path in paths if any(pattern.search(path) for pattern in LEFT)]
    extra = [name for name in names(project) - set(usual) if not any(pattern.search(name) for pattern in LEFT)]
    return [*partial, *sorted(extra), *sorted(f"TMPDIR/{path.name}" for path in temporary.iterdir())]


def moves(project: Path) -> tuple[list[dict[str, Any]], bool]:
    """The recorded moves of `champion`, the oldest first, and whether one was begun and not finished."""
    with closing(sqlite3.connect(project / "mlflow.db")) as database:
        tags = dict(database.execute("SELECT key, value FROM registered_model_tags"))
    done = [json.loads(tags[key]) for key in sorted(tags) if key.startswith("frostline.move.")]
    return done, "frostline.intent" in tags


def _plain(name: str) -> str:
    return re.sub(r"[0-9a-f]{32}|(?<=sha256-)[0-9a-f]+|\b\d+-[0-9a-f]{8}\b", "ID", name)


def _files(project: Path) -> Content:
    found = {}
    for folder in OUTPUTS:
        for path in sorted((project / folder).rglob("*")):
            name = path.relative_to(project).as_posix()
            if path.is_file() and (not name.startswith(BY_NAME) or path.name == "best_params.yaml"):
                found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def tracked(path: Path) -> Content:
    """What MLflow's database says."""
    if not path.exists():
        return {}
    with closing(sqlite3.connect(path)) as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        experiments = list(database.execute("SELECT name, artifact_location FROM experiments ORDER BY name"))
        revision = list(database.execute("SELECT version_num FROM alembic_version"))
        made = {"mlflow: tables": _text(sorted(tables)), "mlflow: experiments": _text([experiments, revision])}
        return made | _runs(database) | _versions(database)


def _runs(database: sqlite3.Connection) -> Content:
    found: Content = {}
    rows: dict[str, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    for run, key, value in database.execute("SELECT run_uuid, key, value FROM tags"):
        rows[run]["tags"].append((key, None if key in PASSING else value))
    for run, key, value in database.execute("SELECT run_uuid, key, value FROM params"):
        rows[run]["params"].append((key, value))
    for run, key, step, value in database.execute("SELECT run_uuid, key, step, value FROM metrics"):
        rows[run]["metrics"].append((key, step, None if key in NOT_SAME else value))
    living = "SELECT source_run_id, status FROM logged_models WHERE lifecycle_stage = 'active'"
    for run, status in database.execute(living):
        rows[run]["models"].append(status)
    for run, digest in database.execute(
        "SELECT i.destination_id, d.digest FROM inputs i JOIN datasets d ON d.dataset_uuid = i.source_id"
    ):
        rows[run]["inputs"].append(digest)
    for run, status, stage in database.execute("SELECT run_uuid, status, lifecycle_stage FROM runs"):
        tags = dict(rows[run]["tags"])
        known = {"of trial": tags.get("frostline.trial"), "of bundle": tags.get("frostline.bundle", "")[:8]}
        label = " ".join(["mlflow: run", *(f"{key} {value}" for key, value in known.items() if value)])
        while f"{label}, status" in found:
            label += " again"
        found[f"{label}, status"] = f"{status} {stage}"
        for kind in ("tags", "params", "metrics", "models", "inputs"):
            found[f"{label}, {kind}"] = _text(sorted(rows[run][kind]))
    return found


def _versions(database: sqlite3.Connection) -> Content:
    versions = database.execute("SELECT name, version, description FROM model_versions ORDER BY name, version")
    tags = [
        (version, key, re.sub(r"^\d{4}-\d\d-\d\dT\S+Z: ", "", value))
        for version, key, value in database.execute("SELECT version, key, value FROM model_version_tags")
    ]
    moved = [
        (re.sub(r"(?<=frostline\.move\.).*", "", key), {**json.loads(value), "time": ""})
        for key, value in database.execute("SELECT key, value FROM registered_model_tags ORDER BY key")
    ]
    aliases = database.execute("SELECT alias, version FROM registered_model_aliases ORDER BY alias")
    return {
        "registry: versions": _text(list(versions)),
        "registry: tags": _text(sorted(tags)),
        "registry: moves": _text(moved),
        "registry: aliases": _text(list(aliases)),
    }


def _study(path: Path) -> Content:
    """The trials of the studies in Optuna's database."""
    if not path.exists():
        return {}
    found = {}
    with closing(sqlite3.connect(path)) as database:
        for trial, number, state in list(database.execute("SELECT trial_id, number, state FROM trials")):
            said = {
                "params": "SELECT param_name, param_value FROM trial_params WHERE trial_id = ?",
                "values": "SELECT objective, value FROM trial_values WHERE trial_id = ?",
                "reports": "SELECT step, intermediate_value FROM trial_intermediate_values WHERE trial_id = ?",
            }
            rows = {key: sorted(database.execute(query, (trial,))) for key, query in said.items()}
            found[f"study: trial {number}"] = _text([state, rows])
    return found


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
