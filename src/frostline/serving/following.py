"""A server that follows an alias of a registered model: when the alias moves, the version it names takes over."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from frostline.core import machine
from frostline.core.escaping import printable
from frostline.serving.served import Current, Served

SLOWEST = 6  # times the usual seconds between two looks, after several failures


class Follower:
    """Looks from time to time which version an alias names, and lets that one answer.

    The new version is loaded beside the old one and takes over when it can answer; requests that have begun are
    answered by the old one. Where the registry does not answer, or a version cannot be loaded, the old one stays, and
    the reason is printed once.
    """

    def __init__(
        self, current: Current, look: Callable[[], str], load: Callable[[str], Served], seconds: float
    ) -> None:
        """look: the name of the version that should answer, see `Served.name`; load: that version, from its name."""
        self.current, self._look, self._load, self._seconds = current, look, load, seconds
        self._failures, self._said, self._has_changed = 0, "", False

    @contextmanager
    def following(self) -> Iterator[None]:
        """Follow until the block ends."""
        stop = threading.Event()
        thread = threading.Thread(target=self._work, args=(stop,), daemon=True, name="frostline-following")
        thread.start()
        try:
            yield
        finally:
            stop.set()  # it is not waited for: a registry that does not answer would hold up the end

    def _work(self, stop: threading.Event) -> None:
        while not stop.wait(self._seconds * min(2**self._failures, SLOWEST)):
            self.once()

    def once(self) -> None:
        """Look once."""
        try:
            name = self._look()
            if name != self.current.served.name:
                self.current.replace(self._load(name))
                self._has_changed = True
                print(f"serve: {printable(name)} answers from now on", flush=True)
            elif self._has_changed:
                self._has_changed = False  # by now the requests of the version before have been answered
                machine.give_memory_back()
            self._failures, self._said = 0, ""
        except Exception as error:  # whatever it is, the old version can answer
            self._failures += 1
            self.current.metrics.reload("failed")
            if (reason := " ".join(str(error).split()) or type(error).__name__) != self._said:
                self._said = reason
                print(
                    f"warning: {printable(self.current.served.name)} still answers: {printable(reason)}",
                    file=sys.stderr,
                )
