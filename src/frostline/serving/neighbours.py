"""The training images that are nearest to an image in the features of the network, so that a person can compare.

The features are what the head reads: the pooled output of the body. The distance is the cosine distance, 0 for the same
direction and up to 2. At most MOST training images are looked at, as many of each class as there are or as fit.
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from frostline.data import shards
from frostline.data.images import Pixels
from frostline.errors import FrostlineError
from frostline.serving.payload import RefusedRequestError

if TYPE_CHECKING:
    import keras

    from frostline.data.shards import Shards
    from frostline.models.bundles import Bundle

Features = NDArray[np.float32]

MOST, NEAREST = 2000, 5
SIDE = 96  # pixels of a small image
BATCH = 32
WIDEST = 4096  # features of an image; a head that reads more of them reads places, which are averaged here

ABSENT = "there are no training images to compare with: "


@dataclass(frozen=True)
class Neighbour:
    """A training image. distance: cosine distance in [0, 2]; image: a small PNG as a `data:` address."""

    label: str
    distance: float
    image: str


class Neighbours:
    """The training images of a classifier, which are read and computed in a thread when they are first asked for."""

    def __init__(self, bundle: Bundle, folder: Path | None) -> None:
        """folder: the prepared training images; None if clients may not see any."""
        self._bundle, self._folder = bundle, folder
        self._lock = threading.Lock()
        self._gallery: Future[_Gallery] | None = None

    def nearest(self, pixels: Pixels) -> list[Neighbour] | None:
        """The nearest ones to an image, uint8 (size, size, 3), the nearest first; None while they are being computed.

        Raises RefusedRequestError, status 404, if there are none.
        """
        gathering = self._begun()
        if not gathering.done():
            return None
        try:
            gallery = gathering.result()
        except (OSError, FrostlineError) as error:  # damaged, or removed meanwhile
            raise RefusedRequestError(404, f"{ABSENT}those that are here cannot be read") from error
        return gallery.nearest(pixels)

    def _begun(self) -> Future[_Gallery]:
        with self._lock:
            if self._gallery is None:
                self._gallery = Future()
                work = (self._gallery, self._gather)
                threading.Thread(target=_fulfil, args=work, daemon=True, name="frostline-neighbours").start()
            return self._gallery

    def _gather(self) -> _Gallery:
        """Read the training images and compute their features."""
        images, layout = self._images(), self._bundle.layout
        network = _features(self._bundle)
        rows = _by_class(images.labels)
        computed, small = [], []
        for start in range(0, len(rows), BATCH):
            chosen = images.take(rows[start : start + BATCH])
            computed.append(_units(network, chosen))
            small += [_png(each) for each in chosen]
        labels = [layout.classes[label] for label in images.labels[rows]]
        return _Gallery(network, np.concatenate(computed), labels, small)

    def _images(self) -> Shards:
        """The training images, if the classifier was trained on them."""
        folder, record = self._folder, self._bundle
        if folder is None:
            raise RefusedRequestError(404, f"{ABSENT}this server shows them only with --neighbours")
        if not folder.is_dir():
            raise RefusedRequestError(404, f"{ABSENT}the server does not have them")
        images = shards.open_folder(folder)
        if images.layout != record.layout or images.source_digest() != record.made_from.data.train:
            raise RefusedRequestError(404, f"{ABSENT}those that are here are not those that this model was trained on")
        return images


class _Gallery:
    """Training images: their features, float32 (n, width) of length 1 each, their labels, and small PNGs."""

    def __init__(self, network: keras.Model, units: Features, labels: list[str], small: list[bytes]) -> None:
        self._network, self._units, self._labels, self._small = network, units, labels, small

    def nearest(self, pixels: Pixels) -> list[Neighbour]:
        """The nearest ones to an image, uint8 (size, size, 3)."""
        distances = 1 - self._units @ _units(self._network, pixels[None])[0]
        rows = np.argsort(distances, kind="stable")[:NEAREST]
        return [
            Neighbour(self._labels[row], max(0.0, float(distances[row])), _address(self._small[row])) for row in rows
        ]


def _fulfil(future: Future[_Gallery], compute: Callable[[], _Gallery]) -> None:
    try:
        future.set_result(compute())
    except BaseException as error:
        future.set_exception(error)


def _features(bundle: Bundle) -> keras.Model:
    """The network up to its head: uint8 (n, size, size, 3) -> features (n, ...)."""
    import keras

    from frostline.models import bundles

    backbone, head = bundles.parts(bundle)
    images = keras.Input(bundle.model.input.shape[1:], dtype="uint8")
    maps = backbone.model(backbone.preprocess(images))
    pooled = head.pool(maps)
    if np.prod(pooled.shape[1:]) > WIDEST and len(maps.shape) > 2:
        pooled = keras.ops.mean(maps, axis=tuple(range(1, len(maps.shape) - 1)))
    return keras.Model(images, pooled)


def _units(network: keras.Model, pixels: Pixels) -> Features:
    """The features of images, scaled to length 1."""
    raw = np.asarray(network.predict_on_batch(pixels), np.float32).reshape(len(pixels), -1)
    return raw / np.maximum(np.linalg.norm(raw, axis=1, keepdims=True), 1e-12)


def _by_class(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """At most MOST rows, in turn one of each class, drawn by a fixed seed; in the order of the rows."""
    drawn = np.random.default_rng(0).permutation(len(labels))
    order = drawn[np.argsort(labels[drawn], kind="stable")]
    counts = np.bincount(labels)
    turns = np.concatenate([np.arange(count) for count in counts])
    return np.sort(order[np.argsort(turns, kind="stable")[:MOST]])


def _png(pixels: Pixels) -> bytes:
    """An image as a small PNG."""
    image, stream = Image.fromarray(pixels), BytesIO()
    image.thumbnail((SIDE, SIDE))
    image.save(stream, "PNG")
    return stream.getvalue()


def _address(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
