"""The report of a source, and its summary for the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from frostline import paths
from frostline.core import atomic
from frostline.core.escaping import printable
from frostline.data.data_report import MOST, DataReport, NearCopyCounts, Problem, SplitDigests
from frostline.data.shards import Layout
from frostline.ingest import splits
from frostline.ingest.checks import Findings, in_order
from frostline.params.schema import DataSection

WIDEST = 60  # characters of a path or reason in the table
AT_ONCE = 4096  # rows of a table
_WHERE = f"{paths.DATA_REPORT} lists the first ones, {paths.PROBLEMS} and {paths.NEAR_COPIES} all"


def build(
    data: DataSection, findings: Findings, layout: Layout, spare: int, digests: dict[str, SplitDigests]
) -> DataReport:
    """The report of a source. spare: number of images that `data.train_per_class` left unused."""
    counts = findings.counts
    names = [name for name in splits.ALL if name in digests]
    problems, sets = in_order(findings.problems), findings.near_copies["set"]
    return DataReport(
        source=data.source,
        classes=layout.classes,
        image_size=layout.image_size,
        resize=layout.resize,
        grey_range=layout.grey_range,
        images={name: int(counts.loc[name].sum()) for name in names},
        images_per_class={name: {c: int(n) for c, n in counts.loc[name].items()} for name in names},
        left_out_by_train_per_class=spare,
        on_problem=data.on_problem,
        problem_counts=dict(Counter(problem.kind for problem in problems).most_common()),
        problems=_first(problems),
        warnings=findings.warnings,
        near_duplicates=_first_sets(findings.near_copies) if data.near_duplicates else None,
        near_duplicate_counts=NearCopyCounts(sets.nunique(), len(sets)),
        digests=digests,
    )


def _first(problems: Sequence[Problem]) -> list[Problem]:
    """The first MOST problems of each kind, in order."""
    seen: Counter[str] = Counter()
    listed = []
    for problem in problems:
        seen[problem.kind] += 1
        if seen[problem.kind] <= MOST:
            listed.append(problem)
    return listed


def _first_sets(near_copies: pd.DataFrame) -> list[list[str]]:
    """The first MOST sets of near-copies, at most MOST paths of each."""
    first = near_copies[near_copies["set"] < MOST]
    return [rows.head(MOST).tolist() for _, rows in first.groupby("set")["path"]]


def write_tables(findings: Findings, problems: Path, near_copies: Path) -> None:
    """Write all problems and all near-copies as Parquet, piece by piece.

    Columns of problems: path, label, kind and reason (see `data_report.Problem`), sorted by path; of near_copies: set
    (a number from 0) and path, sorted by set.
    """
    texts = [(name, pa.string()) for name in Problem._fields]
    rows = in_order(findings.problems)
    parts = (list(zip(*rows[start : start + AT_ONCE], strict=True)) for start in range(0, len(rows), AT_ONCE))
    _write_table(problems, pa.schema(texts), parts)
    sets = findings.near_copies
    pieces = (sets.iloc[start : start + AT_ONCE] for start in range(0, len(sets), AT_ONCE))
    schema = pa.schema([("set", pa.int64()), ("path", pa.string())])
    _write_table(near_copies, schema, ([piece["set"], piece["path"]] for piece in pieces))


def _write_table(path: Path, schema: pa.Schema, parts: Iterable[Sequence[Any]]) -> None:
    with atomic.file(path) as temporary, parquet.ParquetWriter(temporary, schema) as writer:
        for columns in parts:
            arrays = [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


def summary(report: DataReport, notes: Sequence[str]) -> str:
    """A summary of a few lines for people: counts, then each kind of problem with its first file.

    notes: further lines.
    """
    sizes = ", ".join(f"{name} {count:,}" for name, count in report.images.items())
    lines = [f"prepare: {len(report.classes)} classes; {sizes}"]
    if report.problems:
        lines[0] += f"; {sum(report.problem_counts.values()):,} dropped"
        width = max(map(len, report.problem_counts))
        for kind, count in report.problem_counts.items():
            first = next(problem for problem in report.problems if problem.kind == kind)
            lines.append(f"  {kind:<{width}} {count:>7,}  {_short(first.path)}: {_short(first.reason)}")
    lines += [f"  {note}" for note in notes]
    lines += [f"  warning: {_short(warning.reason, 2 * WIDEST)}" for warning in report.warnings[:5]]
    if len(report.warnings) > 5:
        lines.append(f"  warning: {len(report.warnings) - 5} more warnings")
    sets, copies = report.near_duplicate_counts
    if sets:
        lines.append(f"  {copies:,} near-copies in {sets:,} sets, each on one side of the split")
    if report.problems or report.warnings or sets:
        lines.append(f"  {paths.DATA_REPORT} lists all of them" if _is_whole(report) else f"  {_WHERE}")
    return "\n".join(lines)


def _is_whole(report: DataReport) -> bool:
    """Whether the report lists all problems and near-copies, and not only the first ones."""
    listed = sum(map(len, report.near_duplicates or []))
    return len(report.problems) == sum(report.problem_counts.values()) and listed == report.near_duplicate_counts.images


def drawn(report: DataReport, source_splits: set[str], shares: splits.Shares) -> str:
    """Which splits the source lacks and how they were drawn; empty if it has all. source_splits: those it names."""
    missing = [name for name in report.images if name not in source_splits]
    if not missing:
        return ""
    if source_splits:
        counts = ", ".join(f"{report.images[name]:,} for {name}" for name in missing)
        return f"the source has no {' and no '.join(missing)}, so images were drawn from train by content: {counts}"
    return f"the source has no splits, so they were drawn by content: {shares} (data.split)"


def _short(text: str, widest: int = WIDEST) -> str:
    """The text on one line, without its middle if it is too long."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= widest else f"{line[: widest // 2 - 1]}...{line[-widest // 2 + 2 :]}"
