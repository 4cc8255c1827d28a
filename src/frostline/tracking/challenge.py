"""The gate between a challenger and the champion, with the predictions of both for the same test images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from frostline import paths
from frostline.core import atomic, progress
from frostline.data import images, shards
from frostline.errors import StateError
from frostline.evaluation import gate
from frostline.params.schema import Params
from frostline.serving import loading, originals
from frostline.tracking.registry import Registry, Version

if TYPE_CHECKING:
    import pandas as pd

    from frostline.data.images import Pixels
    from frostline.serving.scoring import Scorer


def compare(
    params: Params, registry: Registry, challenger: Version, champion: Version, reevaluate: bool
) -> gate.Comparison:
    """Compare two versions.

    reevaluate: test both on data/prepared/test, and not by their stored predictions. Raises StateError if the two were
    not tested on the same images, or know different classes.
    """
    if reevaluate:
        test = shards.open_folder(paths.PREPARED / "test")
        tested_on = test.source_digest()
        tables = [_tested(params, registry, version, test, tested_on) for version in (challenger, champion)]
    else:
        tested_on = challenger.test_digest or ""
        stored = [registry.predictions(version, tested_on) for version in (challenger, champion)]
        tables = [table for table in stored if table is not None]
        if len(tables) < 2:
            raise StateError(
                f"{champion.uri}: was not tested on the images that version {challenger.number} was tested on, so the "
                "two can't be compared; `frostline promote --reevaluate` tests both on data/prepared/test"
            )
    labels, (ours, theirs) = gate.aligned(tables)
    rule = params.registry.gate
    return gate.compare(labels, ours, theirs, rule.metric, rule.margin, rule.confidence, params.seed)


def _tested(params: Params, registry: Registry, version: Version, test: shards.Shards, tested_on: str) -> pd.DataFrame:
    """The predictions of a version for the present test set, which are stored for the next time."""
    table = registry.predictions(version, tested_on)
    if table is None:
        print(f"promote: testing version {version.number} on {len(test)} images", flush=True)
        table = _predictions(params, registry.bundle(version), test)
        registry.keep_predictions(version, tested_on, table)
    return table


def _predictions(params: Params, bundle: Path, test: shards.Shards) -> pd.DataFrame:
    """A table like reports/predictions.parquet, by a bundle that may need images of another size or resizing."""
    import pandas as pd

    from frostline.serving.scoring import BATCH

    scorer = loading.scorer_of(bundle)
    asked, layout = (scorer.image_size, scorer.resize, scorer.grey_range), test.layout
    is_prepared = asked == (layout.image_size, layout.resize, layout.grey_range)
    parts = []
    with atomic.scratch(paths.state() / "source") as scratch:
        read = test.take if is_prepared else _decoder(params, test, scorer, scratch)
        for start in progress.track(range(0, len(test), BATCH), len(test), "test", BATCH):
            parts.append(scorer.probabilities(read(np.arange(start, min(start + BATCH, len(test))))))
    labels = np.asarray(test.layout.classes, object)[test.labels]
    table = pd.DataFrame(
        {"sha256": test.index["sha256"], "label": labels, "probabilities": list(np.concatenate(parts))}
    )
    table.attrs["classes"] = list(scorer.classes)
    return table


def _decoder(
    params: Params, test: shards.Shards, scorer: Scorer, scratch: Path
) -> Callable[[NDArray[np.int64]], NDArray[np.uint8]]:
    """A function that reads test images from the source again, in another size. scratch: for an unpacked archive."""
    from_source = originals.of_split(params.data, test, scratch)

    def read(rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        return np.stack([one(row) for row in rows])

    def one(row: np.int64) -> Pixels:
        image = from_source.read(int(row), scorer.image_size, scorer.grey_range).image
        return np.asarray(images.fit(image, scorer.image_size, scorer.resize))

    return read
