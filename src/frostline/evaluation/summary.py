"""The text that is printed at the end of the pipeline: accuracy, interval, report, and what to try next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from frostline.evaluation.scores import Scores


def text(scores: Scores, report: Path, freeze: Any, view: str | None) -> str:
    """A few lines.

    report: the model card; freeze: the rule in use, None for a band; view: a page or a command that shows the run.
    """
    low, high = scores.accuracy.interval or (0.0, 1.0)
    other = "finetune.freeze=" + ("all" if freeze == "none" else "none")
    if freeze is None:
        other += " -S finetune.train=null"
    is_poor = low <= scores.commonest_class
    warning = "warning: this is not clearly better than the commonest class; check data, backbone and learning rate"
    experiment = f"source .venv/bin/activate && dvc exp run -S {other}"
    if view is not None and view.startswith("http"):
        looks = [f"run           {view}", f"next          {experiment}"]
    elif view is not None:
        looks = [f"next          {view:<22} # compare runs in the MLflow UI", f"              {experiment}"]
    else:
        looks = [f"next          {experiment}"]
    return "\n".join(
        [
            f"test accuracy {scores.accuracy.value:.4f} (95% interval {low:.4f} to {high:.4f}, n = {scores.n_test})",
            f"baseline      {scores.commonest_class:.4f} (always the commonest class)",
            f"report        {report}",
            *looks,
            *([warning] if is_poor else []),
        ]
    )
