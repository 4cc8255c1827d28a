"""`frostline lineage`: what a registered version was made from, and the commands that restore that state."""

from __future__ import annotations

import json
from typing import Any

from frostline import paths
from frostline.params.schema import Params
from frostline.tracking import lineage, registry, run_log


def run(params: Params, uri: str, as_json: bool, is_full: bool) -> str:
    """The lineage of `models:/NAME@ALIAS` or `models:/NAME/3`, as text or as JSON.

    is_full: list the digests of all files that the stages depend on; JSON has them always.

    Raises StateError if the version does not exist or has no lineage.
    """
    with registry.located(params.tracking, uri) as (models, version), models.state(version) as state:
        stages = {name: vars(stage) for name, stage in lineage.stages(state / paths.DVC_LOCK).items()}
        experiment = version.tags.get(lineage.EXPERIMENT) or models.run_tags(version).get(lineage.EXPERIMENT)
    tags = version.tags
    is_dirty = tags.get(lineage.DIRTY) == "true"
    facts: dict[str, Any] = {
        "model": version.uri,
        "run": version.run,
        "git_commit": tags.get(lineage.COMMIT),
        "git_dirty": is_dirty,
        "dvc_experiment": experiment,
        "test_digest": version.test_digest,
        "metrics": {key: float(value) for key, value in tags.items() if key.startswith("test_")},
        "stages": stages,
        "commands": lineage.way_back(tags[lineage.COMMIT], experiment, is_dirty) if lineage.COMMIT in tags else [],
    }
    return json.dumps(facts, indent=2) if as_json else _text(facts, is_full)


def _text(facts: dict[str, Any], is_full: bool) -> str:
    commit, dirty = facts["git_commit"], facts["git_dirty"]
    state = " (with uncommitted changes)" if dirty else " (clean)" if commit else ""
    lines = [
        f"{facts['model']}",
        f"run             {facts['run']}",
        f"git commit      {commit or 'unknown'}{state}",
        f"dvc experiment  {facts['dvc_experiment'] or 'none'}",
        f"test images     {facts['test_digest']}",
        *(f"{key:<15} {value:.4f}" for key, value in facts["metrics"].items() if key in {"test_accuracy"}),
    ]
    for name, stage in facts["stages"].items():
        lines += ["", f"stage {name}"]
        flat = run_log.flat(stage["params"])
        kinds = ("deps", "outs") if is_full else ("outs",)
        lines += [f"  {kind}   {md5:<36}  {path}" for kind in kinds for path, md5 in stage[kind].items()]
        lines += [] if is_full else [f"  deps   {len(stage['deps'])} files and folders; --full lists them"]
        lines += [f"  param  {key} = {json.dumps(value)}" for key, value in flat.items()]
    lines += ["", "To restore it, in a clone of the repository:", *(f"  {line}" for line in facts["commands"])]
    if dirty:
        lines.append("Some of it was not committed when it was registered, so the restored state may differ.")
    return "\n".join(lines)
