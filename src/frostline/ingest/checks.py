"""What is wrong with a source once its images were decoded: what is left out, and what a person should look at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from frostline.ingest import duplicates, splits
from frostline.ingest.folders import nearest
from frostline.ingest.problems import Problem

IMBALANCED = 10  # times as many training images of one class as of another
# Of a class's images, and at least so many: a larger set of near-copies, or half a class, is one of lookalikes.
CROWD, CROWD_LEAST = 0.1, 20
Pairs = NDArray[np.int64]


@dataclass
class Findings:
    """usable: the rows that are left, with the column `together`; problems: what is left out.

    warnings: what is kept but should be looked at, records of kind and reason; near_copies: the paths of each set.
    """

    usable: pd.DataFrame
    problems: list[Problem]
    warnings: list[dict[str, str]] = field(default_factory=list)
    near_copies: list[list[str]] = field(default_factory=list)

    def drop(self, rows: pd.DataFrame) -> None:
        """Leave rows out; they have the columns `kind` and `reason`."""
        columns = (rows[name].tolist() for name in ("path", "label", "kind", "reason"))
        self.problems += [Problem(*values) for values in zip(*columns, strict=True)]
        self.usable = self.usable.drop(index=rows.index)

    def keep(self, mask: NDArray[np.bool_]) -> int:
        """Keep those of the usable rows; how many others there were."""
        self.usable = self.usable[mask]
        return int((~mask).sum())

    @property
    def counts(self) -> pd.DataFrame:
        """Images by split (rows, all three) and class (columns); the rows have their final split."""
        sizes = self.usable.groupby(["split", "label"]).size()
        return sizes.unstack(fill_value=0).reindex(splits.SPLITS, fill_value=0)

    def warn(self, kind: str, reason: str) -> None:
        """Note what is kept."""
        self.warnings.append({"kind": kind, "reason": reason})


def copies(
    readable: pd.DataFrame,
    problems: list[Problem],
    pairs: Pairs,
    is_near_wanted: bool,
    pixel_digests: Callable[[list[str]], list[bytes]],
) -> Findings:
    """Leave out copies, and what lies on two sides of given splits.

    readable: columns path, label, split, group, sha256, prepared, is_coded, width and height; problems: of other files;
    pairs: near-copies, int64 (pairs, 2), by the number of their row; pixel_digests: of the images of some paths,
    decoded at their own size.
    """
    found = Findings(readable, list(problems))
    table = readable.assign(same=_same(readable, pairs, pixel_digests))
    ties = duplicates.ties(table["same"])
    if is_near_wanted:
        pairs = _without_crowds(found, table, pairs)
        alike = duplicates.together(table.assign(group=None), np.concatenate([ties, pairs]))
    else:
        pairs = pairs[:0]
    found.usable = table = table.assign(together=duplicates.together(table, np.concatenate([ties, pairs])))
    found.drop(duplicates.exact(table))
    if is_near_wanted:
        _note_near_copies(found, alike[found.usable.index])
    found.drop(duplicates.straddling(found.usable, _among(pairs, table.index.isin(found.usable.index))))
    _drop_unlearnable(found)
    told = {problem.label for problem in found.problems if problem.kind == "empty_class"}
    named = {problem.label for problem in found.problems if problem.label is not None}
    for label in sorted(named - told - set(found.usable["label"])):
        found.problems.append(Problem(label, label, "empty_class", "no image of the class is left"))
    return found


def _same(readable: pd.DataFrame, pairs: Pairs, pixel_digests: Callable[[list[str]], list[bytes]]) -> pd.Series:
    """What images with the same pixels have in common.

    That is their sha256, but where one image may have been coded in two ways: as a JPEG, which is known by its code,
    and as a PNG of the same pixels, or as two JPEGs of which one was rearranged. Those few are decoded once more.
    """
    coded, size = readable["is_coded"].to_numpy(), readable[["width", "height"]].to_numpy()
    one, two = pairs.T
    is_unsure = _differ(readable["prepared"], readable["sha256"])
    if ((coded[one] != coded[two]) & (size[one] == size[two]).all(axis=1)).any():
        alike = duplicates.together(readable.assign(group=None), pairs)
        is_unsure |= readable.groupby([alike, "width", "height"])["is_coded"].transform("nunique") > 1
    unsure = readable[is_unsure]
    if unsure.empty:
        return readable["sha256"]
    pixels = dict(zip(unsure["sha256"], map(bytes.hex, pixel_digests(unsure["path"].tolist())), strict=True))
    return readable["sha256"].map(lambda sha: pixels.get(sha, sha))


def _differ(values: pd.Series, others: pd.Series) -> pd.Series:
    """Which rows share their value with one that has another other."""
    is_shared = values.duplicated(keep=False)
    shared = others[is_shared].groupby(values[is_shared]).transform("nunique") > 1
    return shared.reindex(values.index, fill_value=False)


def _among(pairs: Pairs, is_left: NDArray[np.bool_]) -> Pairs:
    """Pairs of which both rows are left, by their new numbers."""
    number = np.cumsum(is_left) - 1
    return number[pairs[is_left[pairs].all(axis=1)]]


def _drop_unlearnable(found: Findings) -> None:
    """Leave out classes that given splits have for validation or test alone: they can't be learned."""
    table = found.usable
    is_train = table["split"].isna() | (table["split"] == "train")
    if not is_train.any():
        return  # refused as a whole
    known = sorted(set(table.loc[is_train, "label"]))
    strange = table[~table["label"].isin(known)]
    reasons = {
        label: f"class {label!r} has no image in train{nearest(label, known)}" for label in set(strange["label"])
    }
    found.drop(strange.assign(kind="class_not_in_train", reason=strange["label"].map(reasons)))


