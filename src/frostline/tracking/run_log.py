"""What a run in MLflow is told of a training, of its evaluation and of the state of the project that they belong to.

The stages write it while they work. Where one was restored from DVC's run cache, or ran without tracking, `sync` writes
the same from the files.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from frostline import paths
from frostline.core.escaping import code
from frostline.tracking.runs import Run

TEST_DIGEST = "frostline.test_digest"
NOTE = "mlflow.note.content"  # what MLflow's UI shows as the run's description

# Where a run keeps what it was tested on and the state it belongs to; the first digits of a digest name the folder.
EVALUATION, STATE = "evaluations/{}", "states/{}"


def short(digest: str) -> str:
    """The digits of a digest that name a folder."""
    return digest[:16]


def name(settings: Mapping[str, Any]) -> str:
    """What a training's run is called. settings: what params.yaml says, or a bundle's own account."""
    backbone, finetune, kind = settings["backbone"]["name"], settings["finetune"], _classifier(settings)
    if kind != "dense":
        return f"{backbone} {kind}"
    return f"{backbone} freeze={finetune['freeze']} lr={finetune['learning_rate']:g}"


def _classifier(settings: Mapping[str, Any]) -> str:
    return str(settings["head"].get("classifier", "dense"))


def trained(log: Run, made_from: Mapping[str, Any], bundle: Path, files: list[Path]) -> None:
    """What came of a training. made_from: the bundle's own account; files: kept beside the model."""
    audit, finetune = made_from["audit"], made_from["finetune"]
    log.params({f"audit.{key}": value for key, value in audit.items()})
    for number, group in enumerate(made_from.get("groups", [])):
        log.params({f"group.{number}.{key}": value for key, value in group.items()})
    if loaded := made_from["backbone"].get("loaded"):
        log.params({"weights.loaded": f"{loaded['layers']} of {loaded['of']} layers"})
    if "temperature" in made_from:
        log.params({"temperature": made_from["temperature"]})
    log.files([*files, bundle / "bundle.json"])
    kind = _classifier(made_from)
    how = f"at {finetune['learning_rate']:g} by {finetune['optimizer']}" if kind == "dense" else f"as {kind}"
    log.tags(
        {
            NOTE: f"**{made_from['backbone']['name']}**, {audit['frozen_layers']} of {audit['layers']} layers frozen "
            f"({code('freeze: ' + str(finetune['freeze']))}), {audit['trainable_parameters']:,} parameters trained "
            f"{how}.{_groups(made_from)}"
        }
    )
    log.model(bundle)  # last: a run that has a model has everything else of its training


def _groups(made_from: Mapping[str, Any]) -> str:
    """The layer groups as a table in Markdown: what was trained of them, from which epoch on, and how fast."""
    lines = [
        f"| {code(group['name'])} | {group['parameters']:,} | "
        + (f"epoch {group['thawed']} | {group['learning_rate']:.3g} |" if group["thawed"] else "never | |")
        for group in made_from.get("groups", [])
    ]
    head = ["", "", "| layer group | parameters | trained from | learning rate |", "| --- | --- | --- | --- |"]
    return "\n".join([*head, *lines]) if lines else ""


def evaluated(log: Run, source: str, metrics: Mapping[str, Any], folder: Path) -> None:
    """What an evaluation found. metrics: of metrics.json; source: data.source; folder: where `reports/` lies."""
    log.dataset(source, metrics["test_digest"], "test")
    numbers = {f"test_{key}": value for key, value in metrics.items() if isinstance(value, int | float)}
    for key, value in metrics.items():
        if key.endswith("_ci95"):
            numbers |= {f"test_{key}_low": value[0], f"test_{key}_high": value[1]}
    log.metrics(numbers)
    reports = [paths.PLOTS, paths.METRICS, paths.CONFUSION, paths.PER_CLASS, paths.MODEL_CARD]
    log.files([folder / path for path in reports])
    log.files([folder / paths.PREDICTIONS, folder / paths.METRICS], EVALUATION.format(short(metrics["test_digest"])))
    log.tags({TEST_DIGEST: metrics["test_digest"]})
