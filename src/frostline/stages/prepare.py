"""Stage `prepare`: write the shards of each split from any source of images, and a report of its problems."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pyarrow as pa

from frostline.core import atomic
from frostline.core.executors import Executor
from frostline.data import shards
from frostline.data.data_report import SplitDigests
from frostline.ingest import changes, checks, deep_images, duplicates, gathering, report, splits
from frostline.ingest.decoding import Decoder
from frostline.ingest.sources import open_source
from frostline.ingest.structures import Structure
from frostline.params.schema import Params
from frostline.paths import DATA_REPORT, NEAR_COPIES, PREPARED, PROBLEMS, last_images


def run(params: Params, executor: Executor | None = None) -> str:
    """Prepare the data. Returns a line about the result, and one for each kind of problem.

    executor: where images are decoded, None for processes of this machine.
    """
    pa.set_memory_pool(pa.system_memory_pool())  # Arrow's own pool keeps tens of megabytes after small tables
    data = params.data
    with atomic.folder(PREPARED) as folder:
        work = folder / "work"
        work.mkdir()
        source = open_source(Path(data.source), work, Structure.of(data))
        decoder = Decoder(
            source.reader,
            data.image_size,
            data.resize,
            data.min_side,
            work / "scratch",
            data.range or "own",
            executor,
            Path(data.source),
        )
        given_splits = set(source.table["split"].dropna())
        decoded = gathering.decoded(source, decoder)
        warnings = source.warnings
        shares = splits.Shares.of(data.split or source.split)
        per_class = data.train_per_class or source.train_per_class
        del source  # each table is large, and the next one has what is still needed
        findings = gathering.usable(*decoded, given_splits, decoder, data)
        del decoded
        findings.warnings[:0] = warnings
        findings.usable["split"] = splits.assign(findings.usable, shares, params.seed)
        gathering.require_splits(findings, data)
        checks.odd_labels(findings)
        checks.balance(findings)
        change = _change(data.source, findings.usable)
        spare = findings.keep(splits.few_labels(findings.usable, per_class, params.seed))
        deep = deep_images.settle(findings, decoder, data.range)
        findings.usable = usable = findings.usable[["path", "label", "split", "sha256", "together"]]
        classes = tuple(sorted(usable["label"].unique()))
        layout = shards.Layout(classes, data.image_size, data.resize, deep.grey_range if deep.images else None)
        usable = usable.assign(together=duplicates.names_of_sets(usable))
        numbers = {name: number for number, name in enumerate(layout.classes)}
        digests_of = {}
        for name in splits.ALL:  # dvc.yaml names all four folders, so that of calibration exists without images too
            index = usable.loc[usable["split"] == name, ["path", "label", "sha256", "together"]]
            (folder / name).mkdir()
            index["label"] = index["label"].map(numbers).astype("int64")
            pixels, digests = decoder.pixels(index.index), decoder.digests(index.index)
            split = shards.write(folder / name, layout, index, pixels, digests, data.codec)
            if name in splits.SPLITS or len(split):
                digests_of[name] = SplitDigests(split.source_digest(), split.digest)
        shutil.rmtree(work)
        result = report.build(data, findings, layout, spare, digests_of)
        report.write_tables(findings, PROBLEMS, NEAR_COPIES)
        atomic.write_json(DATA_REPORT, result.as_json())
    notes = [report.drawn(result, given_splits, shares), str(deep) if deep.images else "", *change]
    return report.summary(result, [note for note in notes if note])


def _change(source: str, images: pd.DataFrame) -> list[str]:
    """What changed since last time, if there is something to say. Keeps these images for the next time."""
    record = last_images()
    if record is None:
        return []
    change = changes.since_last_time(record, source, images)
    changes.remember(record, source, images)
    return [change] if change else []
