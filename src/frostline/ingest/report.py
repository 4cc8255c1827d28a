"""The report of a source, and its summary for the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from frostline import paths
from frostline.core.escaping import printable
from frostline.data.data_report import DataReport, SplitDigests
from frostline.data.shards import Layout
from frostline.ingest import splits
from frostline.ingest.checks import Findings, in_order
from frostline.params.schema import DataSection

WIDEST = 60  # characters of a path or reason in the table


def build(
    data: DataSection, findings: Findings, layout: Layout, spare: int, digests: dict[str, SplitDigests]
) -> DataReport:
    """The report of a source. spare: number of images that `data.train_per_class` left unused."""
    counts = findings.counts
    problems = in_order(findings.problems)
    return DataReport(
        source=data.source,
        classes=layout.classes,
        image_size=layout.image_size,
        resize=layout.resize,
        grey_range=layout.grey_range,
        images={name: int(counts.loc[name].sum()) for name in splits.SPLITS},
        images_per_class={name: {c: int(n) for c, n in counts.loc[name].items()} for name in splits.SPLITS},
        left_out_by_train_per_class=spare,
        on_problem=data.on_problem,
        problem_counts=dict(Counter(problem.kind for problem in problems).most_common()),
        problems=problems,
        warnings=findings.warnings,
        near_duplicates=findings.near_copies if data.near_duplicates else None,
        digests=digests,
    )


def summary(report: DataReport, notes: Sequence[str]) -> str:
    """A summary of a few lines for people: counts, then each kind of problem with its first file.

    notes: further lines.
    """
    sizes = ", ".join(f"{name} {count:,}" for name, count in report.images.items())
    lines = [f"prepare: {len(report.classes)} classes; {sizes}"]
    if report.problems:
        lines[0] += f"; {len(report.problems):,} dropped"
        width = max(map(len, report.problem_counts))
        for kind, count in report.problem_counts.items():
            first = next(problem for problem in report.problems if problem.kind == kind)
            lines.append(f"  {kind:<{width}} {count:>7,}  {_short(first.path)}: {_short(first.reason)}")
    lines += [f"  {note}" for note in notes]
    lines += [f"  warning: {_short(warning.reason, 2 * WIDEST)}" for warning in report.warnings[:5]]
    if len(report.warnings) > 5:
        lines.append(f"  warning: {len(report.warnings) - 5} more warnings")
    sets = report.near_duplicates or []
    if sets:
        copies = sum(map(len, sets))
        lines.append(f"  {copies:,} near-copies in {len(sets):,} sets, each on one side of the split")
    if report.problems or report.warnings or sets:
        lines.append(f"  {paths.DATA_REPORT} lists all of them")
    return "\n".join(lines)


def drawn(report: DataReport, source_splits: set[str], shares: splits.Shares) -> str:
    """Which splits the source lacks and how they were drawn; empty if it has all. source_splits: those it names."""
    missing = [name for name in splits.SPLITS if name not in source_splits]
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
