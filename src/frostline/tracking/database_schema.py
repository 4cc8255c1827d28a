"""A database that another version of MLflow made. MLflow says of an older and of a newer one alike: upgrade it."""

from __future__ import annotations

import re
from importlib.metadata import version

from frostline.core.masking import masked

# What MLflow and Alembic, with which it changes its tables, say of such a database.
OTHER_SCHEMA = re.compile(
    r"database schema \(found version (?P<found>\w+), but expected \w+\)"
    r"|Can't locate revision identified by '(?P<unknown>\w+)'"
)


def message(uri: str, error: BaseException) -> str | None:
    """One line with the fix, if an error says that the database has the tables of another version of MLflow."""
    match = OTHER_SCHEMA.search(str(error))
    if match is None:
        return None
    address = masked(uri)
    if match["unknown"] or not _is_known(match["found"]):
        return (
            f"{address}: was made by a newer MLflow than {version('mlflow')}, which is installed here; `pip install "
            "--upgrade mlflow`, or set tracking.uri to another database"
        )
    return (
        f"{address}: was made by an older MLflow than {version('mlflow')}, which is installed here; keep a copy of it, "
        f"then run `mlflow db upgrade '{address}'`"
    )


def _is_known(revision: str) -> bool:
    """Whether the MLflow that is installed has had these tables."""
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError
    from mlflow.store.db import utils as databases

    script = ScriptDirectory.from_config(databases._get_alembic_config(db_url=""))
    try:
        return script.get_revision(revision) is not None
    except CommandError:
        return False
