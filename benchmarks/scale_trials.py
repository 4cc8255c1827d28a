"""What a study itself costs for each trial, beside the training: in each storage, and as the number of trials grows.

    python benchmarks/scale_trials.py [--trials 300]

A worker takes trials, reports two values for each and ends it, without any training between. TPE proposes the points of
two keys, as in params.yaml. The seconds are the mean of the last tenth of the trials.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import table
from optuna.storages import BaseStorage
from workspace import ROOT

from frostline.search import proxy, storages, study
from frostline.search.sampling import Settings
from frostline.search.space import Choice, Interval

sys.path.append(str(ROOT / "tests"))

SPACE = [
    Choice("finetune.freeze", ("none", "a", "b", "c", "d", "e", "f", "all"), is_ordered=True),
    Interval("finetune.learning_rate", 1e-5, 1e-2, log=True, step=None, is_whole=False),
]


def seconds(storage: BaseStorage, folder: Path, trials: int) -> float:
    """The mean time of a trial among the last tenth."""
    settings = Settings(trials, "tpe", "none", True, 1, 100, 4, (), True)
    last = max(1, trials // 10)
    with study.join("s", storage, folder, SPACE, settings) as current:
        for number in range(trials):
            if number == trials - last:
                began = time.monotonic()
            trial = current.take(None)
            assert trial is not None
            rate = trial.params["finetune.learning_rate"]
            for images in (100, 200):
                current.report(trial, images, rate * images, 0.5)
            current.finish(trial, "complete", rate)
        return (time.monotonic() - began) / last


@contextmanager
def served(folder: Path) -> Iterator[BaseStorage]:
    """A SQLite file behind the proxy that `--workers` starts."""
    with (
        storages.opened("auto", folder) as opened,
        proxy.serving(opened, "127.0.0.1", threads=1) as address,
        storages.opened(f"{proxy.SCHEME}{address}", folder) as client,
    ):
        yield client


def places(folder: Path) -> dict[str, Callable[[], AbstractContextManager[BaseStorage]]]:
    """How to open each kind of storage in a new folder."""
    return {
        "SQLite (`auto`)": lambda: storages.opened("auto", folder),
        "journal": lambda: storages.opened("journal", folder),
        "SQLite behind the proxy": lambda: served(folder),
    }


def measured(counts: Sequence[int]) -> list[list[str]]:
    """A row for each kind of storage."""
    rows = []
    for name in [*places(Path()), "PostgreSQL"]:
        cells = []
        for count in counts:
            with tempfile.TemporaryDirectory() as temporary:
                folder = Path(temporary)
                with database(folder) if name == "PostgreSQL" else nullcontext(None) as url:
                    opener = storages.opened(url, folder) if url else places(folder)[name]()
                    with opener as storage:
                        cells.append(f"{1000 * seconds(storage, folder / 's', count):.0f} ms")
        rows.append([name, *cells])
        print(rows[-1], flush=True)
    return rows


@contextmanager
def database(folder: Path) -> Iterator[str]:
    """The URL of a PostgreSQL server."""
    import postgres

    with postgres.running(folder) as server:
        yield server.url


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=300)
    counts = [count for count in (10, 100, 300, 1000) if count <= parser.parse_args().trials]
    table.show(
        "scale_trials",
        "What a study costs for each trial beside its training: the mean of the last tenth of the trials, by one "
        "worker. TPE proposes two keys.",
        ["storage", *(f"{count:,} trials" for count in counts)],
        measured(counts),
    )


if __name__ == "__main__":
    main()
