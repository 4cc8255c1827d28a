"""`frostline export`: a classifier as a file for another runtime."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from frostline import paths
from frostline.core import atomic
from frostline.data import shards
from frostline.errors import UserError
from frostline.models import account, backend
from frostline.params.schema import Params
from frostline.tracking import model_uris

if TYPE_CHECKING:
    from frostline.exports.making import Bench


@dataclass(frozen=True)
class Wishes:
    """What is wanted of an export beside its format, see `exports.making.Order`.

    check: whether it is compared with `predict`; None: where data/prepared/test is at hand.
    """

    takes_bytes: bool = False
    int8: bool = False
    check: bool | None = None
    tolerance: float = 0.0


def run(params: Params | None, model: str, target: Path, form: str, wishes: Wishes = Wishes()) -> str:
    """Export a bundle or registered model to a new folder, see `exports.making.make`."""
    folder = model_uris.bundle_folder(params.tracking if params else None, model)
    account.read(folder)
    is_at_hand = params is not None and (paths.PREPARED / "test").is_dir()
    if wishes.check and not is_at_hand:
        raise UserError("--check: there is no data/prepared/test here; run `dvc repro`, or leave --check away")
    with backend.quiet():
        import keras

        from frostline.exports import making

    if keras.backend.backend() != "tensorflow":
        raise UserError("export: needs Keras on TensorFlow; run this command with KERAS_BACKEND=tensorflow")
    order = making.Order(form, "bytes" if wishes.takes_bytes else "image", wishes.int8, wishes.tolerance)
    if params is None or not is_at_hand or wishes.check is False:
        return making.make(folder, order, target, None)
    with _bench(params) as bench:
        return making.make(folder, order, target, bench)


@contextmanager
def _bench(params: Params) -> Iterator[Bench]:
    """The prepared data here, and the source of its images if that is still there."""
    from frostline.exports.making import Bench
    from frostline.serving import originals

    test, training = (shards.open_folder(paths.PREPARED / name) for name in ("test", "train"))
    with atomic.scratch(paths.state() / "source") as scratch:
        is_there = Path(params.data.source).exists()
        found = originals.of_split(params.data, test, scratch) if is_there else None
        yield Bench(test, found, training, params.registry.gate, params.seed)
