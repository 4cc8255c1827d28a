"""What a person looks at after a sweep: its trials as a table, the best values, images, a few lines.

reports/sweep/
├── trials.csv          one row a trial
├── best_params.yaml    the best trial's values by dotted key, and what they reached
└── *.png               history, importance, slices, the frost line
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pandas as pd

from frostline.core import atomic
from frostline.core.escaping import cells
from frostline.search import plots
from frostline.search.space import FREEZE, Choice, Interval
from frostline.search.study import SECONDS, Study
from frostline.search.study_log import StudyLog


def table(study: Study) -> pd.DataFrame:
    """One row a trial that was begun: number, state, value, epochs (trained), seconds (spent), finished (seconds from
    the study's start to the trial's end, None while it lasts), same_as, reason, and a column for each searched key."""
    began, images = study.began(), study.settings.images
    return pd.DataFrame(
        [
            {
                "number": trial.number,
                "state": trial.state,
                "value": math.nan if trial.value is None else trial.value,
                "epochs": max(trial.reported, default=0) / images,
                "seconds": trial.notes.get(SECONDS, 0.0),
                "finished": (trial.ended - began).total_seconds() if trial.ended else math.nan,
                "same_as": trial.same_as,
                "reason": trial.reason,
                **{dimension.key: trial.values[dimension.key] for dimension in study.space},
            }
            for trial in study.tried()
            if len(trial.values) == len(study.space)
        ]
    )


def write(folder: Path, study: Study, metric: str, shares: Mapping[str, float]) -> None:
    """Write the reports into an empty folder. shares: of parameters frozen, by freeze rule."""
    from ruamel.yaml import YAML

    trials = table(study)
    cells(trials).to_csv(folder / "trials.csv", index=False)
    best = study.best()
    if best is not None:
        with (folder / "best_params.yaml").open("w", encoding="utf-8") as file:
            file.write(f"# trial {best.number} of study {study.name}: {metric} {best.value:.6f}\n")
            YAML().dump(dict(best.values), file)
    if trials.empty:
        return
    maximize = study.settings.maximize
    keys = [dimension.key for dimension in study.space]
    logarithmic = [dimension.key for dimension in study.space if isinstance(dimension, Interval) and dimension.log]
    ordered = {dimension.key: dimension.values for dimension in study.space if isinstance(dimension, Choice)}
    figures = {
        "history": plots.history(trials, metric, maximize),
        "slices": plots.slices(trials, keys, logarithmic, ordered, metric, maximize),
    }
    if importances := study.importances():
        figures["importance"] = plots.importance(importances)
    if FREEZE in ordered:
        cuts = [(str(value), shares[str(value)]) for value in ordered[FREEZE]]
        figures["frost_line"] = plots.frost_line(trials, FREEZE, cuts, metric, maximize)
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png")


@contextmanager
def written_at_the_end(
    folder: Path, study: Study, log: StudyLog, metric: str, shares: Mapping[str, float]
) -> Iterator[None]:
    """Write the reports and close the log when the block ends; of a search that is interrupted too, but then its error
    is the one to tell."""

    def finish() -> None:
        with study.alone():
            with atomic.folder(folder) as temporary:
                write(temporary, study, metric, shares)
            log.close(study.best(), folder, is_over=all(trial.is_finished for trial in study.tried()))

    try:
        yield
    except BaseException:
        with suppress(Exception):
            finish()
        raise
    finish()


def summary(study: Study, metric: str, folder: Path) -> str:
    """A few lines: what was tried, what was best, where to look."""
    tried = study.tried()
    counts = {state: sum(trial.state == state for trial in tried) for state in ("complete", "pruned", "failed")}
    said = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    left = sum(not trial.is_finished for trial in tried)
    lines = [f"sweep: {len(tried) - left} of {len(tried)} trials ({said or 'none finished'})"]
    if left:
        lines[0] += "; run `frostline sweep` again to go on"
    best = study.best()
    if best is not None:
        values = ", ".join(f"{key} = {_plain(value)}" for key, value in best.values.items())
        lines.append(f"best  {metric} {best.value:.4f} in trial {best.number}: {values}")
    failed = [trial for trial in tried if trial.state == "failed"]
    if failed:
        lines.append(f"failed trial {failed[-1].number}: {failed[-1].reason}")
    lines.append(f"look  {folder}/frost_line.png, {folder}/trials.csv; make ui compares the trials in MLflow")
    return "\n".join(lines)


def as_json(study: Study, metric: str) -> dict[str, Any]:
    """The outcome for a script: study, metric, trials (counts by state), best (number, value, values) or None."""
    best, tried = study.best(), study.tried()
    return {
        "study": study.name,
        "metric": metric,
        "trials": {state: sum(trial.state == state for trial in tried) for state in sorted({t.state for t in tried})},
        "best": None if best is None else {"number": best.number, "value": best.value, "values": best.values},
    }


def _plain(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
