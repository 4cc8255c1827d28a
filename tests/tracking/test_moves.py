"""A promotion or a rollback that dies at any of its writes is finished by the next command."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from frostline.tracking import moves
from frostline.tracking.moves import CHAMPION, Move


class Killed(BaseException):
    """The process is gone."""


class Mortal:
    """A real client that lives for so many calls."""

    def __init__(self, client: Any, calls: int) -> None:
        self.client, self.left = client, calls

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if self.left == 0:
            raise Killed
        self.left -= 1
        return getattr(self.client, name)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from mlflow.tracking import MlflowClient

    root = tmp_path_factory.mktemp("moves")
    return MlflowClient(f"sqlite:///{root}/mlflow.db", f"sqlite:///{root}/mlflow.db")


@pytest.fixture
def model(client: Any, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A registered model with versions 1, 2, 3, where 1 was promoted."""
    name = request.node.name.translate(str.maketrans("[]", "--"))
    client.create_registered_model(name)
    for _ in range(3):
        client.create_model_version(name, str(tmp_path))
    moves.begin(client, name, Move("2026-01-01", "promote", None, 1, "first"))
    return name


def champion(client: Any, name: str) -> int | None:
    aliases = client.get_registered_model(name).aliases
    return int(aliases[CHAMPION]) if CHAMPION in aliases else None


def finish(client: Any, name: str) -> Move | None:
    return moves.finish_begun(client, name, client.get_registered_model(name).tags, [1, 2, 3])


@pytest.mark.parametrize("calls", range(6))
@pytest.mark.parametrize("after", [2, None], ids=["promote", "rollback"])
def test_alias_and_record_agree_wherever_the_process_dies(
    client: Any, model: str, calls: int, after: int | None
) -> None:
    move = Move("2026-01-02", "promote" if after else "rollback", 1, after, "second")
    with suppress(Killed):
        moves.begin(Mortal(client, calls), model, move)
    begun = calls > 0
    for again in range(6):  # who finishes it may be killed, too
        with suppress(Killed):
            moves.finish_begun(Mortal(client, again), model, client.get_registered_model(model).tags, [1, 2, 3])
    tags = client.get_registered_model(model).tags
    assert moves.INTENT not in tags
    assert [done.reason for done in moves.done(tags)] == (["first", "second"] if begun else ["first"])
    assert champion(client, model) == (after if begun else 1)
    assert finish(client, model) is None


def test_a_killed_promotion_that_is_repeated_and_rolled_back_gives_the_old_champion_back(
    client: Any, model: str
) -> None:
    with pytest.raises(Killed):
        moves.begin(Mortal(client, 2), model, Move("2026-01-02", "promote", 1, 2, "killed"))
    assert champion(client, model) == 2
    finish(client, model)
    assert moves.previous(model, moves.done(client.get_registered_model(model).tags)) == 1


def test_an_intent_for_a_version_that_was_deleted_is_dropped(client: Any, model: str) -> None:
    with pytest.raises(Killed):
        moves.begin(Mortal(client, 1), model, Move("2026-01-02", "promote", 1, 3, "killed"))
    client.delete_model_version(model, "3")
    assert moves.finish_begun(client, model, client.get_registered_model(model).tags, [1, 2]) is None
    assert champion(client, model) == 1
    assert moves.INTENT not in client.get_registered_model(model).tags


def test_a_record_without_its_beginning_is_no_crash(client: Any, model: str) -> None:
    record = [Move("2026-01-02", "rollback", 2, 1, "of what nobody knows any more"), Move("2026", "promote", 1, 2, "x")]
    assert moves.previous(model, record) == 1
