"""`frostline sync`: a run for every state of dvc.lock that has none; a second `sync` changes nothing.

A stage logs nothing if DVC restores it from its run cache, or if tracking was switched off when it ran.
"""

from __future__ import annotations

from pathlib import Path

from frostline import paths
from frostline.errors import StateError
from frostline.params.schema import Params
from frostline.tracking import lineage, states, tracker


def moved(params: Params) -> str:
    """Correct the places of files in the project's database, after its folder was moved. Returns a line.

    Raises StateError if tracking has no database in this project.
    """
    run_tracker = tracker.tracker(params.tracking)
    corrected = run_tracker.correct_places()
    if corrected is None:
        raise StateError("params.yaml: tracking.uri is no database in this project, so no places have to be corrected")
    if not corrected.before:
        return "sync: the project was not moved; nothing to correct"
    stay = f"; {corrected.kept} stay there, because their files do" if corrected.kept else ""
    return (
        f"sync: {corrected.changed} places of files were corrected from {corrected.before[0].parent} to "
        f"{run_tracker.artifacts.parent}{stay}"
    )


def run(params: Params, revisions: list[str]) -> str:
    """Create the runs of git revisions or DVC experiments; without any, the run of the files in this folder.

    Returns one line for each state. Raises StateError if tracking is off, or the files of a revision are not in DVC's
    cache.
    """
    run_tracker = tracker.tracker(params.tracking)
    if run_tracker.uri == "none":
        raise StateError("params.yaml: tracking.uri is none, so no run can be created; set it to auto or a URI")
    if not revisions:
        lineage.require_up_to_date()
        return str(states.record(run_tracker, Path(), lineage.state_tags(Path(), paths.DVC_LOCK)))
    lines = []
    for revision in revisions:
        with states.checked_out(revision) as (folder, commit, is_experiment):
            tags = {
                **lineage.state_tags(folder, paths.DVC_LOCK),
                lineage.COMMIT: commit,
                lineage.DIRTY: "false",
                **({lineage.EXPERIMENT: revision} if is_experiment else {}),
            }
            lines.append(f"{revision}: {states.record(run_tracker, folder, tags)}")
    return "\n".join(lines)
