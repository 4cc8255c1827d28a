"""`frostline register`: the classifier as dvc.lock has it becomes a registered version, the challenger."""

from __future__ import annotations

import json
from pathlib import Path

from frostline import paths
from frostline.core import digest
from frostline.core.escaping import code
from frostline.params.schema import Params
from frostline.tracking import lineage, registry, run_log, states, tracker


def run(params: Params) -> str:
    """Register; a line on what is the challenger now, and one where the state can't be brought back.

    Raises StateError where files and dvc.lock differ, or the registry is not available.
    """
    with registry.registry(params.tracking, params.registry.name) as known:
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
        version = known.register(digest.of_folder(paths.BUNDLE), tags, description)
    lines = [
        f"register: {version.uri} is the challenger (test accuracy {metrics['accuracy']:.4f}); "
        f"`frostline promote` compares it with the champion"
    ]
    if tags.get(lineage.DIRTY) != "false":
        lines.append("register: this state is not committed, so nobody can bring it back; commit it and register again")
    return "\n".join(lines)
