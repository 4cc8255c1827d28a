"""`frostline promote` and `rollback`: change the champion, after a comparison on the same test images."""

from __future__ import annotations

from contextlib import AbstractContextManager

from frostline.errors import RefusedError
from frostline.params.schema import Params
from frostline.tracking import challenge, registry
from frostline.tracking.moves import CHALLENGER
from frostline.tracking.registry import Registry


def promote(params: Params, name: str | None, reevaluate: bool) -> str:
    """Make a version the champion if it is at least as good as the current champion.

    name: number or alias of the version, None for the challenger; reevaluate: test both on data/prepared/test if they
    were not tested on it. Raises RefusedError, with the numbers, if the version is worse, and StateError if the two
    were tested on different images.
    """
    with _registry(params) as models, models.alone():
        challenger, champion = models.version(name or CHALLENGER), models.champion()
        if champion is None:
            reason = "the first champion"
        elif champion.number == challenger.number:
            return f"promote: {challenger.uri} is the champion already"
        else:
            result = challenge.compare(params, models, challenger, champion, reevaluate)
            reason = f"version {challenger.number} against champion {champion.number}: {result.text}"
            if not result.passed:
                raise RefusedError(f"promote: refused, {reason}; keep the champion, or raise registry.gate.margin")
        models.move("promote", champion, challenger, reason)
    return f"promote: {challenger.uri} is the champion now; {reason}"


def rollback(params: Params, reason: str) -> str:
    """Undo the last promotion that is still in force. Raises StateError if there is none."""
    with _registry(params) as models, models.alone():
        champion, number = models.champion(), models.previous_champion()
        before = models.version(str(number)) if number is not None else None
        models.move("rollback", champion, before, reason)
    now = f"{before.uri} is the champion again" if before else "there is no champion any more"
    return f"rollback: {now}"


def _registry(params: Params) -> AbstractContextManager[Registry]:
    return registry.registry(params.tracking, params.registry.name)
