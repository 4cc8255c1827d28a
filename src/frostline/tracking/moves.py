"""The record of who was champion: every move of the alias is a tag of the registered model in MLflow.

A move is written down as an intent before the alias moves, and as done afterwards. So a command that is killed in
between leaves an intent, and the next one finishes that move first: alias and record never tell different stories.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from frostline.errors import StateError

CHAMPION, CHALLENGER = "champion", "challenger"

# A tag of the registered model: `frostline.move.<UTC time>` of one that is done, `frostline.intent` of one that is not.
MOVE, INTENT = "frostline.move.", "frostline.intent"


@dataclass(frozen=True)
class Move:
    """A move of `champion`, UTC: between numbers of versions, None for no champion. kind: promote or rollback."""

    time: str
    kind: str
    before: int | None
    after: int | None
    reason: str


def begin(client: Any, name: str, move: Move) -> None:
    """Write a move down and make it. client: an MlflowClient; name: of the registered model."""
    client.set_registered_model_tag(name, INTENT, json.dumps(asdict(move)))
    _finish(client, name, move)


def finish_begun(client: Any, name: str, tags: Mapping[str, str], versions: Sequence[int]) -> Move | None:
    """Finish the move that a killed command left, if any; the move. tags: of the registered model."""
    if INTENT not in tags:
        return None
    move = Move(**json.loads(tags[INTENT]))
    if move.after is not None and move.after not in versions:  # it was deleted since
        client.delete_registered_model_tag(name, INTENT)
        return None
    _finish(client, name, move)
    return move


def done(tags: Mapping[str, str]) -> list[Move]:
    """The record, the oldest first. tags: of the registered model."""
    return [Move(**{"time": key.removeprefix(MOVE), **json.loads(tags[key])}) for key in sorted(tags) if _is_move(key)]


def previous(name: str, record: Sequence[Move]) -> int | None:
    """The number of who was champion before the present one came: rollbacks undo promotions, the last one first.

    Raises StateError where there is nothing to undo.
    """
    stack: list[int | None] = []
    for move in record:
        if move.kind != "rollback":
            stack.append(move.before)
        elif stack:  # a record whose beginning somebody removed has rollbacks of what it does not name
            stack.pop()
    if not stack:
        raise StateError(f"models:/{name}@{CHAMPION}: no promotion is left to undo")
    return stack[-1]


def _is_move(key: str) -> bool:
    return key.startswith(MOVE)


def _finish(client: Any, name: str, move: Move) -> None:
    """Make a move whose intent is written; doing it twice is doing it once."""
    if move.after is None:
        client.delete_registered_model_alias(name, CHAMPION)
    else:
        client.set_registered_model_alias(name, CHAMPION, str(move.after))
        client.set_model_version_tag(name, str(move.after), f"frostline.{move.kind}", f"{move.time}: {move.reason}")
    client.set_registered_model_tag(name, MOVE + move.time, json.dumps(asdict(move)))
    client.delete_registered_model_tag(name, INTENT)
