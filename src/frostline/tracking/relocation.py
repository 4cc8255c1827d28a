"""Where the files of runs lie, after the folder of the project was moved, renamed or copied.

MLflow keeps absolute paths in its database. It would resolve relative ones against the working directory of whatever
process reads them, so they are no way out. Only a database inside the project moves along with it, so no other one is
looked at.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from frostline.errors import StateError

# The columns of MLflow's tables that hold the path of a file or folder.
COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
BUSY = 20.0  # seconds to wait for another program that writes to the database


@dataclass(frozen=True)
class Corrected:
    """What a correction did. before: the folders that were recorded; kept: entries whose files lie only there."""

    before: tuple[Path, ...]
    changed: int
    kept: int


def path_of(location: str) -> Path:
    """The path of a location on this machine, which MLflow writes as a path or as a `file://` URI."""
    return Path(unquote(urlsplit(location).path) if location.startswith("file:") else location)


def require_in_place(database: Path, artifacts: Path) -> None:
    """Raise StateError if the experiments of a project's database have their files in another folder.

    artifacts: the project's folder for them.
    """
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
        before = _places_before(connection, database, artifacts)
        if before:
            raise StateError(
                f"{database}: was made in {path_of(before[0]).parent}, and this project is in {artifacts.parent}: it "
                "was moved or copied; `frostline sync --moved` corrects the places of the files of its runs"
            )


def correct(database: Path, artifacts: Path) -> Corrected:
    """Record the present places of all files, in one transaction. What lies only in the old place stays there."""
    with closing(sqlite3.connect(database, timeout=BUSY, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        before = _places_before(connection, database, artifacts)
        changed = kept = 0
        for table, column, row, location in _entries(connection):
            now = _moved(location, before, artifacts)
            if now is None:
                continue
            if table != "experiments" and path_of(location).exists() and not path_of(now).exists():
                kept += 1
                continue
            connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (now, row))
            changed += 1
        connection.execute("COMMIT")
    return Corrected(tuple(map(path_of, before)), changed, kept)


def _places_before(connection: sqlite3.Connection, database: Path, artifacts: Path) -> list[str]:
    """The folders of the same name elsewhere that experiments have their files in."""
    if not database.is_relative_to(artifacts.parent):
        return []
    places = set()
    for experiment, location in connection.execute("SELECT experiment_id, artifact_location FROM experiments"):
        place = (location or "").removesuffix(f"/{experiment}")  # MLflow's default one has a folder of its own
        path = path_of(place)
        if path.is_absolute() and path.name == artifacts.name and path != artifacts:
            places.add(place)
    return sorted(places)


def _entries(connection: sqlite3.Connection) -> Iterator[tuple[str, str, int, str]]:
    """Table, column, row and value of everything that may be a path."""
    for table, column in COLUMNS:
        rows = connection.execute(f"SELECT rowid, {column} FROM {table} WHERE {column} IS NOT NULL")
        yield from ((table, column, row, location) for row, location in rows.fetchall())


def _moved(location: str, before: list[str], artifacts: Path) -> str | None:
    """A location under the present folder; None if it lies in none of the old ones."""
    for place in before:
        rest = location.removeprefix(place)
        if rest != location and rest[:1] in {"", "/"}:
            return (artifacts.as_uri() if place.startswith("file:") else str(artifacts)) + rest
    return None
