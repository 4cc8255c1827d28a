"""`frostline sync`: a run for every state of dvc.lock that has none; doing it again changes nothing.

A stage that DVC restores from its run cache logs nothing, nor does one that ran where tracking was switched off.
"""

from __future__ import annotations

from pathlib import Path

from frostline import paths
from frostline.errors import StateError
from frostline.params.schema import Params
from frostline.tracking import lineage, states, tracker


def run(params: Params, revisions: list[str]) -> str:
    """Give the states of those git revisions or DVC experiments their runs, without any the files as they lie here.

    One line a state. Raises StateError where tracking is off, or a revision's files are not in DVC's cache.
    """
    place = tracker.tracker(params.tracking)
    if place.uri == "none":
        raise StateError("params.yaml: tracking.uri is none, so no run can be made; set it to auto or a URI")
    if not revisions:
        lineage.require_up_to_date()
        return states.record(place, Path(), lineage.state_tags(Path(), paths.DVC_LOCK))
    lines = []
    for revision in revisions:
        with states.checked_out(revision) as (folder, commit, is_experiment):
            tags = {
                **lineage.state_tags(folder, paths.DVC_LOCK),
                lineage.COMMIT: commit,
                lineage.DIRTY: "false",
                **({lineage.EXPERIMENT: revision} if is_experiment else {}),
            }
            lines.append(f"{revision}: {states.record(place, folder, tags)}")
    return "\n".join(lines)
