"""`frostline promote` and `rollback`: who is champion, decided on the same test pictures or not at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from frostline.commands import predict
from frostline.core import atomic, progress
from frostline.data import images, shards
from frostline.errors import RefusedError, StateError
from frostline.evaluation import gate
from frostline.ingest import sources
from frostline.params.schema import Params
from frostline.paths import PREPARED, state
from frostline.tracking import registry
from frostline.tracking.moves import CHALLENGER
from frostline.tracking.registry import Registry, Version

if TYPE_CHECKING:
    import pandas as pd

    from frostline.serving.scoring import Scorer


def promote(params: Params, wanted: str | None, reevaluate: bool) -> str:
    """Make a version (its number or alias; None: the challenger) champion if it is at least as good as the present one.

    reevaluate: test both on data/prepared/test where they have not been. Raises RefusedError, with the numbers, where
    it is not, and StateError where the two were tested on different pictures.
    """
    with _registry(params) as known, known.alone():
        challenger, champion = known.version(wanted or CHALLENGER), known.champion()
        if champion is None:
            reason = "the first champion"
        elif champion.number == challenger.number:
            return f"promote: {challenger.uri} is the champion already"
        else:
            found = _compared(params, known, challenger, champion, reevaluate)
            told = f"version {challenger.number} against champion {champion.number}: {found.text}"
            if not found.passed:
                raise RefusedError(f"promote: refused, {told}; the champion stays, or widen registry.gate.margin")
            reason = told
        known.move("promote", champion, challenger, reason)
    return f"promote: {challenger.uri} is the champion now; {reason}"


def rollback(params: Params, reason: str) -> str:
    """Undo the last promotion that still stands. Raises StateError where there is none."""
    with _registry(params) as known, known.alone():
        champion, number = known.champion(), known.previous_champion()
        before = known.version(str(number)) if number is not None else None
        known.move("rollback", champion, before, reason)
    now = f"{before.uri} is the champion again" if before else "there is no champion any more, as before"
    return f"rollback: {now}"


def _registry(params: Params) -> AbstractContextManager[Registry]:
    return registry.registry(params.tracking, params.registry.name)


def _compared(
    params: Params, known: Registry, challenger: Version, champion: Version, reevaluate: bool
) -> gate.Comparison:
    if reevaluate:
        test = shards.open_folder(PREPARED / "test")
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
    """As reports/predictions.parquet, by a bundle that may want its pictures otherwise than they are prepared here."""
    import pandas as pd

    from frostline.serving.scoring import BATCH

    scorer = predict.scorer_of(bundle)
    wanted, there = (scorer.image_size, scorer.resize), (test.layout.image_size, test.layout.resize)
    made = []
    with atomic.scratch(state() / "source") as scratch:
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
    """Reads test pictures from the source again, in another size. scratch: where an archive is unpacked."""
    reader = sources.open_source(Path(params.data.source), scratch).reader
    paths = test.index["path"]

    def read(rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        pictures = (reader.read(paths[row], scorer.image_size).image for row in rows)
        return np.stack([np.asarray(images.fit(picture, scorer.image_size, scorer.resize)) for picture in pictures])

    return read


def _aligned(tables: Sequence[pd.DataFrame]) -> tuple[NDArray[np.int64], list[NDArray[np.float32]]]:
    """Labels and probabilities of both, picture by picture and class by class alike."""
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
