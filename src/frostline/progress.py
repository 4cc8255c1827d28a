"""Progress of long work: a bar with an ETA on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

PLAIN_SECONDS = 15.0


def track(items: Iterable[T], total: int, what: str, unit: str = "images") -> Iterator[T]:
    """Pass items through, showing how far it is on standard error.

    total: number of items; what: a word before the bar; unit: what one item is.
    """
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(items, total=total, desc=what, unit=f" {unit}", leave=False)
        return
    start = said = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - said >= PLAIN_SECONDS and done < total:
            left = (now - start) / done * (total - done)
            print(f"{what}: {done}/{total} {unit}, {done / (now - start):.0f}/s, {left:.0f} s left", file=sys.stderr)
            said = now
