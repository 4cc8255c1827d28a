"""MLflow's database in a file of this project, which is there whole or not at all."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

from frostline.core import atomic

AT_REST = 5.0  # seconds without a change after which nobody is still making a database


def file_of(uri: str) -> Path | None:
    """The file of a SQLite URI with an absolute path; None for other URIs."""
    path = uri.removeprefix("sqlite:///")
    return Path(path.partition("?")[0]) if path != uri and path.startswith("/") else None


def make(path: Path, artifacts: Path) -> None:
    """Make the database where there is none, or one without content. Call it under a lock.

    MLflow takes seconds to make it, in many steps, and refuses one that was killed between them. artifacts: where the
    default experiment's runs would keep their files.
    """
    while _is_without_content(path) and path.exists() and time.time() - path.stat().st_mtime < AT_REST:
        time.sleep(0.2)  # MLflow's own UI may be making it
    if not _is_without_content(path):
        return
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    with atomic.scratch(path) as folder:  # and not a file, because SQLite keeps a journal beside it
        SqlAlchemyStore(f"sqlite:///{folder / path.name}", artifacts.as_uri()).engine.dispose()
        (folder / path.name).replace(path)
    for left in ("-journal", "-wal", "-shm"):  # of the one that it replaces
        path.with_name(path.name + left).unlink(missing_ok=True)


def _is_without_content(path: Path) -> bool:
    """Whether a file is missing, or a database without a single experiment: MLflow adds the first one at the end."""
    if not path.exists():
        return True
    if not path.is_file():
        return False
    try:
        # For writing too: SQLite rolls back first what a killed process left in its journal.
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True)) as database:
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if "experiments" in tables and database.execute("SELECT COUNT(*) FROM experiments").fetchone() != (0,):
                return False
            return not tables or all(map(_is_mlflows, tables))
    except sqlite3.Error:  # no database, or one in use: MLflow says what it thinks of it
        return False


def _is_mlflows(table: str) -> bool:
    from mlflow.store.db.utils import Base

    return table in Base.metadata.tables or table.startswith(("alembic_", "_alembic_"))
