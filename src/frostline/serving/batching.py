"""Images that several threads ask for go through a network together.

This file is copied into every registered model (see packaging.py), so it imports only data/images.py.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..data.images import Pixels  # relative: inside a registered model the package has another name

if TYPE_CHECKING:
    import keras

Row = NDArray[np.float32]
Predict = Callable[[Pixels], Row]

PATIENCE = 0.004  # seconds that a batch waits, at most, for images that are being decoded


class Batcher:
    """Runs a network in one thread, on all images that are waiting, at most `most` at a time.

    The thread ends when nobody has the object any more.
    """

    def __init__(self, model: keras.Model, most: int) -> None:
        self.model = model
        self._line = _Line(most)
        work = partial(self._line.work, _network(model))
        threading.Thread(target=work, daemon=True, name="frostline-scoring").start()
        weakref.finalize(self, self._line.end)

    def ask(self, pixels: Pixels) -> Future[Row]:
        """The future output of the network, float32 (units,), for an image, uint8 (size, size, 3)."""
        return self._line.ask(pixels)

    @contextmanager
    def coming(self) -> Iterator[None]:
        """Say that an image is being decoded, to be asked for after the block; a batch waits a little."""
        self._line.count(1)
        try:
            yield
        finally:
            self._line.count(-1)

    def waiting(self) -> int:
        """The number of images that wait."""
        return self._line.waiting()

    def watch(self, observe: Callable[[int], None]) -> None:
        """Call a function with the size of each batch."""
        self._line.observe = observe


class _Line:
    """The images that wait for a network, and the thread's work. It does not refer to the Batcher."""

    def __init__(self, most: int) -> None:
        self.observe: Callable[[int], None] = lambda images: None
        self._most = most
        self._images: SimpleQueue[tuple[Pixels, Future[Row]] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._coming = 0

    def ask(self, pixels: Pixels) -> Future[Row]:
        answer: Future[Row] = Future()
        self._images.put((pixels, answer))
        return answer

    def end(self) -> None:
        self._images.put(None)

    def count(self, change: int) -> None:
        with self._lock:
            self._coming += change

    def waiting(self) -> int:
        return self._images.qsize()

    def work(self, predict: Predict) -> None:
        """Answer until the end."""
        while batch := self._batch():
            # Drop the cancelled requests; the others cannot be cancelled from here on.
            active = [(pixels, answer) for pixels, answer in batch if answer.set_running_or_notify_cancel()]
            if active:
                self._answer(active, predict)
            del batch, active  # or the last images would stay in memory until the next ones come

    def _batch(self) -> list[tuple[Pixels, Future[Row]]]:
        """The next images, at least one; none at the end."""
        batch: list[tuple[Pixels, Future[Row]]] = []
        first = self._images.get()
        latest = time.monotonic() + PATIENCE
        while first is not None:
            batch.append(first)
            if len(batch) == self._most:
                break
            try:
                first = self._next(latest)
            except Empty:
                return batch
        if first is None and batch:
            self.end()  # the next call finds it
        return batch

    def _next(self, latest: float) -> tuple[Pixels, Future[Row]] | None:
        """The next image, if it is there or arrives in time. Raises Empty."""
        while True:
            try:
                return self._images.get_nowait()
            except Empty:
                if not self._coming or (left := latest - time.monotonic()) <= 0:
                    raise
            try:
                return self._images.get(timeout=min(left, 0.001))
            except Empty:
                continue

    def _answer(self, active: list[tuple[Pixels, Future[Row]]], predict: Predict) -> None:
        try:
            raw = predict(np.stack([pixels for pixels, _ in active]))
            results = list(zip(raw, active, strict=True))
        except Exception as error:
            for _, answer in active:
                answer.set_exception(error)
            return
        self.observe(len(active))
        for row, (_, answer) in results:
            answer.set_result(row)


def _network(model: keras.Model) -> Predict:
    """A function: uint8 (n, size, size, 3) -> the outputs of a network, float32 (n, units), for any n."""
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        if not tf.config.list_physical_devices("GPU"):
            return _with_constants(model)

    def padded(pixels: Pixels) -> Row:
        """The batch is padded to a power of two, so that few sizes are compiled, or tuned for a GPU."""
        size = 1 << (len(pixels) - 1).bit_length()
        return np.asarray(model.predict_on_batch(np.resize(pixels, (size, *pixels.shape[1:]))))[: len(pixels)]

    return padded


def _with_constants(model: keras.Model) -> Predict:
    """The network with constants for its weights, which TensorFlow folds into each other: batch normalization into the
    convolution before it, for one. It takes batches of any size. The outputs differ from Keras's by rounding."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    images = tf.TensorSpec(model.input.shape, model.input.dtype)
    call = tf.function(lambda batch: model(batch, training=False), input_signature=[images], autograph=False)
    network = convert_variables_to_constants_v2(call.get_concrete_function())

    def predict(pixels: Pixels) -> Row:
        if pixels.shape[1:] != tuple(images.shape[1:]):
            raise ValueError(f"images of shape {pixels.shape[1:]}, not {tuple(images.shape[1:])}")
        (outputs,) = network(tf.constant(pixels, images.dtype))
        return np.asarray(outputs)

    return predict
