"""Load the folder of a bundle as a scorer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from frostline.models import account, backend
from frostline.serving import inputs

if TYPE_CHECKING:
    from frostline.serving.scoring import Scorer


def scorer_of(folder: Path, limits: inputs.Limits | None = None) -> Scorer:
    """The scorer of a bundle's folder. Raises DataError if the folder is not a usable bundle."""
    account.read(folder)
    with backend.quiet():
        import keras  # noqa: F401
    from frostline.serving.scoring import Scorer

    try:
        return Scorer(folder, limits)
    except Exception as error:  # Keras can fail in any way on an archive that others made
        raise account.unusable(folder, account.first_line(error)) from error
