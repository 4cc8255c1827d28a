"""`frostline register`: the classifier of dvc.lock becomes a registered version, the challenger."""

from __future__ import annotations

import json
from pathlib import Path

from frostline import paths
from frostline.core import digest
from frostline.core.escaping import code
from frostline.params.schema import Params
from frostline.tracking import lineage, registry, run_log, states, tracker


def run(params: Params) -> str:
    """Register the classifier. Returns a line that names it, and a second one if its state cannot be restored.

    Raises StateError if files and dvc.lock differ, or if the registry is not available.
    """
    with registry.registry(params.tracking, params.registry.name) as models:
        lineage.require_up_to_date()
        tags = lineage.state_tags(Path(), paths.DVC_LOCK)
        states.record(tracker.tracker(params.tracking), Path(), tags)
        metrics = json.loads(paths.METRICS.read_text(encoding="utf-8"))
        numbers = {f"test_{key}": f"{value:.6g}" for key, value in metrics.items() if isinstance(value, int | float)}
        low, high = metrics["accuracy_ci95"]
        description = (
            f"Test accuracy {metrics['accuracy']:.4f} (95% interval {low:.4f} to {high:.4f}) on {metrics['n_test']} "
            f"images of {code(params.data.source)}."
        )
        tags |= {run_log.TEST_DIGEST: metrics["test_digest"], **numbers}
        version = models.register(digest.of_folder(paths.BUNDLE), tags, description)
    lines = [
        f"register: {version.uri} is the challenger (test accuracy {metrics['accuracy']:.4f}); "
        f"`frostline promote` compares it with the champion"
    ]
    if tags.get(lineage.DIRTY) != "false":
        lines.append("register: this state is not committed, so it cannot be restored; commit it and register again")
    return "\n".join(lines)
