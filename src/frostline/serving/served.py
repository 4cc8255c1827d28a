"""The model that answers: one bundle with all that requests need of it. Another can take over at any time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from frostline.serving.metrics import Metrics
from frostline.serving.neighbours import Neighbours
from frostline.serving.scoring import Scorer

# The bytes of an image -> a PNG. Raises UnreadableImageError.
Explain = Callable[[bytes], bytes]

HEADER = "X-Frostline-Model"


@dataclass(frozen=True)
class Served:
    """A loaded model.

    name: the folder's, or the version's like `models:/pets/3`; digest: of the bundle, as MLflow has it in the tag
    `frostline.bundle`; neighbours: the training images; about: the answer to GET /about.
    """

    scorer: Scorer
    explain: Explain
    name: str
    digest: str
    neighbours: Neighbours
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def headers(self) -> dict[str, str]:
        """The header that says which version an answer is from, like `models:/pets/3; bundle=0c4f...`."""
        return {HEADER: f"{quote(self.name, safe='/:')}; bundle={self.digest}"}


class Current:
    """The model that answers now. A request takes it once, so that one version gives the whole answer."""

    def __init__(self, served: Served, metrics: Metrics) -> None:
        self.metrics = metrics
        self._put(served)
        metrics.queue(lambda: self.served.scorer.waiting())

    def replace(self, served: Served) -> None:
        """Let another model answer the requests that begin from now on."""
        self._put(served)
        self.metrics.reload("done")

    def _put(self, served: Served) -> None:
        served.scorer.watch(self.metrics.batch)
        self.served = served
        self.metrics.model(served.name, served.digest, served.scorer.classes)
