"""Whether MLflow answers. Its errors become errors of one line that name the fix."""

from __future__ import annotations

import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from frostline.core import database_errors
from frostline.core.masking import masked
from frostline.errors import StateError, UnreachableError
from frostline.tracking import database_schema

PAUSE = 30.0  # seconds without a call to a server that did not answer

FIX = (
    "; start its server, fix tracking.uri in params.yaml or MLFLOW_TRACKING_URI, or set tracking.uri to none to train "
    "without records"
)

# MLflow's codes of errors that the same call would raise again.
REFUSALS = {
    "ALREADY_EXISTS",
    "BAD_REQUEST",
    "ENDPOINT_NOT_FOUND",
    "INVALID_PARAMETER_VALUE",
    "INVALID_STATE",
    "NOT_FOUND",
    "NOT_IMPLEMENTED",
    "PERMISSION_DENIED",
    "RESOURCE_ALREADY_EXISTS",
    "RESOURCE_DOES_NOT_EXIST",
}

# What a server says that is called by a name which is not among its `--allowed-hosts`.
FOREIGN_HOST = "Invalid Host header"

# The codes for a user that the server does not know, or for a wrong password.
STRANGERS = {"CUSTOMER_UNAUTHORIZED", "UNAUTHENTICATED"}


@contextmanager
def reachable(uri: str, *others: type[Exception]) -> Iterator[None]:
    """Turn the errors of MLflow in the block, and those of the types `others`, into a StateError that names the fix.

    It is an UnreachableError if the same call may work later.
    """
    from mlflow.exceptions import MlflowException
    from requests import RequestException

    try:
        yield
    except (MlflowException, RequestException, *others) as error:
        other_schema = database_schema.message(uri, error)
        if other_schema is not None:
            raise StateError(other_schema) from error
        code = database_errors.code(error)
        if code is not None and code != sqlite3.SQLITE_BUSY:
            file = uri.removeprefix("sqlite:///")
            message = database_errors.message(code, file, "its runs", "or set tracking.uri to another place")
            if message is not None:
                raise StateError(message) from error
        reason = masked(" ".join(str(error).split()))[:160]
        if isinstance(error, MlflowException) and error.error_code in STRANGERS:
            raise StateError(
                f"{masked(uri)}: MLflow's server does not accept this user and password; fix those in tracking.uri, or "
                "in MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            ) from error
        if isinstance(error, MlflowException) and error.error_code in REFUSALS:
            fix = "look at the run in its UI, and at tracking.uri"
            if FOREIGN_HOST in reason:
                fix = "start the server with this name among its --allowed-hosts, or use another of its names"
            raise StateError(f"{masked(uri)}: MLflow refused a call ({reason}); {fix}") from error
        raise UnreachableError(f"{masked(uri)}: tracking is not reachable ({reason}){FIX}") from error


class Contact:
    """A server that gets no calls for a while after a call that it did not answer."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._retry_at = 0.0
        self._last: UnreachableError | None = None

    @contextmanager
    def answering(self) -> Iterator[None]:
        """A block of calls. During the pause it raises UnreachableError at once, without a call."""
        if self._last is not None and time.monotonic() < self._retry_at:
            raise self._last
        try:
            with reachable(self.uri):
                yield
        except UnreachableError as error:
            if self._last is None:
                print(
                    f"warning: {str(error).removesuffix(FIX)}; the work continues and its records are kept",
                    file=sys.stderr,
                )
            self._last, self._retry_at = error, time.monotonic() + PAUSE
            raise
        self._last = None

    def retry(self) -> None:
        """End the pause, so that the next block calls the server."""
        self._retry_at = 0.0
