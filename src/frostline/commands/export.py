"""`frostline export`: a classifier for other runtimes, by Keras's own exporters."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from frostline.core import atomic, digest
from frostline.errors import DataError, UserError
from frostline.models import account, backend
from frostline.params.schema import Params
from frostline.tracking import model_uris

# Name of the format -> Keras's name for it, and that of the file or folder it is written to.
FORMATS = {
    "saved_model": ("tf_saved_model", "saved_model"),
    "onnx": ("onnx", "classifier.onnx"),
    "litert": ("litert", "classifier.tflite"),
}

LABELS = "labels.json"


def run(params: Params | None, model: str, form: str, target: Path) -> str:
    """Write a bundle's or registered model's network into a new folder, with labels.json beside it.

    It takes uint8 images (n, size, size, 3), resized as labels.json says, and gives probabilities. Raises UserError
    for a format that is unknown or wants a package that is not installed, DataError where the folder holds something
    else. One that holds this very export, as after a kill of a command that was done, is left as it is.
    """
    if form not in FORMATS:
        raise UserError(f"--format: {form} is unknown; use one of {', '.join(FORMATS)}")
    folder = model_uris.bundle_folder(params.tracking if params else None, model)
    account.read(folder)
    about = {"format": form, "bundle": digest.of_folder(folder)}
    kind, name = FORMATS[form]
    if target.exists():
        if about.items() <= _labels(target).items():
            return f"export: {target / name} has this classifier already"
        raise DataError(f"{target}: exists and holds something else; name a new folder")
    with backend.quiet():
        from frostline.models import bundles

    bundle = bundles.load(folder)
    with atomic.folder(target) as written:
        try:
            bundle.model.export(str(written / name), format=kind, verbose=False)
        except ImportError as error:
            reason = " ".join(str(error).split())[:160]
            raise UserError(
                f"--format: {form} wants a package more ({reason}); pip install 'frostline[onnx]'"
            ) from error
        atomic.write_json(written / LABELS, asdict(bundle.layout) | about)
    size = bundle.layout.image_size
    return f"export: {target / name}; takes uint8 (n, {size}, {size}, 3), see labels.json"


def _labels(target: Path) -> dict[str, Any]:
    """What an earlier export says of itself; nothing where there was none."""
    try:
        known = json.loads((target / LABELS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
