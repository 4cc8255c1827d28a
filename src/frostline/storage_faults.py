"""What is wrong with the place of a study, by the type of its error: one line with the fix, without passwords."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from frostline.masking import masked

if TYPE_CHECKING:
    from sqlalchemy.exc import DBAPIError

ANOTHER = "or set sweep.storage to another place"
DAMAGED = f"is damaged; move it away (its studies are lost, trained models are not), {ANOTHER}"

# What SQLite says, by its error codes, and how to go on.
OF_SQLITE = {
    sqlite3.SQLITE_NOTADB: DAMAGED.replace("damaged", "not a database"),
    sqlite3.SQLITE_CORRUPT: DAMAGED,
    sqlite3.SQLITE_CANTOPEN: f"can't be opened; make its folder, and both readable and writable, {ANOTHER}",
    sqlite3.SQLITE_PERM: f"can't be written; change its permissions, {ANOTHER}",
    sqlite3.SQLITE_READONLY: f"can't be written; change its permissions, {ANOTHER}",
    sqlite3.SQLITE_FULL: "no space left on the disk; free some and run it again: the study continues",
    sqlite3.SQLITE_BUSY: "another program holds it; end that and run it again: the study continues",
    sqlite3.SQLITE_IOERR: f"its disk fails; check the disk, {ANOTHER}",
}


def place(url: str) -> str:
    """How a message names a storage: a file by its path, all else by the key and the URL."""
    if url.startswith("sqlite:///"):
        return url.removeprefix("sqlite:///")
    return f"params.yaml: sweep.storage {masked('%20'.join(url.split()))}"


def of_driver(error: BaseException | None) -> DBAPIError | None:
    """The driver's error behind Optuna's and SQLAlchemy's own; None where there is none."""
    from sqlalchemy.exc import DBAPIError

    while error is not None:
        if isinstance(error, DBAPIError):
            return error
        error = error.__cause__ or error.__context__
    return None


def is_away(error: DBAPIError) -> bool:
    """Whether the database does not answer now, and may do so later."""
    from sqlalchemy.exc import InterfaceError, OperationalError

    is_file = _sqlite_code(error) is not None
    return not is_file and (error.connection_invalidated or isinstance(error, OperationalError | InterfaceError))


def in_use(error: DBAPIError, named: str) -> str:
    """What is wrong with a database that was opened, and the fix. named: by `place`."""
    code = _sqlite_code(error)
    if code is not None:
        return f"{named}: {OF_SQLITE.get(code, f'can not be used ({reason(error)}); move it away, {ANOTHER}')}"
    if is_away(error):
        return (
            f"{named} is not reachable ({reason(error)}); check that the database runs, and that host, port, user, "
            "password and name are right"
        )
    return f"{named} refuses to work ({reason(error)}); let its user create tables and change them"


def in_opening(error: Exception, url: str) -> str:
    """Why a database could not be opened, and the fix."""
    from sqlalchemy.exc import ArgumentError

    named, of_database = place(url), of_driver(error)
    if of_database is not None:
        return in_use(of_database, named)
    if isinstance(error, ImportError):
        driver = "'frostline[postgres]'" if url.startswith("postgres") else _missing(error)
        return f"{named} needs a driver that is not installed; pip install {driver}"
    if isinstance(error, ArgumentError | ValueError):
        return (
            f"{named} is no URL of a database ({reason(error)}); write postgresql+psycopg://USER:PASSWORD@HOST/NAME, "
            "auto or journal"
        )
    return f"{named} can't be used ({reason(error)}); {ANOTHER.removeprefix('or ')}"


def reason(error: Exception) -> str:
    """The words of the driver where it has some, in one line."""
    said = getattr(error, "orig", None) or error
    return masked(" ".join(str(said).split()))[:160]


def _sqlite_code(error: DBAPIError) -> int | None:
    code = getattr(error.orig, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF  # without the details


def _missing(error: BaseException | None) -> str:
    """The module that was not found: Optuna's own error does not say which."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and error.name:
            return error.name
        error = error.__cause__
    return "the one that SQLAlchemy names for it"
