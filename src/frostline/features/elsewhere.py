"""A network that other processes apply to prepared images, such as those of a Ray cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from frostline.data import shards
from frostline.models import backend

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class RemoteNetwork:
    """Models behind one another, applied to prepared images in a folder that the other processes see too.

    models: each as the bytes of a .keras file, so that no process reads Keras before its environment is set.
    """

    folder: Path
    models: tuple[bytes, ...]

    @classmethod
    def of(cls, images: shards.Shards, models: Sequence[keras.Model]) -> RemoteNetwork:
        """The network of models in this process."""
        return cls(images.folder, tuple(map(_saved, models)))

    def __call__(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """The outputs for some images, (len(rows), ...), in inference mode."""
        models = _loaded(self.models)
        size, images = backend.batch_rows(), shards.open_once(self.folder)
        parts = []
        for start in range(0, len(rows), size):
            x: NDArray[Any] = images.take(rows[start : start + size])
            for model in models:
                x = backend.predict(model, x, size)
            parts.append(x)
        return np.concatenate(parts)


def _saved(model: keras.Model) -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        return path.read_bytes()


@cache
def _loaded(models: tuple[bytes, ...]) -> list[keras.Model]:
    """The models, loaded once in a process, with Keras's safe mode on."""
    with backend.quiet():
        import keras

    loaded = []
    with TemporaryDirectory() as folder:
        for content in models:
            path = Path(folder) / "model.keras"
            path.write_bytes(content)
            loaded.append(keras.saving.load_model(path, compile=False, safe_mode=True))
    return loaded
