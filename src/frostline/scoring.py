"""What a trained classifier says of pictures as people have them: files, encoded bytes, arrays.

This file and images.py go into every registered model as its own code (see packaging.py): they import nothing else of
this package, and they decode and resize a picture as `prepare` does.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import images  # relative: inside a registered model the package has another name

if TYPE_CHECKING:
    import keras
    import pandas as pd

NO_PATHS = "FROSTLINE_NO_PATHS"  # an environment variable; where it is set, models read no files of the machine
BATCH = 32  # pictures that go through the network at once
BASE64 = re.compile(rb"[A-Za-z0-9+/]+=*")  # of bytes; a picture's first few already are no such text
COLUMNS = ("image", "path", "pixels")

Pixels = NDArray[np.uint8]


class UnusableInputError(Exception):
    """What was given is no picture; the text says which row, and why."""


class Scorer:
    """A bundle, ready to be asked by any number of threads.

    What several threads ask for at the same time goes through the network in one batch.
    """

    def __init__(self, bundle: Path) -> None:
        """Load a bundle's folder, Keras's safe mode on. Raises OSError or ValueError where it holds none."""
        import keras

        about = json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))
        self.classes: tuple[str, ...] = tuple(about["classes"])
        self.image_size: int = about["image_size"]
        self.resize: images.Resize = about["resize"]
        self._batcher = _Batcher(keras.saving.load_model(bundle / "model.keras", compile=False, safe_mode=True))
        self.probabilities(np.zeros((1, self.image_size, self.image_size, 3), np.uint8))  # what is compiled, is so now

    def picture(self, source: Path | bytes) -> Pixels:
        """Decode and resize an encoded picture: uint8 (size, size, 3). Raises images.UnreadableImageError."""
        return images.prepare(source, self.image_size, self.resize)

    def probabilities(self, pictures: Sequence[Pixels] | Pixels) -> NDArray[np.float32]:
        """Probabilities by class, float32 (n, classes), of uint8 (size, size, 3) each."""
        if len(pictures) == 0:
            return np.empty((0, len(self.classes)), np.float32)
        asked = [self._batcher.ask(picture) for picture in pictures]
        raw = np.array([each.result() for each in asked], np.float32).reshape(len(asked), -1)
        return np.concatenate([1 - raw, raw], axis=1) if len(self.classes) == 2 and raw.shape[1] == 1 else raw

    def answers(self, pictures: Sequence[Pixels]) -> list[dict[str, Any]]:
        """For each picture the label, its probability, and the probabilities of all classes by their names."""
        return [self.answer(row) for row in self.probabilities(pictures)]

    def answer(self, probabilities: NDArray[np.float32]) -> dict[str, Any]:
        """One row of probabilities, float32 (classes,), in words."""
        best = int(probabilities.argmax())
        named = dict(zip(self.classes, map(float, probabilities), strict=True))
        return {"label": self.classes[best], "probability": float(probabilities[best]), "probabilities": named}

    def read(self, table: pd.DataFrame) -> list[Pixels]:
        """The pictures of a table with one of the columns `image` (encoded bytes, or base64 of them), `path` (a file)
        and `pixels` (uint8 (height, width, 3)). Raises UnusableInputError, which names the row."""
        given = [name for name in COLUMNS if name in table.columns]
        if len(given) != 1:
            raise UnusableInputError(
                f"the columns are {', '.join(map(str, table.columns)) or 'missing'}; give exactly one of "
                f"{', '.join(COLUMNS)}"
            )
        read = {"image": self._encoded, "path": self._file, "pixels": self._array}[given[0]]
        pictures = []
        for row, value in enumerate(table[given[0]]):
            try:
                pictures.append(read(value))
            except (UnusableInputError, images.UnreadableImageError) as reason:
                raise UnusableInputError(f"row {row}, {given[0]}: {reason}") from None
        return pictures

    def _encoded(self, value: Any) -> Pixels:
        if not isinstance(value, bytes | str):
            raise UnusableInputError(f"is {type(value).__name__}, not the bytes of a picture")
        # MLflow decodes the base64 of some forms of JSON and hands on that of others, as text or as the text's bytes.
        if isinstance(value, str) or BASE64.fullmatch(value):
            try:
                value = base64.b64decode(value, validate=True)
            except (binascii.Error, ValueError):
                if isinstance(value, str):
                    raise UnusableInputError("is not base64") from None
        return self.picture(value)

    def _file(self, value: Any) -> Pixels:
        if not isinstance(value, str):
            raise UnusableInputError(f"is {type(value).__name__}, not the name of a file")
        return self.picture(Path(value))

    def _array(self, value: Any) -> Pixels:
        try:
            array = np.asarray(value)
        except ValueError:
            raise UnusableInputError("is no array: its rows differ in length") from None
        if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
            raise UnusableInputError(f"has shape {array.shape}, not (height, width, 3)")
        if array.dtype.kind not in "iu" or array.min() < 0 or array.max() > 255:
            raise UnusableInputError("holds other numbers than integers from 0 to 255")
        return images.resize(array.astype(np.uint8), self.image_size, self.resize)


class _Batcher:
    """Runs a model in one thread, on all that is waiting at a time."""

    def __init__(self, model: keras.Model) -> None:
        self.model = model
        self._waiting: SimpleQueue[tuple[Pixels, Future[NDArray[np.float32]]]] = SimpleQueue()
        threading.Thread(target=self._work, daemon=True, name="frostline-scoring").start()

    def ask(self, picture: Pixels) -> Future[NDArray[np.float32]]:
        answer: Future[NDArray[np.float32]] = Future()
        self._waiting.put((picture, answer))
        return answer

    def _work(self) -> None:
        while True:
            asked = [self._waiting.get()]
            try:
                while len(asked) < BATCH:
                    asked.append(self._waiting.get_nowait())
            except Empty:
                pass
            try:
                raw = self._predict(np.stack([picture for picture, _ in asked]))
            except Exception as error:
                for _, answer in asked:
                    answer.set_exception(error)
                continue
            for row, (_, answer) in zip(raw, asked, strict=True):
                answer.set_result(row)

    def _predict(self, pictures: Pixels) -> NDArray[np.float32]:
        """Filled up to a power of two, so that few sizes are compiled."""
        size = 1 << (len(pictures) - 1).bit_length()
        filled = np.resize(pictures, (size, *pictures.shape[1:]))
        return np.asarray(self.model.predict_on_batch(filled))[: len(pictures)]
