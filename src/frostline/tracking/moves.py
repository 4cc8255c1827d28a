"""The record of champions: every move of the alias is a tag of the registered model in MLflow.

A move is recorded as an intent before the alias moves, and as done afterwards. A command that is killed in between
leaves an intent, and the next command finishes that move first. So alias and record always agree.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from frostline.errors import StateError

CHAMPION, CHALLENGER = "champion", "challenger"

# A tag of the registered model: `frostline.move.<UTC time>` for one that is done, `frostline.intent` for one that is
# not.
MOVE, INTENT = "frostline.move.", "frostline.intent"


@dataclass(frozen=True)
class Move:
    """A move of `champion`. time: UTC; kind: promote or rollback; before, after: version numbers, or None."""

    time: str
    kind: str
    before: int | None
    after: int | None
    reason: str


def begin(client: Any, name: str, move: Move) -> None:
    """Record a move and make it. client: an MlflowClient; name: of the registered model."""
    client.set_registered_model_tag(name, INTENT, json.dumps(asdict(move)))
    _finish(client, name, move)


def finish_begun(client: Any, name: str, tags: Mapping[str, str], versions: Sequence[int]) -> Move | None:
    """Finish the move that a killed command left, if any, and return it. tags: of the registered model."""
    if INTENT not in tags:
        return None
    move = Move(**json.loads(tags[INTENT]))
    if move.after is not None and move.after not in versions:  # it was deleted since
        client.delete_registered_model_tag(name, INTENT)
        return None
    _finish(client, name, move)
    return move


def done(tags: Mapping[str, str]) -> list[Move]:
    """The moves that are done, the oldest first. tags: of the registered model."""
    return [Move(**{"time": key.removeprefix(MOVE), **json.loads(tags[key])}) for key in sorted(tags) if _is_move(key)]


def previous(name: str, record: Sequence[Move]) -> int | None:
    """The number of the champion before the present one. Rollbacks undo promotions, the last one first.

    Raises StateError if there is no promotion to undo.
    """
    stack: list[int | None] = []
    for move in record:
        if move.kind != "rollback":
            stack.append(move.before)
        elif stack:  # a record without its beginning has rollbacks of moves that are missing
            stack.pop()
    if not stack:
        raise StateError(f"models:/{name}@{CHAMPION}: no promotion is left to undo")
    return stack[-1]


def _is_move(key: str) -> bool:
    return key.startswith(MOVE)


def _finish(client: Any, name: str, move: Move) -> None:
    """Make a move whose intent is recorded. Twice is the same as once."""
    if move.after is None:
        client.delete_registered_model_alias(name, CHAMPION)
    else:
        client.set_registered_model_alias(name, CHAMPION, str(move.after))
        client.set_model_version_tag(name, str(move.after), f"frostline.{move.kind}", f"{move.time}: {move.reason}")
    client.set_registered_model_tag(name, MOVE + move.time, json.dumps(asdict(move)))
    client.delete_registered_model_tag(name, INTENT)
