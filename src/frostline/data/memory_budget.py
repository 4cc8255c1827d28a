"""A limit for the memory of images that are decoded at the same time.

Every registered model contains a copy of this file (see packaging.py), so it imports nothing else from this package.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any


class Budget:
    """Limits the memory of all images that are decoded at the same time. A thread waits until there is enough.

    total: bytes; an image that needs more is decoded alone. condition, used: a condition and an object with the number
    of used bytes in its attribute `value`, shared by all threads, or by all processes if they are of `multiprocessing`.
    """

    def __init__(self, total: float, condition: Any = None, used: Any = None) -> None:
        self.total = int(total)
        self._condition = condition if condition is not None else threading.Condition()
        self._used = used if used is not None else SimpleNamespace(value=0)
        self._turn = threading.local()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """A block that decodes and uses an image. Its memory counts as free again after the block."""
        self._turn.amount = 0
        try:
            yield
        finally:
            amount, self._turn.amount = self._turn.amount, None
            if amount:
                with self._condition:
                    self._used.value -= amount
                    self._condition.notify_all()

    def take(self, amount: int) -> None:
        """Take bytes until the end of this thread's turn. Outside of a turn there is no limit."""
        earlier_amount = getattr(self._turn, "amount", None)
        if earlier_amount is None:
            return
        amount = min(amount, self.total)
        with self._condition:
            if not earlier_amount:  # a thread that has bytes must not wait for threads that may wait for it
                self._condition.wait_for(lambda: self._used.value + amount <= self.total)
            self._used.value += amount
        self._turn.amount = earlier_amount + amount
