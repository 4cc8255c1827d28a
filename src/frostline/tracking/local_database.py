"""MLflow's database in a file of this project, which exists complete or not at all."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

from frostline.core import atomic
from frostline.errors import StateError

AT_REST = 5.0  # seconds without a change, after which no process is still creating a database


def file_of(uri: str) -> Path | None:
    """The file of a SQLite URI with an absolute path; None for other URIs."""
    path = uri.removeprefix("sqlite:///")
    return Path(path.partition("?")[0]) if path != uri and path.startswith("/") else None


def create(path: Path, artifacts: Path) -> None:
    """Create the database if there is none, or one without content. Call it under a lock.

    MLflow takes seconds to create it, in many steps, and refuses one that was left between two steps. artifacts: the
    folder for the files of the default experiment. Raises StateError if a folder is in the way.
    """
    if path.is_dir():
        raise StateError(f"{path}: is a folder, where MLflow's database belongs; move it away, or set tracking.uri")
    while _is_without_content(path) and path.exists() and time.time() - path.stat().st_mtime < AT_REST:
        time.sleep(0.2)  # MLflow's own UI may be creating it
    if not _is_without_content(path):
        return
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    with atomic.scratch(path) as folder:  # not a file, because SQLite keeps a journal beside it
        SqlAlchemyStore(f"sqlite:///{folder / path.name}", artifacts.as_uri()).engine.dispose()
        (folder / path.name).replace(path)
    for left in ("-journal", "-wal", "-shm"):  # of the file that it replaces
        path.with_name(path.name + left).unlink(missing_ok=True)


def _is_without_content(path: Path) -> bool:
    """Whether a file is missing or has no experiment. MLflow adds the first experiment at the end of the creation."""
    if not path.exists():
        return True
    if not path.is_file():
        return False
    try:
        # Read and write, so that SQLite first rolls back what a killed process left in its journal.
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True)) as database:
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if "experiments" in tables and database.execute("SELECT COUNT(*) FROM experiments").fetchone() != (0,):
                return False
            return not tables or all(map(_is_mlflows, tables))
    except sqlite3.Error:  # not a database, or one in use, which MLflow will report
        return False


def _is_mlflows(table: str) -> bool:
    from mlflow.store.db.utils import Base

    return table in Base.metadata.tables or table.startswith(("alembic_", "_alembic_"))
