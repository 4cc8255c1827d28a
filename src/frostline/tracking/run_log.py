"""What is recorded in a run of MLflow: the training, its evaluation, and the state of the project they belong to.

The stages record it while they work. For a stage that was restored from DVC's run cache, or that ran without tracking,
`sync` records the same from the files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from frostline import paths
from frostline.core.escaping import code
from frostline.evaluation import card_making
from frostline.evaluation.scores import Scores
from frostline.models import account
from frostline.models.made_from import LayerGroup, MadeFrom
from frostline.params.schema import Params
from frostline.tracking import compared, lineage
from frostline.tracking.runs import Run

TEST_DIGEST = "frostline.test_digest"
NOTE = "mlflow.note.content"  # what MLflow's UI shows as the run's description

SETTINGS = "settings.json"  # a run's artifact with all settings, and the md5 of what its training reads

# Numbers that are the same for every classifier with the same test split, so that runs can't be compared by them.
OF_TEST_SPLIT = {"test_n_test", "test_commonest_class"}

# The folders in a run's artifacts for its evaluations and its states; they are named by the first digits of a digest.
EVALUATION, STATE = "evaluations/{}", "states/{}"


def short(digest: str) -> str:
    """The digits of a digest that name a folder."""
    return digest[:16]


def name(params: Params) -> str:
    """The name of a training's run; inside `dvc exp run` with the experiment's name."""
    head, finetune = params.head, params.finetune
    trained = _trained(finetune.freeze, finetune.train, finetune.learning_rate, len(finetune.soup or ()))
    training = _name(params.backbone.name, head.classifier, trained)
    return " ".join(filter(None, [data_name(params.data.source), training, lineage.running_experiment()]))


def name_of(made_from: MadeFrom, source: str, experiment: str | None) -> str:
    """What the run of a bundle's training is called. source: data.source; experiment: the DVC experiment's name."""
    finetune = made_from.finetune
    trained = _trained(finetune["freeze"], finetune.get("train"), finetune["learning_rate"], made_from.ingredients)
    training = _name(made_from.backbone.name, made_from.classifier, trained)
    return " ".join(filter(None, [data_name(source), training, experiment]))


def _name(backbone: str, classifier: str, trained: str) -> str:
    return f"{backbone} {trained if classifier == 'dense' else classifier}"


def _trained(freeze: Any, train: Any, rate: float, ingredients: int) -> str:
    """What is trained, and how fast, in a few letters by the keys of params.yaml. ingredients: of a soup, or 0."""
    if ingredients:
        return f"soup of {ingredients}"
    band = train if isinstance(train, str) else "..".join(map(str, train or ()))
    return f"{f'train={band}' if freeze is None else f'freeze={freeze}'} lr={rate:g}"


def data_name(source: str) -> str:
    """The name of a source of images: that of its folder or file, without what stands after a dot."""
    return Path(source).name.partition(".")[0]


def started(log: Run, settings: Mapping[str, Any], inputs: Mapping[str, str], tags: Mapping[str, str]) -> None:
    """What is known of a training before it begins.

    settings: all that belong to it, under dotted names; inputs: md5 of the outputs of earlier stages that it reads;
    tags: where it comes from.
    """
    log.params(compared.params(settings))
    log.document(SETTINGS, {"settings": dict(settings), "dvc.lock": dict(inputs)})
    log.tags(tags)


def without_training(log: Run, made_from: MadeFrom, inputs: Mapping[str, str], tags: Mapping[str, str]) -> None:
    """What a bundle says of a training that has no run. inputs, tags: as for `started`."""
    recorded = made_from.recorded()
    # A bundle has the precision that was used, where params.yaml may say `auto`, which a later `sync` records.
    settings = {key: value for key, value in flat(recorded).items() if key != "finetune.precision"}
    log.params({key: value for key, value in settings.items() if key in compared.COMPARED})
    log.document(SETTINGS, {"bundle": recorded, "dvc.lock": dict(inputs)})
    log.tags(tags)


def trained(log: Run, made_from: MadeFrom, bundle: Path, files: list[Path]) -> None:
    """What came of a training. files: kept beside the model."""
    audit, finetune, loaded = made_from.audit, made_from.finetune, made_from.backbone.loaded
    log.params({f"audit.{key}": getattr(audit, key) for key in ("frozen_layers", "trainable_parameters")})
    if loaded:
        log.params({"weights.loaded": f"{loaded.layers} of {loaded.of} layers"})
    log.files([*files, bundle / account.ACCOUNT])  # the account has the whole audit, the layer groups, the temperature
    rule, how = f" ({code('freeze: ' + str(finetune['freeze']))})", f"at {finetune['learning_rate']:g}"
    if made_from.ingredients:
        rule, how = "", f"in {made_from.ingredients} trainings whose weights are averaged (a soup),"
    how = f"{how} by {finetune['optimizer']}" if made_from.is_dense else f"as {made_from.classifier}"
    log.tags(
        {
            NOTE: f"**{made_from.backbone.name}**, {audit.frozen_layers} of {audit.layers} layers frozen{rule}, "
            f"{audit.trainable_parameters:,} parameters trained {how}.{_groups(made_from.groups)}"
        }
    )
    log.model(bundle)  # last: a run that has a model has everything else of its training


def _groups(groups: Sequence[LayerGroup]) -> str:
    """The layer groups as a table in Markdown: what was trained of them, from which epoch on, and how fast."""
    head = ["", "", "| layer group | parameters | trained from | learning rate |", "| --- | --- | --- | --- |"]
    return "\n".join([*head, *card_making.group_rows(groups)]) if groups else ""


def evaluated(log: Run, source: str, classes: int, scores: Scores, folder: Path) -> None:
    """Record an evaluation. source: data.source; classes: how many; folder: the one that `reports/` is in.

    The bounds of the intervals, and what is a number of the test split alone, are in metrics.json.
    """
    log.dataset(source, scores.test_digest, "test", counts(scores.n_test, classes))
    log.metrics({key: value for key, value in test_numbers(scores).items() if key not in OF_TEST_SPLIT})
    reports = [paths.PLOTS, paths.METRICS, paths.CONFUSION, paths.PER_CLASS, paths.MODEL_CARD]
    log.files([folder / path for path in reports])
    log.files([folder / paths.PREDICTIONS, folder / paths.METRICS], EVALUATION.format(short(scores.test_digest)))
    log.tags({TEST_DIGEST: scores.test_digest})


def counts(images: int, classes: int) -> dict[str, int]:
    """What MLflow shows of the content of a data set."""
    return {"images": images, "classes": classes}


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
