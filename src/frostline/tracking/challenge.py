"""A challenger and the champion on the same test images: the gate, with what each of them says of every image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from frostline import paths
from frostline.core import atomic, progress
from frostline.data import images, shards
from frostline.errors import StateError
from frostline.evaluation import gate
from frostline.ingest import sources
from frostline.params.schema import Params
from frostline.serving import loading
from frostline.tracking.registry import Registry, Version

if TYPE_CHECKING:
    import pandas as pd

    from frostline.serving.scoring import Scorer


def compare(
    params: Params, known: Registry, challenger: Version, champion: Version, reevaluate: bool
) -> gate.Comparison:
    if reevaluate:
        test = shards.open_folder(paths.PREPARED / "test")
        tested_on = test.source_digest()
        tables = [_evaluated(params, known, version, test, tested_on) for version in (challenger, champion)]
    else:
        tested_on = challenger.test_digest or ""
        found = [known.predictions(version, tested_on) for version in (challenger, champion)]
        tables = [table for table in found if table is not None]
        if len(tables) < 2:
            raise StateError(
                f"{champion.uri}: was not tested on the images that version {challenger.number} was tested on, so the "
                "two can't be compared; `frostline promote --reevaluate` tests both on data/prepared/test"
            )
    labels, (ours, theirs) = _aligned(tables)
    rule = params.registry.gate
    return gate.compare(labels, ours, theirs, rule.metric, rule.margin, rule.confidence, params.seed)


def _evaluated(params: Params, known: Registry, version: Version, test: shards.Shards, tested_on: str) -> pd.DataFrame:
    """What a version says of the present test set, which is kept for the next time."""
    table = known.predictions(version, tested_on)
    if table is None:
        print(f"promote: testing version {version.number} on {len(test)} images", flush=True)
        table = _predicted(params, known.bundle(version), test)
        known.keep_predictions(version, tested_on, table)
    return table


def _predicted(params: Params, bundle: Path, test: shards.Shards) -> pd.DataFrame:
    """As reports/predictions.parquet, by a bundle that may want its images otherwise than they are prepared here."""
    import pandas as pd

    from frostline.serving.scoring import BATCH

    scorer = loading.scorer_of(bundle)
    wanted, there = (scorer.image_size, scorer.resize), (test.layout.image_size, test.layout.resize)
    made = []
    with atomic.scratch(paths.state() / "source") as scratch:
        read = test.take if wanted == there else _decoder(params, test, scorer, scratch)
        for start in progress.track(range(0, len(test), BATCH), len(test), "test", BATCH):
            made.append(scorer.probabilities(read(np.arange(start, min(start + BATCH, len(test))))))
    labels = np.asarray(test.layout.classes, object)[test.labels]
    table = pd.DataFrame({"sha256": test.index["sha256"], "label": labels, "probabilities": list(np.concatenate(made))})
    table.attrs["classes"] = list(scorer.classes)
    return table


def _decoder(
    params: Params, test: shards.Shards, scorer: Scorer, scratch: Path
) -> Callable[[NDArray[np.int64]], NDArray[np.uint8]]:
    """Reads test images from the source again, in another size. scratch: where an archive is unpacked."""
    reader = sources.open_source(Path(params.data.source), scratch).reader
    names = test.index["path"]

    def read(rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        prepared = (reader.read(names[row], scorer.image_size).image for row in rows)
        return np.stack([np.asarray(images.fit(image, scorer.image_size, scorer.resize)) for image in prepared])

    return read


def _aligned(tables: Sequence[pd.DataFrame]) -> tuple[NDArray[np.int64], list[NDArray[np.float32]]]:
    """Labels and probabilities of both, image by image and class by class alike."""
    classes = sorted(tables[0].attrs["classes"])
    if sorted(tables[1].attrs["classes"]) != classes:
        raise StateError("promote: challenger and champion know different classes; they can't be compared")
    numbers = {name: number for number, name in enumerate(classes)}
    probabilities = []
    for table in tables:
        ordered = table.sort_values("sha256")
        columns = np.argsort([numbers[name] for name in table.attrs["classes"]])
        probabilities.append(np.stack(ordered["probabilities"].to_list()).astype(np.float32)[:, columns])
    labels = tables[0].sort_values("sha256")["label"].map(numbers).to_numpy(np.int64)
    return labels, probabilities
