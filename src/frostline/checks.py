"""What is wrong with a source once its pictures were decoded: what is left out, and what a person should look at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from frostline import duplicates, splits
from frostline.folders import nearest
from frostline.problems import Problem

IMBALANCED = 10  # times as many training pictures of one class as of another
CROWD = 0.1  # of a class's pictures: a larger set of near-copies is rather one of lookalikes
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

    def warn(self, kind: str, reason: str) -> None:
        """Note what is kept."""
        self.warnings.append({"kind": kind, "reason": reason})


def copies(
    readable: pd.DataFrame, problems: list[Problem], near: Callable[[NDArray[np.int64]], Pairs] | None
) -> Findings:
    """Leave out copies, and what lies on two sides of given splits.

    readable: columns path, label, split, group and sha256, the row's number its index; problems: of other files;
    near: finds near-copies among rows, int64 (rows,): pairs of places in that array; None: they are not looked for.
    """
    found = Findings(readable, list(problems))
    found.drop(duplicates.exact(readable))
    table = found.usable
    pairs = near(table.index.to_numpy()) if near and len(table) else np.empty((0, 2), np.int64)
    found.usable = table = table.assign(together=duplicates.together(table, pairs))
    _note_near_copies(found, pairs)
    found.drop(duplicates.straddling(table, pairs))
    _drop_unlearnable(found)
    told = {problem.label for problem in found.problems if problem.kind == "empty_class"}
    named = {problem.label for problem in found.problems if problem.label is not None}
    for label in sorted(named - told - set(found.usable["label"])):
        found.problems.append(Problem(label, label, "empty_class", "no picture of the class is left"))
    return found


def _drop_unlearnable(found: Findings) -> None:
    """Leave out classes that given splits have for validation or test alone: they can't be learned."""
    table = found.usable
    is_train = table["split"].isna() | (table["split"] == "train")
    if not is_train.any():
        return  # refused as a whole
    known = sorted(set(table.loc[is_train, "label"]))
    strange = table[~table["label"].isin(known)]
    reasons = {
        label: f"class {label!r} has no picture in train{nearest(label, known)}" for label in set(strange["label"])
    }
    found.drop(strange.assign(kind="class_not_in_train", reason=strange["label"].map(reasons)))


def _note_near_copies(found: Findings, pairs: Pairs) -> None:
    """Every set of near-copies, and those that look like something else than copies."""
    if not len(pairs):
        return
    table = found.usable
    tied = np.unique(pairs)
    # By pairs alone: a group of the user's is no set of copies.
    number = duplicates.together(table.assign(group=None), pairs).iloc[tied]
    members = table.iloc[tied].groupby(number.to_numpy(), sort=False)
    sizes = table["label"].value_counts()
    for _, rows in members:
        paths = sorted(rows["path"])
        found.near_copies.append(paths)
        labels = sorted(set(rows["label"]))
        if len(labels) > 1:
            said = ", ".join(repr(label) for label in labels)
            found.warn("near_label_conflict", f"{paths[0]} and {len(paths) - 1} near-copies have the labels {said}")
        most = int(sizes[labels].max())
        if len(paths) > max(CROWD * most, 10):
            found.warn(
                "crowd",
                f"{paths[0]} has {len(paths) - 1} near-copies; where they are lookalikes and no copies, set "
                "data.near_duplicates to false",
            )
    found.near_copies.sort()


def balance(found: Findings) -> None:
    """Note what the splits lack, and classes of very different size; the rows have their final split."""
    counts = found.usable.groupby(["split", "label"]).size().unstack(fill_value=0).reindex(splits.SPLITS, fill_value=0)
    for name in ("val", "test"):
        for label in counts.columns[(counts.loc[name] == 0).to_numpy()]:
            found.warn("class_not_in_split", f"class {label!r} has no picture in {name}")
    train = counts.loc["train"]
    if train.max() >= IMBALANCED * train.min():
        found.warn(
            "imbalance",
            f"train has {train.max():,} pictures of {train.idxmax()!r} and {train.min():,} of {train.idxmin()!r}; "
            "finetune.class_weight: balanced weighs them alike",
        )


def as_records(problems: list[Problem]) -> list[dict[str, Any]]:
    """Problems as reports/data.json has them, by path."""
    return [problem._asdict() for problem in sorted(problems, key=lambda problem: (problem.path, problem.reason))]