def _without_crowds(found: Findings, table: pd.DataFrame, pairs: Pairs) -> Pairs:
    """Pairs but those of sets so large that they are no copies but a class of lookalikes, of which is warned."""
    alike = duplicates.together(table.assign(group=None), pairs)
    # Exact copies count once; of a set over several classes the largest class counts.
    size, sizes = (table.groupby(by)["same"].transform("nunique") for by in (alike, "label"))
    of = sizes.groupby(alike).transform("max")
    is_crowd = (size > 2) & ((size > of / 2) | (size > np.maximum(CROWD * of, CROWD_LEAST)))
    for _, rows in table[is_crowd].groupby(alike[is_crowd], sort=False):
        found.warn(
            "crowd",
            f"{rows['path'].min()} and {len(rows) - 1} others look like near-copies of each other; so many are taken "
            "for lookalikes, and split like all others",
        )
    return pairs[~is_crowd.to_numpy()[pairs[:, 0]]]


def _note_near_copies(found: Findings, alike: pd.Series) -> None:
    """Every set of near-copies, and those under several labels. alike: the set of each row."""
    table = found.usable[alike.duplicated(keep=False)]
    for _, rows in table.groupby(alike[table.index], sort=False):
        paths = sorted(rows["path"])
        found.near_copies.append(paths)
        labels = sorted(set(rows["label"]))
        if len(labels) > 1:
            said = ", ".join(repr(label) for label in labels)
            found.warn("near_label_conflict", f"{paths[0]} and {len(paths) - 1} near-copies have the labels {said}")
    found.near_copies.sort()


def balance(found: Findings) -> None:
    """Note what the splits lack, and classes of very different size; the rows have their final split."""
    counts = found.counts
    for name in ("val", "test"):
        for label in counts.columns[(counts.loc[name] == 0).to_numpy()]:
            found.warn("class_not_in_split", f"class {label!r} has no image in {name}")
    train = counts.loc["train"]
    if train.max() >= IMBALANCED * train.min():
        found.warn(
            "imbalance",
            f"train has {train.max():,} images of {train.idxmax()!r} and {train.min():,} of {train.idxmin()!r}; "
            "finetune.class_weight: balanced weighs them alike",
        )


def as_records(problems: list[Problem]) -> list[dict[str, Any]]:
    """Problems as reports/data.json has them, by path."""
    return [problem._asdict() for problem in sorted(problems, key=lambda problem: (problem.path, problem.reason))]
