"""What is recorded in a run of MLflow: the training, its evaluation, and the state of the project they belong to.

The stages record it while they work. For a stage that was restored from DVC's run cache, or that ran without tracking,
`sync` records the same from the files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from frostline import paths
from frostline.core.escaping import code
from frostline.evaluation import card_making
from frostline.evaluation.scores import CI95, Scores
from frostline.models import account
from frostline.models.made_from import LayerGroup, MadeFrom
from frostline.params.schema import Params
from frostline.tracking.runs import Run

TEST_DIGEST = "frostline.test_digest"
NOTE = "mlflow.note.content"  # what MLflow's UI shows as the run's description

# The folders in a run's artifacts for its evaluations and its states; they are named by the first digits of a digest.
EVALUATION, STATE = "evaluations/{}", "states/{}"


def short(digest: str) -> str:
    """The digits of a digest that name a folder."""
    return digest[:16]


def name(params: Params) -> str:
    """The name of a training's run."""
    head, finetune = params.head, params.finetune
    return _name(params.backbone.name, head.classifier, finetune.freeze, finetune.learning_rate)


def name_of(made_from: MadeFrom) -> str:
    """What the run of a bundle's training is called."""
    finetune = made_from.finetune
    return _name(made_from.backbone.name, made_from.classifier, finetune["freeze"], finetune["learning_rate"])


def _name(backbone: str, classifier: str, freeze: Any, rate: float) -> str:
    return f"{backbone} freeze={freeze} lr={rate:g}" if classifier == "dense" else f"{backbone} {classifier}"


def started(log: Run, settings: Mapping[str, Any], tags: Mapping[str, str]) -> None:
    """What is known of a training before it begins. settings: all that belong to it; tags: where it comes from."""
    log.params(flat(settings))
    log.tags(tags)


def trained(log: Run, made_from: MadeFrom, bundle: Path, files: list[Path]) -> None:
    """What came of a training. files: kept beside the model."""
    audit, finetune, loaded = made_from.audit, made_from.finetune, made_from.backbone.loaded
    log.params({f"audit.{key}": value for key, value in asdict(audit).items()})
    for number, group in enumerate(made_from.groups):
        log.params({f"group.{number}.{key}": value for key, value in asdict(group).items()})
    if loaded:
        log.params({"weights.loaded": f"{loaded.layers} of {loaded.of} layers"})
    if made_from.is_calibrated:
        log.params({"temperature": made_from.temperature})
    log.files([*files, bundle / account.ACCOUNT])
    how = f"at {finetune['learning_rate']:g} by {finetune['optimizer']}"
    log.tags(
        {
            NOTE: f"**{made_from.backbone.name}**, {audit.frozen_layers} of {audit.layers} layers frozen "
            f"({code('freeze: ' + str(finetune['freeze']))}), {audit.trainable_parameters:,} parameters trained "
            f"{how if made_from.is_dense else f'as {made_from.classifier}'}.{_groups(made_from.groups)}"
        }
    )
    log.model(bundle)  # last: a run that has a model has everything else of its training


def _groups(groups: Sequence[LayerGroup]) -> str:
    """The layer groups as a table in Markdown: what was trained of them, from which epoch on, and how fast."""
    head = ["", "", "| layer group | parameters | trained from | learning rate |", "| --- | --- | --- | --- |"]
    return "\n".join([*head, *card_making.group_rows(groups)]) if groups else ""


def evaluated(log: Run, source: str, scores: Scores, folder: Path) -> None:
    """Record an evaluation. source: data.source; folder: the one that `reports/` is in."""
    log.dataset(source, scores.test_digest, "test")
    bounds = {
        f"test_{key}_{bound}": number
        for key, value in scores.as_json().items()
        if key.endswith(CI95)
        for bound, number in zip(("low", "high"), value, strict=True)
    }
    log.metrics(test_numbers(scores) | bounds)
    reports = [paths.PLOTS, paths.METRICS, paths.CONFUSION, paths.PER_CLASS, paths.MODEL_CARD]
    log.files([folder / path for path in reports])
    log.files([folder / paths.PREDICTIONS, folder / paths.METRICS], EVALUATION.format(short(scores.test_digest)))
    log.tags({TEST_DIGEST: scores.test_digest})


def test_numbers(scores: Scores) -> dict[str, float]:
    """The metrics without their intervals, by the names that they have in MLflow."""
    return {f"test_{key}": value for key, value in scores.as_json().items() if isinstance(value, int | float)}


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted names."""
    out: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            out |= flat(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = value
    return out
