"""`frostline promote` and `rollback`: who is champion, decided on the same test images or not at all."""

from __future__ import annotations

from contextlib import AbstractContextManager

from frostline.errors import RefusedError
from frostline.params.schema import Params
from frostline.tracking import challenge, registry
from frostline.tracking.moves import CHALLENGER
from frostline.tracking.registry import Registry


def promote(params: Params, wanted: str | None, reevaluate: bool) -> str:
    """Make a version (its number or alias; None: the challenger) champion if it is at least as good as the present one.

    reevaluate: test both on data/prepared/test where they have not been. Raises RefusedError, with the numbers, where
    it is not, and StateError where the two were tested on different images.
    """
    with _registry(params) as known, known.alone():
        challenger, champion = known.version(wanted or CHALLENGER), known.champion()
        if champion is None:
            reason = "the first champion"
        elif champion.number == challenger.number:
            return f"promote: {challenger.uri} is the champion already"
        else:
            result = challenge.compare(params, known, challenger, champion, reevaluate)
            told = f"version {challenger.number} against champion {champion.number}: {result.text}"
            if not result.passed:
                raise RefusedError(f"promote: refused, {told}; the champion stays, or widen registry.gate.margin")
            reason = told
        known.move("promote", champion, challenger, reason)
    return f"promote: {challenger.uri} is the champion now; {reason}"


def rollback(params: Params, reason: str) -> str:
    """Undo the last promotion that still stands. Raises StateError where there is none."""
    with _registry(params) as known, known.alone():
        champion, number = known.champion(), known.previous_champion()
        before = known.version(str(number)) if number is not None else None
        known.move("rollback", champion, before, reason)
    now = f"{before.uri} is the champion again" if before else "there is no champion any more, as before"
    return f"rollback: {now}"


def _registry(params: Params) -> AbstractContextManager[Registry]:
    return registry.registry(params.tracking, params.registry.name)
