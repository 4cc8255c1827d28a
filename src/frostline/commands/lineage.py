"""`frostline lineage`: what a registered version was made from, and the commands that bring that state back."""

from __future__ import annotations

import json
from typing import Any

from frostline import paths
from frostline.params.schema import Params
from frostline.tracking import lineage, registry, run_log


def run(params: Params, uri: str, as_json: bool) -> str:
    """The lineage of `models:/NAME@ALIAS` or `models:/NAME/3`, for a person or as JSON.

    Raises StateError where there is no such version, or it has none.
    """
    with registry.located(params.tracking, uri) as (known, version), known.state(version) as state:
        stages = {name: vars(stage) for name, stage in lineage.stages(state / paths.DVC_LOCK).items()}
    tags = version.tags
    found: dict[str, Any] = {
        "model": version.uri,
        "run": version.run,
        "git_commit": tags.get(lineage.COMMIT),
        "git_dirty": tags.get(lineage.DIRTY) == "true",
        "dvc_experiment": tags.get(lineage.EXPERIMENT),
        "test_digest": version.test_digest,
        "metrics": {key: float(value) for key, value in tags.items() if key.startswith("test_")},
        "stages": stages,
        "commands": lineage.way_back(tags[lineage.COMMIT]) if lineage.COMMIT in tags else [],
    }
    return json.dumps(found, indent=2) if as_json else _text(found)


def _text(found: dict[str, Any]) -> str:
    commit, dirty = found["git_commit"], found["git_dirty"]
    lines = [
        f"{found['model']}",
        f"run             {found['run']}",
        f"git commit      {commit or 'unknown'} ({'not all of it was committed' if dirty else 'clean'})",
        f"dvc experiment  {found['dvc_experiment'] or 'none'}",
        f"test images     {found['test_digest']}",
        *(f"{key:<15} {value:.4f}" for key, value in found["metrics"].items() if key in {"test_accuracy"}),
    ]
    for name, stage in found["stages"].items():
        lines += ["", f"stage {name}"]
        flat = run_log.flat(stage["params"])
        lines += [f"  {kind}   {md5:<36}  {path}" for kind in ("deps", "outs") for path, md5 in stage[kind].items()]
        lines += [f"  param  {key} = {json.dumps(value)}" for key, value in flat.items()]
    lines += ["", "To bring it back, in a clone of the repository:", *(f"  {line}" for line in found["commands"])]
    if dirty:
        lines.append("But not all of it was committed when it was registered: what comes back may differ.")
    return "\n".join(lines)
