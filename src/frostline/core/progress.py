"""Progress of long work: a bar with the remaining time on a terminal, otherwise a plain line every few seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

PLAIN_SECONDS = 15.0


def track(items: Iterable[T], total: int, what: str, each: int = 1) -> Iterator[T]:
    """Yield the items and show the progress on standard error.

    total: number of images; what: the word before the bar; each: images per item (the last item may have fewer).
    """
    if sys.stderr.isatty():
        from tqdm import tqdm

        # A bar that is wider than the terminal would wrap, and its first line would stay there. tqdm looks up the width
        # by itself only for sys.stderr, which is not the stream here. All bars are at position 0, since work may need
        # other work in between: its bar replaces the waiting one instead of leaving it to stand above.
        stream = getattr(sys.stderr, "steering", sys.stderr)
        options = {"leave": False, "file": stream, "dynamic_ncols": True, "position": 0}
        with tqdm(total=total, desc=what, unit=" images", **options) as bar:
            for item in items:
                yield item
                bar.update(min(each, total - bar.n))
        return
    start = last_print = time.monotonic()
    for number, item in enumerate(items, 1):
        yield item
        now, count = time.monotonic(), min(number * each, total)
        if now - last_print >= PLAIN_SECONDS and count < total:
            rate = count / (now - start)
            print(f"{what}: {count}/{total} images, {rate:.0f}/s, {(total - count) / rate:.0f} s left", file=sys.stderr)
            last_print = now
