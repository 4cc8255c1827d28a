"""The reports of a sweep: its trials as a table, the best values, plots, and a summary of a few lines.

reports/sweep/
├── trials.csv          one row a trial
├── best_params.yaml    the best trial's values by dotted key, and what they reached
└── *.png               history, importance, slices, the freeze line
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from frostline.core import atomic
from frostline.core.escaping import cells
from frostline.evaluation.plots import save
from frostline.search import plots, trial_records
from frostline.search.soup import Soup, Soups
from frostline.search.space import FREEZE, Choice, Interval
from frostline.search.study import Study
from frostline.search.study_log import StudyLog
from frostline.search.trial_records import SECONDS


def table(study: Study) -> pd.DataFrame:
    """One row for each trial that has begun.

    The columns are number, state, value, epochs, seconds (of work), finished (seconds from the study's start to the
    trial's end, NaN while it lasts), same_as, reason, and one for each searched key.
    """
    return pd.DataFrame(
        [
            {
                "number": trial.number,
                "state": trial.state,
                "value": math.nan if trial.value is None else trial.value,
                "epochs": trial.images_seen / study.settings.images,
                "seconds": trial.notes.get(SECONDS, 0.0),
                "finished": (trial.ended - study.began).total_seconds() if trial.ended else math.nan,
                "same_as": trial.same_as,
                "reason": trial.reason,
                **{dimension.key: trial.values[dimension.key] for dimension in study.space},
            }
            for trial in study.trials()
            if len(trial.values) == len(study.space)
        ]
    )


def write(folder: Path, study: Study, metric: str, shares: Mapping[str, float], soup: Soup | None) -> None:
    """Write the reports into an empty folder.

    shares: the share of parameters that each freeze rule freezes, empty for several backbones; soup: the one that is
    better than the best trial.
    """
    from ruamel.yaml import YAML

    trials = table(study)
    cells(trials).to_csv(folder / "trials.csv", index=False)
    best = study.best()
    if best is not None:
        with (folder / "best_params.yaml").open("w", encoding="utf-8") as file:
            file.write(f"# trial {best.number} of study {study.name}: {metric} {best.value:.6f}\n")
            if soup is not None:
                file.write(f"# finetune.soup, of {soup.words}: {metric} {soup.value(metric):.6f}\n")
            YAML().dump({**best.values, **({"finetune.soup": soup.ingredients} if soup else {})}, file)
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
    if importances := trial_records.importances(study.trials(), study.space, maximize):
        figures["importance"] = plots.importance(importances)
    if FREEZE in ordered and shares:
        cuts = [(str(value), shares[str(value)]) for value in ordered[FREEZE]]
        figures["frost_line"] = plots.frost_line(trials, FREEZE, cuts, metric, maximize)
    for name, figure in figures.items():
        save(figure, folder / f"{name}.png")


@contextmanager
def written_at_the_end(
    folder: Path, study: Study, log: StudyLog, metric: str, shares: Mapping[str, float], soups: Soups
) -> Iterator[None]:
    """Write the reports and close the log when the block ends, also if the search was interrupted.

    The error of an interrupted search is raised, not one that comes while its reports are written.
    """

    def finish() -> None:
        study.release()  # an interrupted trial is nobody's from here on
        with study.alone():
            with atomic.folder(folder) as temporary:
                write(temporary, study, metric, shares, soups.found)
            log.close(study.trials(), study.best(), folder, soups.found)

    try:
        yield
    except BaseException:
        with suppress(Exception):
            finish()
        raise
    finish()


def summary(study: Study, metric: str, folder: Path, view: str | None, soup: Soup | None) -> str:
    """A few lines: how many trials ended how, the best one, and where to look. view: a page or command of MLflow's."""
    trials = study.trials()
    counts = {state: sum(trial.state == state for trial in trials) for state in ("complete", "pruned", "failed")}
    by_state = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    left = sum(not trial.is_finished for trial in trials)
    lines = [f"sweep: {len(trials) - left} of {len(trials)} trials ({by_state or 'none finished'})"]
    if left:
        lines[0] += "; run `frostline sweep` again to resume"
    best = study.best()
    if best is not None:
        values = ", ".join(f"{key} = {_plain(value)}" for key, value in best.values.items())
        lines.append(f"best  {metric} {best.value:.4f} in trial {best.number}: {values}")
        for trial in trial_records.ahead(trials, "pruned", study.settings.maximize)[:1]:
            lines.append(f"note  trial {trial.number} had {metric} {trial.value:.4f} when it was pruned before its end")
    if soup is not None:
        single = f"best single {soup.best_accuracy:.4f} and {soup.best_loss:.4f}"
        reached = f"val_accuracy {soup.val_accuracy:.4f} and val_loss {soup.val_loss:.4f}"
        lines.append(f"soup  {reached} of {soup.words} ({single})")
    failed = [trial for trial in trials if trial.state == "failed"]
    if failed:
        lines.append(f"failed trial {failed[-1].number}: {failed[-1].reason}")
    mlflow = f"; {view} compares the trials in MLflow" if view else ""
    lines.append(f"look  {folder}/frost_line.png, {folder}/trials.csv{mlflow}")
    return "\n".join(lines)


def as_json(study: Study, metric: str, soup: Soup | None) -> dict[str, Any]:
    """The outcome for scripts: study, metric, trials (counts by state), best (number, value, values) or None, soup (the
    fields of `Soup`) or None."""
    best, trials = study.best(), study.trials()
    return {
        "study": study.name,
        "metric": metric,
        "trials": {state: sum(trial.state == state for trial in trials) for state in sorted({t.state for t in trials})},
        "best": None if best is None else {"number": best.number, "value": best.value, "values": best.values},
        "soup": None if soup is None else asdict(soup),
    }


def _plain(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
