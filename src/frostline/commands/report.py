"""`frostline report`: the numbers of the last evaluation, as they lie in reports/metrics.json."""

from __future__ import annotations

from frostline import paths
from frostline.evaluation import scores, summary
from frostline.params.schema import Params
from frostline.tracking import tracker
from frostline.tracking.runs import NullRun


def run(params: Params | None) -> str:
    """The summary of the last evaluation, or metrics.json itself if params is None."""
    test_scores = scores.read(paths.METRICS)
    if params is None:
        return paths.METRICS.read_text(encoding="utf-8").rstrip()
    view = tracker.tracker(params.tracking).view(NullRun())  # of all runs
    return summary.text(test_scores, paths.MODEL_CARD, params, view)
