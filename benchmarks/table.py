"""Print a Markdown table and keep it beside the script that measured it, with the machine's size in its caption."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path

RESULTS = Path(__file__).with_name("results")


def machine() -> str:
    """The processor and memory of this machine, in words."""
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{len(os.sched_getaffinity(0))} cores of {model}, {gigabytes:.0f} GiB, no GPU used"


def show(name: str, caption: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print the table and write it to results/NAME.md. Raises ValueError for a row that the header does not fit."""
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"{name}: {len(row)} cells under {len(header)} headings: {row}")
    lines = [" | ".join(header), " | ".join("---" for _ in header), *(" | ".join(row) for row in rows)]
    text = f"{caption}\nMeasured on {machine()}.\n\n" + "\n".join(f"| {line} |" for line in lines) + "\n"
    print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")
