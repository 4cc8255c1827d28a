"""The text that is printed at the end of the pipeline: accuracy, interval, report, and what to try next."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def text(metrics: dict[str, Any], report: Path, freeze: Any) -> str:
    """Four lines. metrics: the content of reports/metrics.json; report: the model card; freeze: the rule in use."""
    low, high = metrics["accuracy_ci95"]
    other = "all" if freeze == "none" else "none"
    return "\n".join(
        [
            f"test accuracy {metrics['accuracy']:.4f} (95% interval {low:.4f} to {high:.4f}, n = {metrics['n_test']})",
            f"report        {report}",
            "next          make ui                # compare runs in the MLflow UI",
            f"              source .venv/bin/activate && dvc exp run -S finetune.freeze={other}",
        ]
    )
