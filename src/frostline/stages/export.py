"""`frostline export`: a classifier for other runtimes, by Keras's own exporters."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from frostline import atomic, engine, registry
from frostline.errors import DataError, UserError
from frostline.params import Params

# Name of the format -> Keras's name for it, and that of the file or folder it is written to.
FORMATS = {
    "saved_model": ("tf_saved_model", "saved_model"),
    "onnx": ("onnx", "classifier.onnx"),
    "litert": ("litert", "classifier.tflite"),
}


def run(params: Params | None, model: str, form: str, target: Path) -> str:
    """Write a bundle's or registered model's network into a new folder, with labels.json beside it.

    It takes uint8 pictures (n, size, size, 3), resized as labels.json says, and gives probabilities. Raises UserError
    for a format that is unknown or wants a package that is not installed, DataError where the folder exists.
    """
    if form not in FORMATS:
        raise UserError(f"--format: {form} is unknown; use one of {', '.join(FORMATS)}")
    if target.exists():
        raise DataError(f"{target}: is there already; name a new folder")
    folder = registry.bundle_folder(params.tracking if params else None, model)
    with engine.quiet():
        from frostline import classifier

    bundle = classifier.load(folder)
    kind, name = FORMATS[form]
    with atomic.folder(target) as written:
        try:
            bundle.model.export(str(written / name), format=kind, verbose=False)
        except ImportError as error:
            reason = " ".join(str(error).split())[:160]
            raise UserError(
                f"--format: {form} wants a package more ({reason}); pip install 'frostline[onnx]'"
            ) from error
        atomic.write_json(written / "labels.json", asdict(bundle.layout))
    size = bundle.layout.image_size
    return f"export: {target / name}; takes uint8 (n, {size}, {size}, 3), see labels.json"
