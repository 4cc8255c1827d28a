"""`frostline register`: the classifier of dvc.lock becomes a registered version, the challenger."""

from __future__ import annotations

from pathlib import Path

from frostline import paths
from frostline.core import digest
from frostline.core.escaping import code
from frostline.evaluation import scores
from frostline.params.schema import Params
from frostline.tracking import lineage, registry, run_log, states, tracker


def run(params: Params) -> str:
    """Register the classifier. Returns a line that names it, and further ones about its state.

    Raises StateError if files and dvc.lock differ, or if the registry is not available.
    """
    with registry.registry(params.tracking, params.registry.name) as models:
        lineage.require_up_to_date()
        state = states.record(tracker.tracker(params.tracking), Path(), lineage.state_tags(Path(), paths.DVC_LOCK))
        tags = dict(state.tags)
        test_scores = scores.read(paths.METRICS)
        accuracy = test_scores.accuracy
        low, high = accuracy.interval or (0.0, 1.0)
        description = (
            f"Test accuracy {accuracy.value:.4f} (95% interval {low:.4f} to {high:.4f}) on {test_scores.n_test} "
            f"images of {code(params.data.source)}."
        )
        tags[run_log.TEST_DIGEST] = test_scores.test_digest
        tags |= {key: f"{value:.6g}" for key, value in run_log.test_numbers(test_scores).items()}
        version = models.register(digest.of_folder(paths.BUNDLE), tags, description)
    lines = [
        f"register: {version.uri} is the challenger (test accuracy {accuracy.value:.4f}); "
        f"`frostline promote` compares it with the champion"
    ]
    if experiment := tags.get(lineage.EXPERIMENT):
        lines.append(f"register: it belongs to DVC experiment {experiment}")
    if tags.get(lineage.DIRTY) != "false":
        lines.append("register: this state is not committed, so it cannot be restored; commit it and register again")
    return "\n".join(lines)
