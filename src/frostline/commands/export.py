"""`frostline export`: a classifier for other runtimes, by Keras's own exporters."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from frostline.commands import export_onnx
from frostline.core import atomic, digest
from frostline.errors import DataError, UserError
from frostline.models import account, backend
from frostline.params.schema import Params
from frostline.tracking import model_uris

# Name of the format -> Keras's name for it, and the name of the file or folder that is written.
FORMATS = {
    "saved_model": ("tf_saved_model", "saved_model"),
    "onnx": ("onnx", "classifier.onnx"),
    "litert": ("litert", "classifier.tflite"),
}

LABELS = "labels.json"


def run(params: Params | None, model: str, form: str, target: Path) -> str:
    """Write the network of a bundle or registered model to a new folder, with labels.json.

    It takes uint8 images (n, size, size, 3), resized as labels.json says, and gives probabilities. Raises UserError if
    the format is unknown or needs a package that is not installed, DataError if the folder has other content. A folder
    that already has the same export is not changed.
    """
    if form not in FORMATS:
        raise UserError(f"--format: {form} is unknown; use one of {', '.join(FORMATS)}")
    folder = model_uris.bundle_folder(params.tracking if params else None, model)
    account.read(folder)
    about = {"format": form, "bundle": digest.of_folder(folder)}
    kind, name = FORMATS[form]
    if target.exists():
        if about.items() <= _labels(target).items():
            return f"export: {target / name} already has this classifier"
        raise DataError(f"{target}: exists and has other content; give a new folder")
    with backend.quiet():
        from frostline.models import bundles

    bundle = bundles.load(folder)
    size = bundle.layout.image_size
    with atomic.folder(target) as output:
        bundle.model(np.zeros((1, size, size, 3), np.uint8))  # Keras's exporter for ONNX wants a model that was called
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # of Keras itself
                _write(bundle.model, output / name, kind)
        except ImportError as error:
            reason = " ".join(str(error).split())[:160]
            fix = "pip install 'frostline[onnx]'" if form == "onnx" else "install it"
            raise UserError(f"--format: {form} needs another package ({reason}); {fix}") from error
        atomic.write_json(output / LABELS, bundle.layout.recorded() | about)
    return f"export: {target / name}; takes uint8 (n, {size}, {size}, 3), see labels.json"


def _write(model: Any, path: Path, kind: str) -> None:
    import keras

    if kind == "onnx" and keras.backend.backend() == "tensorflow":
        export_onnx.add_operations()
    model.export(str(path), format=kind, verbose=False)
    if kind == "onnx":
        export_onnx.check(path)


def _labels(target: Path) -> dict[str, Any]:
    """The labels.json of an earlier export; empty if there is none."""
    try:
        content = json.loads((target / LABELS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
