"""Messages for the errors of a study's storage: one line with the fix, without passwords."""

from __future__ import annotations

from typing import TYPE_CHECKING

from frostline.core import database_errors
from frostline.core.masking import masked

if TYPE_CHECKING:
    from sqlalchemy.exc import DBAPIError

LOST, ANOTHER = "its studies", "or set sweep.storage to another place"


def place(url: str) -> str:
    """The name of a storage in messages: the path of a file, or the key and the URL."""
    if url.startswith("sqlite:///"):
        return url.removeprefix("sqlite:///")
    return f"params.yaml: sweep.storage {masked('%20'.join(url.split()))}"


def of_driver(error: BaseException | None) -> DBAPIError | None:
    """The error of the database driver behind those of Optuna and SQLAlchemy, or None."""
    from sqlalchemy.exc import DBAPIError

    while error is not None:
        if isinstance(error, DBAPIError):
            return error
        error = error.__cause__ or error.__context__
    return None


def is_away(error: DBAPIError) -> bool:
    """Whether the database does not answer now, and may do so later."""
    from sqlalchemy.exc import InterfaceError, OperationalError

    is_file = database_errors.code(error) is not None
    return not is_file and (error.connection_invalidated or isinstance(error, OperationalError | InterfaceError))


def in_use(error: DBAPIError, storage: str) -> str:
    """What is wrong with a database that was opened, and the fix. storage: see `place`."""
    code = database_errors.code(error)
    if code is not None:
        message = database_errors.message(code, storage, LOST, ANOTHER)
        return message or f"{storage}: can't be used ({reason(error)}); move it away, {ANOTHER}"
    if is_away(error):
        return (
            f"{storage} is not reachable ({reason(error)}); check that the database runs, and that host, port, user, "
            "password and name are right"
        )
    return f"{storage} refuses to work ({reason(error)}); let its user create tables and change them"


def in_opening(error: Exception, url: str) -> str:
    """Why a database could not be opened, and the fix."""
    from sqlalchemy.exc import ArgumentError

    storage, driver_error = place(url), of_driver(error)
    if driver_error is not None:
        return in_use(driver_error, storage)
    if isinstance(error, ImportError):
        driver = "'frostline[postgres]'" if url.startswith("postgres") else _missing(error)
        return f"{storage} needs a driver that is not installed; pip install {driver}"
    if isinstance(error, ArgumentError | ValueError):
        return (
            f"{storage} is no URL of a database ({reason(error)}); write postgresql+psycopg://USER:PASSWORD@HOST/NAME, "
            "auto or journal"
        )
    return f"{storage} can't be used ({reason(error)}); {ANOTHER.removeprefix('or ')}"


def damaged(file: str) -> str:
    """The message for a file whose content makes no sense."""
    return f"{file}: {database_errors.DAMAGED.format(lost=LOST, else_=ANOTHER)}"


def reason(error: Exception) -> str:
    """The words of the driver, or of the error itself, in one line."""
    words = getattr(error, "orig", None) or error
    return masked(" ".join(str(words).split()))[:160]


def _missing(error: BaseException | None) -> str:
    """The module that was not found: Optuna's own error does not say which."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and error.name:
            return error.name
        error = error.__cause__
    return "the one that SQLAlchemy names for it"
