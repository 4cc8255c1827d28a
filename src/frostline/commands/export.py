"""`frostline export`: a classifier as a file for another runtime."""

from __future__ import annotations

from pathlib import Path

from frostline.errors import UserError
from frostline.models import account, backend
from frostline.params.schema import Params
from frostline.tracking import model_uris


def run(params: Params | None, model: str, form: str, target: Path, takes_bytes: bool = False) -> str:
    """Export a bundle or registered model to a new folder, see `exports.making.make`."""
    folder = model_uris.bundle_folder(params.tracking if params else None, model)
    account.read(folder)
    with backend.quiet():
        import keras

        from frostline.exports import making

    if keras.backend.backend() != "tensorflow":
        raise UserError("export: needs Keras on TensorFlow; run this command with KERAS_BACKEND=tensorflow")
    return making.make(folder, making.Order(form, "bytes" if takes_bytes else "image"), target)
