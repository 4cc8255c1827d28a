"""Stage `prepare`: any source of pictures becomes shards per split, and a report of what was wrong with it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from frostline.core import atomic
from frostline.data import shards
from frostline.errors import DataError
from frostline.ingest import checks, near_copies, splits, thumbnails
from frostline.ingest import report as data_report
from frostline.ingest.checks import Findings
from frostline.ingest.decoding import Decoder
from frostline.ingest.problems import Problem
from frostline.ingest.sources import Source, open_source
from frostline.params.schema import DataSection, Params
from frostline.paths import DATA_REPORT, PREPARED


def run(params: Params) -> str:
    """Prepare the data; a line that says what came out, and more where something was wrong."""
    pa.set_memory_pool(pa.system_memory_pool())  # Arrow's own keeps tens of megabytes for a few
    data = params.data
    with atomic.folder(PREPARED) as folder:
        work = folder / "work"
        work.mkdir()
        source = open_source(Path(data.source), work)
        decoder = Decoder(source.reader, data.image_size, data.resize, data.min_side, work / "scratch")
        given = set(source.table["split"].dropna())
        readable, problems = _decoded(source, decoder)
        del source  # its table is a copy now
        pairs = _near_copies(readable, decoder)
        found = checks.copies(readable, problems, pairs, data.near_duplicates, decoder.pixel_digests)
        _require_classes(found, given, data)
        found.usable["split"] = splits.assign(found.usable, splits.Shares(**data.split.model_dump()), params.seed)
        checks.balance(found)
        spare = 0
        if data.train_per_class is not None:
            kept = splits.few_labels(found.usable, data.train_per_class, params.seed)
            spare = int((~kept).sum())
            found.usable = found.usable[kept]
        layout = shards.Layout(tuple(sorted(found.usable["label"].unique())), data.image_size, data.resize)
        number = {name: label for label, name in enumerate(layout.classes)}
        written = {}
        for name in splits.SPLITS:
            rows = found.usable[found.usable["split"] == name]
            (folder / name).mkdir()
            index = rows.assign(label=rows["label"].map(number).astype("int64"))
            made = shards.write(
                folder / name, layout, index, decoder.pixels(rows.index), list(decoder.digests(rows.index))
            )
            written[name] = {"source": made.source_digest(), "shards": made.digest}
        shutil.rmtree(work)
        report = data_report.build(data, found, layout.classes, spare, written)
        atomic.write_json(DATA_REPORT, report)
    return data_report.table(report)


def _decoded(source: Source, decoder: Decoder) -> tuple[pd.DataFrame, list[Problem]]:
    """The readable pictures with the columns sha256, prepared, is_coded, width and height; all others' problems."""
    table, problems = source.table, list(source.problems)
    paths, labels = table["path"].to_numpy(), table["label"].to_numpy()
    rows = []
    shas = np.empty(len(table), object)
    numbers = np.empty((len(table), 4), np.int64)
    for row, picture in enumerate(decoder.all(paths)):
        if picture.kind:
            problems.append(Problem(paths[row], labels[row], picture.kind, picture.reason))
            continue
        rows.append(row)
        shas[row] = picture.sha256.hex()
        numbers[row] = picture.prepared, picture.is_coded, *picture.size
    known = pd.DataFrame(numbers, columns=["prepared", "is_coded", "width", "height"]).astype({"is_coded": bool})
    known.insert(0, "sha256", pd.Series(shas, dtype=object))
    return pd.concat([table, known], axis=1).iloc[rows], problems


def _near_copies(readable: pd.DataFrame, decoder: Decoder) -> NDArray[np.int64]:
    """Pairs of near-copies by the number of their row; what is smaller than a thumbnail can't be told from its like."""
    places = np.flatnonzero(readable[["width", "height"]].min(axis=1) >= thumbnails.SIDE)
    records = readable.index.to_numpy()[places]

    def read(chosen: NDArray[np.int64]) -> NDArray[np.uint8]:
        return np.stack(list(decoder.thumbnails(records[chosen].tolist())))

    return places[near_copies.find(len(places), read)]


def _require_classes(found: Findings, given: set[str], data: DataSection) -> None:
    """Refuse what nothing can be learned from, and where `data.on_problem` says so, any problem."""
    problems = checks.as_records(found.problems)
    if problems and data.on_problem == "error":
        first, more = problems[0], f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        path = " ".join(first["path"].split())
        raise DataError(
            f"{data.source}/{path}: {first['reason']}{more}; mend or remove it, or set data.on_problem to drop"
        )
    why = f" ({problems[0]['path']}: {problems[0]['reason']})" if problems else ""
    if found.usable.empty:
        raise DataError(f"{data.source}: holds no usable picture{why}; add class folders with pictures")
    if found.usable["split"].notna().all() and "train" not in set(found.usable["split"]):
        raise DataError(f"{data.source}: no picture is in train{why}; add some, or leave all splits to data.split")
    lost = sorted(given - set(found.usable["split"].dropna()))
    if lost:
        raise DataError(f"{data.source}: no picture of the given split {lost[0]!r} is usable; see to it or remove it")
    if found.usable["label"].nunique() < 2:
        raise DataError(
            f"{data.source}: holds the single class {found.usable['label'].iat[0]!r}{why}, but a classifier needs at "
            "least two; add another class folder"
        )
