"""What `frostline doctor` says of MLflow: whether the next run can be recorded."""

from __future__ import annotations

import os
import sqlite3

from frostline.core import atomic, database_errors
from frostline.core.masking import masked
from frostline.errors import StateError
from frostline.params.schema import TrackingSection
from frostline.tracking import local_database
from frostline.tracking import tracker as tracking


def line(settings: TrackingSection) -> str:
    """A line about the place of the runs. Raises StateError if no run can be recorded there, or old ones not found.

    A database that does not exist yet is not made.
    """
    tracker = tracking.tracker(settings)
    if tracker.uri == "none":
        return "tracking: off (tracking.uri is none)"
    file = local_database.file_of(tracker.uri)
    if file is not None and not file.exists():
        atomic.require_writable(file.parent)
        return f"tracking: the first run makes {file}"
    if file is not None and not os.access(file, os.W_OK):
        raise StateError(
            database_errors.message(sqlite3.SQLITE_READONLY, str(file), "", "or set tracking.uri to another place")
        )
    tracker.connect()
    tracker.require_writable()
    return f"tracking: {masked(tracker.uri)}, experiment {tracker.experiment}"
