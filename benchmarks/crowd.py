"""Clients that do the same at the same time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


def seconds_of(work: Callable[[int], None], clients: int) -> float:
    """The seconds until so many threads are done. work: of one, which gets its number."""
    start = time.perf_counter()
    threads = [threading.Thread(target=work, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - start
