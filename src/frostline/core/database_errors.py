"""Messages for errors of an SQLite file, by the code of the error: one line with the fix."""

from __future__ import annotations

import sqlite3

DAMAGED = "is damaged; move it away ({lost} are lost, trained models are not), {else_}"

# Messages with the fix, by SQLite's error codes (https://www.sqlite.org/rescode.html).
CODES = {
    sqlite3.SQLITE_NOTADB: DAMAGED.replace("damaged", "not a database"),
    sqlite3.SQLITE_CORRUPT: DAMAGED,
    sqlite3.SQLITE_CANTOPEN: "can't be opened; make its folder, and both readable and writable, {else_}",
    sqlite3.SQLITE_PERM: "can't be written; change its permissions, {else_}",
    sqlite3.SQLITE_READONLY: "can't be written; change its permissions, {else_}",
    sqlite3.SQLITE_FULL: "no space left on its disk; free some and run it again",
    sqlite3.SQLITE_BUSY: "another program holds it; end that and run it again",
    sqlite3.SQLITE_IOERR: "its disk fails; check the disk, {else_}",
}


def code(error: BaseException | None) -> int | None:
    """SQLite's primary error code of an error or its cause; None if the error is not from SQLite."""
    while error is not None:
        for candidate in (error, getattr(error, "orig", None)):
            sqlite_code = getattr(candidate, "sqlite_errorcode", None)
            if sqlite_code is not None:
                return int(sqlite_code) & 0xFF
        error = error.__cause__ or error.__context__
    return None


def message(code: int, file: str, lost: str, else_: str) -> str | None:
    """The message for a file; None for an unknown code. lost: the content of the file; else_: another fix."""
    template = CODES.get(code)
    return None if template is None else f"{file}: {template.format(lost=lost, else_=else_)}"
