"""`frostline report`: the last evaluation, as it lies in reports/metrics.json, or compared with that of a revision."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pandas as pd

from frostline import paths
from frostline.core import atomic, plain_yaml
from frostline.core.masking import masked
from frostline.evaluation import markdown, scores, summary
from frostline.evaluation.markdown import EvaluatedState
from frostline.params.schema import Params
from frostline.tracking import revisions, run_log, tracker
from frostline.tracking.runs import NullRun

FILES = (*revisions.IN_GIT, *revisions.IN_DVC)


def run(params: Params | None) -> str:
    """The summary of the last evaluation, or metrics.json itself if params is None."""
    test_scores = scores.read(paths.METRICS)
    if params is None:
        return paths.METRICS.read_text(encoding="utf-8").rstrip()
    view = tracker.tracker(params.tracking).view(NullRun())  # of all runs
    return summary.text(test_scores, paths.MODEL_CARD, params, view)


def as_markdown(params: Params, against: str | None) -> str:
    """The last evaluation as Markdown, compared with that of a git revision.

    Raises StateError if git does not know the revision, DataError if nothing was evaluated here.
    """
    now = _state("now", Path(), [path for path in FILES if path.is_file()])
    if against is None:
        return markdown.text(now, None, params.seed).rstrip()
    with atomic.scratch(paths.state() / "report") as scratch:
        found = revisions.reports(against, scratch)
        before = _state(against, scratch, found) if paths.METRICS in found else None
        return markdown.text(now, before, params.seed).rstrip()


def _state(name: str, folder: Path, found: Collection[Path]) -> EvaluatedState:
    """The state of a folder. found: which files it has."""
    test_scores = scores.read(folder / paths.METRICS)
    settings = plain_yaml.read(folder / paths.PARAMS) if paths.PARAMS in found else {}
    history = pd.read_csv(folder / paths.HISTORY) if paths.HISTORY in found else None
    return EvaluatedState(
        name,
        test_scores,
        {key: masked(value) if isinstance(value, str) else value for key, value in run_log.flat(settings).items()},
        None if history is None or history.empty else int(history["frozen_layers"].iat[-1]),
        pd.read_csv(folder / paths.CONFUSION, dtype=str) if paths.CONFUSION in found else None,
        pd.read_parquet(folder / paths.PREDICTIONS) if paths.PREDICTIONS in found else None,
    )
