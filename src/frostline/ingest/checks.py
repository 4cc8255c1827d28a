"""Checks of a source whose images are decoded: what is left out, and what a person should look at."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from frostline.data.data_report import DataWarning, Problem
from frostline.ingest import duplicates, splits
from frostline.ingest.folders import nearest

NO_LABEL = {"nan", "none", "null", "na", "n/a", "unknown", "?", "-"}
IMBALANCED = 10  # warn if the largest class has that many times the training images of the smallest
# A set of near-copies with more than this share of a class, and more than this number of images, or with more than half
# of a class, is taken for a set of lookalikes.
CROWD, CROWD_LEAST = 0.1, 20
Pairs = NDArray[np.int64]


@dataclass
class Findings:
    """The result of the checks.

    usable: the rows that are left, with the column `together`; problems: what is left out; warnings: records of kind
    and reason, about images that are kept but should be looked at; near_copies: columns set (the number of the set of
    near-copies) and path, sorted.
    """

    usable: pd.DataFrame
    problems: list[Problem]
    warnings: list[DataWarning] = field(default_factory=list)
    near_copies: pd.DataFrame = field(default_factory=lambda: pd.DataFrame({"set": [], "path": []}))

    def drop(self, rows: pd.DataFrame) -> None:
        """Leave rows out and note them as problems. rows: with the columns `kind` and `reason`."""
        if rows.empty:
            return
        columns = (rows[name].tolist() for name in ("path", "label", "kind", "reason"))
        self.problems += [Problem(*values) for values in zip(*columns, strict=True)]
        self.usable = self.usable.drop(index=rows.index)

    def keep(self, mask: NDArray[np.bool_]) -> int:
        """Keep only these of the usable rows. Returns the number of the others. mask: bool (usable rows,)."""
        if not mask.all():
            self.usable = self.usable[mask]
        return int((~mask).sum())

    @property
    def counts(self) -> pd.DataFrame:
        """Number of images by split (rows, all four) and class (columns). The usable rows must have a split."""
        sizes = self.usable.groupby(["split", "label"]).size()
        return sizes.unstack(fill_value=0).reindex(splits.ALL, fill_value=0)

    def warn(self, kind: str, reason: str) -> None:
        """Add a warning about images that are kept."""
        self.warnings.append(DataWarning(kind, reason))


def copies(
    readable: pd.DataFrame,
    problems: list[Problem],
    pairs: Pairs,
    near_duplicates: bool,
    pixel_digests: Callable[[list[str]], list[bytes]],
) -> Findings:
    """Leave out copies, and images that belong together but lie in different splits of the source.

    readable: columns path, label, split, group, sha256, prepared, is_coded, width and height; problems: of other files;
    pairs: near-copies, int64 (pairs, 2), by the number of their row; near_duplicates: whether near-copies count;
    pixel_digests: computes the digests of the images of some paths, decoded at their own size.
    """
    findings = Findings(readable, list(problems))
    table = readable.assign(same=_same(readable, pairs, pixel_digests))
    ties = duplicates.ties(table["same"])
    if near_duplicates:
        pairs = _without_crowds(findings, table, pairs)
        alike = duplicates.together(table, np.concatenate([ties, pairs]), by_group=False)
    else:
        pairs = pairs[:0]
    findings.usable = table = table.assign(together=duplicates.together(table, np.concatenate([ties, pairs])))
    findings.drop(duplicates.exact(table))
    if near_duplicates:
        _note_near_copies(findings, alike[findings.usable.index])
    findings.drop(duplicates.straddling(findings.usable, _among(pairs, table.index.isin(findings.usable.index))))
    findings.usable = findings.usable.drop(columns=["prepared", "is_coded", "width", "height", "same"])
    _drop_unlearnable(findings)
    reported = {problem.label for problem in findings.problems if problem.kind == "empty_class"}
    labels = {problem.label for problem in findings.problems if problem.label is not None}
    for label in sorted(labels - reported - set(findings.usable["label"])):
        findings.problems.append(Problem(label, label, "empty_class", "no image of the class is left"))
    return findings


def _same(readable: pd.DataFrame, pairs: Pairs, pixel_digests: Callable[[list[str]], list[bytes]]) -> pd.Series:
    """A number for each row that is equal for images with the same pixels.

    It stands for the sha256, unless the same image may be coded in two ways: as a JPEG, whose sha256 is that of its
    coded image, and as a PNG of the same pixels, or as two JPEGs of which one was rearranged. Those few images are
    decoded again.
    """
    coded, size = readable["is_coded"].to_numpy(), readable[["width", "height"]].to_numpy()
    one, two = pairs.T
    is_unsure = _differ(readable["prepared"], readable["sha256"])
    if ((coded[one] != coded[two]) & (size[one] == size[two]).all(axis=1)).any():
        alike = duplicates.together(readable, pairs, by_group=False)
        is_unsure |= readable.groupby([alike, "width", "height"])["is_coded"].transform("nunique") > 1
    same = readable["sha256"]
    if is_unsure.any():
        paths = readable.loc[is_unsure, "path"].tolist()
        same = same.where(~is_unsure, None)
        same[is_unsure] = [each.hex() for each in pixel_digests(paths)]
    return pd.Series(pd.factorize(same)[0], readable.index)


def _differ(values: pd.Series, others: pd.Series) -> pd.Series:
    """Which rows share their value with a row that differs in `others`."""
    is_shared = values.duplicated(keep=False)
    shared = others[is_shared].groupby(values[is_shared]).transform("nunique") > 1
    return shared.reindex(values.index, fill_value=False)


def _among(pairs: Pairs, is_usable: NDArray[np.bool_]) -> Pairs:
    """The pairs of which both rows are left, with the new row numbers."""
    number = np.cumsum(is_usable) - 1
    return number[pairs[is_usable[pairs].all(axis=1)]]


def _drop_unlearnable(findings: Findings) -> None:
    """Leave out classes that the source has only in validation or test: they can't be learned."""
    table = findings.usable
    is_train = table["split"].isna() | (table["split"] == "train")
    if not is_train.any():
        return  # the whole source is refused later
    classes = sorted(set(table.loc[is_train, "label"]))
    unlearnable = table[~table["label"].isin(classes)]
    reasons = {
        label: f"class {label!r} has no image in train{nearest(label, classes)}" for label in set(unlearnable["label"])
    }
    findings.drop(unlearnable.assign(kind="class_not_in_train", reason=unlearnable["label"].map(reasons)))


