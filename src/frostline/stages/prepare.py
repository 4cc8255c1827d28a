"""Stage `prepare`: any source of pictures becomes shards per split, and a report of what was wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from frostline import atomic, catalog, shards, splits
from frostline.decoding import Decoder
from frostline.errors import DataError
from frostline.manifest import open_source
from frostline.params import Data, Params


def run(params: Params) -> str:
    """Prepare the data; one line that says what came out."""
    data = params.data
    source = open_source(Path(data.source))
    with atomic.folder(catalog.PREPARED) as folder:
        decoder = Decoder(source, data.image_size, data.resize, folder / "scratch")
        table = decoder.all()
        usable, problems = _checked(table, data)
        usable["split"] = splits.assign(usable, splits.Shares(**data.split.model_dump()), params.seed)
        _require_every_class(usable, data)
        spare = 0
        if data.train_per_class is not None:
            kept = splits.few_labels(usable, data.train_per_class, params.seed)
            spare = int((~kept).sum())
            usable = usable[kept]
        layout = shards.Layout(tuple(sorted(usable["label"].unique())), data.image_size, data.resize)
        number = {name: label for label, name in enumerate(layout.classes)}
        digests = {}
        for name in splits.SPLITS:
            rows = usable[usable["split"] == name]
            (folder / name).mkdir()
            index = rows.assign(label=rows["label"].map(number).astype("int64"))
            written = shards.write(folder / name, layout, index, decoder.pixels(rows.index))
            digests[name] = {"source": written.source_digest(), "shards": written.digest}
        decoder.scratch.unlink()
        counts = usable.groupby(["split", "label"]).size().unstack(fill_value=0)
        report: dict[str, Any] = {
            "source": data.source,
            "classes": list(layout.classes),
            "image_size": data.image_size,
            "resize": data.resize,
            "images": {name: int(counts.loc[name].sum()) for name in splits.SPLITS},
            "images_per_class": {name: {c: int(n) for c, n in counts.loc[name].items()} for name in splits.SPLITS},
            "left_out_by_train_per_class": spare,
            "problems": problems,
            "digests": digests,
        }
        atomic.write_json(catalog.DATA_REPORT, report)
    sizes = ", ".join(f"{name} {count}" for name, count in report["images"].items())
    dropped = f"; {len(problems)} files dropped, see {catalog.DATA_REPORT}" if problems else ""
    return f"prepare: {len(layout.classes)} classes; {sizes}{dropped}"


def _checked(table: pd.DataFrame, data: Data) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """The usable rows, and the others as records of path, label and reason."""
    if table.empty:
        raise DataError(
            f"{data.source}: holds no picture at all; add class folders with pictures, or classes to the card"
        )
    broken = table[table["reason"].notna()]
    readable = table[table["reason"].isna()]
    odd = pd.concat([broken, splits.resolve_duplicates(readable)])
    problems = [
        {"path": row.path, "label": row.label, "reason": row.reason} for row in odd.sort_values("path").itertuples()
    ]
    if problems and data.on_problem == "error":
        first, more = problems[0], f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise DataError(
            f"{data.source}/{first['path']}: {first['reason']}{more}; mend or remove it, or set data.on_problem to drop"
        )
    usable = readable.drop(index=odd.index, errors="ignore").drop(columns="reason")
    for label in sorted(set(table["label"]) - set(usable["label"])):
        reason = next(problem["reason"] for problem in problems if problem["label"] == label)
        raise DataError(f"{data.source}: class {label!r} has no usable image ({reason}); add pictures or remove it")
    if usable["label"].nunique() < 2:
        raise DataError(
            f"{data.source}: holds the single class {usable['label'].iat[0]!r}, but a classifier needs at least two; "
            "add another class folder"
        )
    for name in sorted(set(table["split"].dropna()) - set(usable["split"].dropna())):
        raise DataError(f"{data.source}: no image of the given split {name!r} is usable; see to its files or remove it")
    return usable, problems


def _require_every_class(usable: pd.DataFrame, data: Data) -> None:
    """Training and validation need every class; a class that only the test split lacks can still be learned."""
    for name in ("train", "val"):
        missing = sorted(set(usable["label"]) - set(usable.loc[usable["split"] == name, "label"]))
        if missing:
            raise DataError(f"{data.source}: class {missing[0]!r} has no image in {name}; add some or remove the class")
