"""The metrics of each epoch for TensorBoard, in the layout of Keras's callback."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

from frostline import paths
from frostline.core.history import HistoryRow
from frostline.errors import ParamsError
from frostline.params.schema import Params


def require(params: Params) -> None:
    """Raise ParamsError if params.yaml asks for TensorBoard and the package is not installed."""
    if params.finetune.callbacks.TensorBoard and find_spec("tensorboard") is None:
        raise ParamsError(
            "params.yaml: finetune.callbacks.TensorBoard needs the package tensorboard, which is not installed; "
            "pip install 'frostline[tensorboard]', or remove the key"
        )


def writer(params: Params, job: str) -> Callable[[HistoryRow], None]:
    """A function that writes the metrics of an epoch to a folder for this training; it does nothing if params.yaml has
    no `TensorBoard`."""
    settings = params.finetune.callbacks.TensorBoard
    if settings is None:
        return lambda row: None
    import tensorflow as tf

    folder = paths.root() / settings.log_dir / job[:12]
    writers = {kind: tf.summary.create_file_writer(str(folder / kind)) for kind in ("train", "validation")}

    def write(row: HistoryRow) -> None:
        for key, value in row.numbers.items():
            writer = writers["validation" if key.startswith("val_") else "train"]
            with writer.as_default():
                tf.summary.scalar(f"epoch_{key.removeprefix('val_')}", value, step=row.step)
            writer.flush()

    return write
