"""A bundle's folder as something that can be asked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from frostline.models import account, backend
from frostline.serving import inputs

if TYPE_CHECKING:
    from frostline.serving.scoring import Scorer


def scorer_of(folder: Path, limits: inputs.Limits | None = None) -> Scorer:
    """The scorer of a bundle's folder. Raises DataError where it holds none."""
    account.read(folder)
    with backend.quiet():
        import keras  # noqa: F401
    from frostline.serving.scoring import Scorer

    try:
        return Scorer(folder, limits)
    except Exception as error:  # whatever Keras trips over in a foreign archive
        raise account.unusable(folder, account.first_line(error)) from error