def _without_crowds(findings: Findings, table: pd.DataFrame, pairs: Pairs) -> Pairs:
    """The pairs without those of very large sets, which are lookalikes, not copies. Warns of each set."""
    alike = duplicates.together(table, pairs, by_group=False)
    # Exact copies count once. If a set has several classes, the largest class counts.
    set_size, class_size = (table.groupby(by)["same"].transform("nunique") for by in (alike, "label"))
    largest_class = class_size.groupby(alike).transform("max")
    is_crowd = (set_size > 2) & (
        (set_size > largest_class / 2) | (set_size > np.maximum(CROWD * largest_class, CROWD_LEAST))
    )
    for _, rows in table[is_crowd].groupby(alike[is_crowd], sort=False):
        findings.warn(
            "crowd",
            f"{rows['path'].min()} and {len(rows) - 1} others look like near-copies of each other; that many are "
            "taken for lookalikes, and split like all other images",
        )
    return pairs[~is_crowd.to_numpy()[pairs[:, 0]]]


def _note_near_copies(findings: Findings, alike: pd.Series) -> None:
    """Note every set of near-copies, and warn of sets with several labels. alike: the number of each row's set."""
    table = findings.usable.loc[alike.duplicated(keep=False), ["path", "label"]]
    table["set"] = alike[table.index]
    is_mixed = table.groupby("set")["label"].transform("nunique") > 1
    for _, rows in table[is_mixed].groupby("set", sort=False):
        names = ", ".join(repr(label) for label in sorted(set(rows["label"])))
        findings.warn(
            "near_label_conflict", f"{rows['path'].min()} and {len(rows) - 1} near-copies have the labels {names}"
        )
    # The sets are numbered by the first of their paths.
    table = table.sort_values("path")
    table["set"] = pd.factorize(table["set"])[0]
    findings.near_copies = table.sort_values("set", kind="stable")[["set", "path"]]


def balance(findings: Findings) -> None:
    """Warn of classes that a split lacks, and of classes of very different size. The usable rows must have a split."""
    counts = findings.counts
    for name in ("val", "test"):
        for label in counts.columns[(counts.loc[name] == 0).to_numpy()]:
            findings.warn("class_not_in_split", f"class {label!r} has no image in {name}")
    train = counts.loc["train"]
    if train.max() >= IMBALANCED * train.min():
        findings.warn(
            "imbalance",
            f"train has {train.max():,} images of {train.idxmax()!r} and {train.min():,} of {train.idxmin()!r}; "
            "finetune.class_weight: balanced weighs them alike",
        )


def odd_labels(findings: Findings) -> None:
    """Warn of labels that may be the same class in two spellings, no label at all, or several labels."""
    counts = findings.usable["label"].value_counts()
    counts = counts[counts > 0]  # categories whose images are all left out have no image
    by_meaning: dict[str, list[str]] = {}
    for label in sorted(counts.index):
        by_meaning.setdefault(_meaning(label), []).append(label)
    for spellings in by_meaning.values():
        if len(spellings) > 1:
            findings.warn("spellings", f"the labels {_counted(spellings, counts)} are taken for different classes")
    missing = [label for label in counts.index if label.casefold() in NO_LABEL]
    if missing:
        findings.warn("no_label", f"the labels {_counted(missing, counts)} look like missing ones")
    several = [label for label in counts.index if any(mark in label for mark in ",;|")]
    if several:
        findings.warn(
            "several_labels", f"the labels {_counted(several, counts)} look like several; an image has one label here"
        )


def _meaning(label: str) -> str:
    """A text that is the same for labels which differ only in case, spaces and marks, or as numbers (`1` and `1.0`)."""
    try:
        return f"{float(label):g}"
    except ValueError:
        return re.sub(r"[\W_]+", "", label.casefold()) or label


def _counted(names: Sequence[str], counts: pd.Series) -> str:
    listed = ", ".join(f"{name!r} ({counts[name]:,} images)" for name in names[:5])
    return f"{listed} and {len(names) - 5} more" if len(names) > 5 else listed


def in_order(problems: list[Problem]) -> list[Problem]:
    """The problems sorted by path, then by reason."""
    return sorted(problems, key=lambda problem: (problem.path, problem.reason))
