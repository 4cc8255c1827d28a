"""What is wrong with an SQLite file, by the code of its error: one line with the fix."""

from __future__ import annotations

import sqlite3

DAMAGED = "is damaged; move it away ({lost} are lost, trained models are not), {else_}"

# What SQLite says, by its error codes (https://www.sqlite.org/rescode.html), and how to go on.
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
    """SQLite's own code, without the details, of an error or of what caused it; None where SQLite had no part."""
    while error is not None:
        for known in (error, getattr(error, "orig", None)):
            found = getattr(known, "sqlite_errorcode", None)
            if found is not None:
                return int(found) & 0xFF
        error = error.__cause__ or error.__context__
    return None


def told(code: int, file: str, lost: str, else_: str) -> str | None:
    """The line on a file; None for a code that is not known. lost: what it held; else_: another way to go on."""
    words = CODES.get(code)
    return None if words is None else f"{file}: {words.format(lost=lost, else_=else_)}"
