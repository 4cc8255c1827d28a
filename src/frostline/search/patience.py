"""Storages on another machine: each operation waits while the server is away, instead of ending the sweep."""

from __future__ import annotations

import functools
import sys
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from optuna.storages import BaseStorage
from optuna.trial import TrialState

from frostline.errors import StateError

FIRST_WAIT, LONGEST_WAIT = 0.5, 10.0  # seconds between tries at a server that is away; each is twice the one before


class Patient(BaseStorage):
    """A storage whose operations wait for a server that is away; the base of a class next to one of Optuna's storages.

    Each operation waits for at most `patience` seconds since the server was last there, and then raises StateError.
    When that time is over, each operation tries once, so that leaving takes no longer. An operation is also repeated if
    the server went away after the operation was done and before the server said so. Most operations can be repeated as
    they are. A trial that was taken then belongs to no worker, and goes back to the pool for its missing heartbeat; a
    trial that was added is there twice, the second time beyond the budget.

    place: the name of the server in messages; server: what it is, in a word.
    """

    place: str
    patience: float
    server: str
    _away: float | None = None  # since when
    _back = -float("inf")  # when it came back

    @abstractmethod
    def why_away(self, error: Exception) -> str | None:
        """The words of an error that says that the server is away; None for any other error.

        Raises StateError if the server answers, and refuses to work.
        """

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """See Optuna. A trial is put back once: when this is repeated, another worker may have the trial."""
        if state != TrialState.WAITING:
            return super().set_trial_state_values(trial_id, state, values)  # type: ignore[safe-super]
        began = self.get_trial(trial_id).datetime_start
        set_state = super().set_trial_state_values  # type: ignore[safe-super]

        @waiting
        def put_back(self: Patient) -> bool:
            return self.get_trial(trial_id).datetime_start == began and set_state(trial_id, state, values)

        return put_back(self)

    @property
    def seconds_since_back(self) -> float:
        """How long the server has been there again; infinite if it was never away."""
        return time.monotonic() - self._back

    def answered(self) -> None:
        """Note that the server is there."""
        if self._away is not None:
            self._away, self._back = None, time.monotonic()

    def missed(self, error: Exception) -> float:
        """The seconds that are left to wait. Raises StateError if there are none, and the error itself if it does not
        say that the server is away."""
        why = self.why_away(error)
        if why is None:
            raise error
        if self._away is None:
            self._away = time.monotonic()
            if self.patience:
                print(f"warning: {self.place} is away; waiting for it, {self.patience:g} s at most", file=sys.stderr)
        left = self._away + self.patience - time.monotonic()
        if left <= 0:
            waited = f" for {self.patience:g} s" if self.patience else ""
            raise StateError(
                f"{self.place} was away{waited} ({why}); check that the {self.server} runs, and start this again to "
                "resume the study (sweep.patience: seconds to wait)"
            ) from error
        return left


def waiting(method: Callable[..., Any]) -> Callable[..., Any]:
    """Make a method of a patient storage wait while the server is away."""

    @functools.wraps(method)
    def patient(self: Patient, *args: Any, **kwargs: Any) -> Any:
        wait = FIRST_WAIT
        while True:
            try:
                result = method(self, *args, **kwargs)
            except Exception as error:
                time.sleep(min(wait, self.missed(error)))
                wait = min(2 * wait, LONGEST_WAIT)
            else:
                self.answered()
                return result

    return patient


def make_patient(storage: type[Patient], more: Iterable[str] = ()) -> None:
    """Make all methods of a storage wait, and those that its class overrides besides. more: their names."""
    for name in (*(name for name in dir(BaseStorage) if not name.startswith("_")), *more):
        setattr(storage, name, waiting(getattr(storage, name)))
