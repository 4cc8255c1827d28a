"""What a running server counts, in the format of Prometheus (https://prometheus.io/docs/concepts/data_model/).

A dashboard takes the rate of `frostline_labels_total` by the hour, and so sees when the images change: a class that
becomes frequent, or more images that belong to none.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from frostline.serving.recording import Exchange

MOST_LABELS = 200  # classes with a counter of their own; the others are counted together
OTHERS = "(others)"
ELSEWHERE = "(unknown)"  # all addresses that there are not, so that clients cannot make counters

BATCHES = (1, 2, 4, 8, 16, 24, 32)
SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 60)


class Metrics:
    """The counters of one server, in a registry of their own."""

    def __init__(self, addresses: Collection[str]) -> None:
        """addresses: those that the server has."""
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._addresses = frozenset(addresses)
        self._requests = Counter(
            "frostline_requests", "Requests that were answered.", ["address", "status"], registry=registry
        )
        self._seconds = Histogram(
            "frostline_request_seconds", "Seconds to the answer.", ["address"], buckets=SECONDS, registry=registry
        )
        self._images = Counter("frostline_images", "Images that were classified.", registry=registry)
        self._batches = Histogram(
            "frostline_batch_images",
            "Images that went through the network at once.",
            buckets=BATCHES,
            registry=registry,
        )
        self._queue = Gauge("frostline_queue_images", "Images that wait for the network.", registry=registry)
        self._labels = Counter("frostline_labels", "Images by their label.", ["label"], registry=registry)
        self._unknown = Counter("frostline_unknown", "Images that belong to none of the classes.", registry=registry)
        self._model = Gauge(
            "frostline_model", "The model that answers, always 1.", ["model", "bundle"], registry=registry
        )
        self._reloads = Counter("frostline_reloads", "Changes of the model.", ["result"], registry=registry)
        self._known: set[str] = set()

    def queue(self, length: Callable[[], int]) -> None:
        """Let a function say how many images wait for the network."""
        self._queue.set_function(length)

    def batch(self, images: int) -> None:
        """Count a batch of the network."""
        self._batches.observe(images)

    def model(self, name: str, digest: str, classes: Sequence[str]) -> None:
        """Say which model answers from now on, with the digest of its bundle."""
        self._model.clear()
        self._model.labels(name, digest).set(1)
        for label in classes:  # from 0, so that the first image of a class is seen in a rate
            self._labels.labels(self._label(label))

    def reload(self, result: str) -> None:
        """Count a change of the model: `done` or `failed`."""
        self._reloads.labels(result).inc()

    def __call__(self, exchange: Exchange) -> None:
        """Count a request."""
        address = exchange.address if exchange.address in self._addresses else ELSEWHERE
        self._requests.labels(address, str(exchange.status)).inc()
        self._seconds.labels(address).observe(exchange.seconds)
        self._images.inc(len(exchange.predictions))
        for prediction in exchange.predictions:
            if prediction.unknown:
                self._unknown.inc()
            else:
                self._labels.labels(self._label(prediction.label)).inc()

    def text(self, accept: str) -> tuple[bytes, str]:
        """All numbers, and the Content-Type of that text. accept: the header of the request."""
        from prometheus_client.exposition import choose_encoder

        encode, kind = choose_encoder(accept)
        text: Any = encode(self._registry)
        return text, kind

    def _label(self, name: str) -> str:
        """The name under which a label is counted."""
        if name not in self._known:
            if len(self._known) >= MOST_LABELS:
                return OTHERS
            self._known.add(name)
        return name
