"""The results of an evaluation as numbers, tables, figures and a model card; `write` writes the files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from frostline import paths
from frostline.core import atomic
from frostline.core.escaping import cells
from frostline.data import shards
from frostline.data.data_report import DataReport
from frostline.evaluation import gallery, metrics, model_card, own_metrics, plots, promises, ranking
from frostline.evaluation.scores import Scores
from frostline.models import calibration
from frostline.models.answer_facts import Answers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from frostline.models.bundles import Bundle


@dataclass(frozen=True)
class Report:
    """scores: the content of metrics.json; predictions: one row for each image; per_class: one row for each class;
    figures, tables: the files of plots/, by name; card: the model card as Markdown."""

    scores: Scores
    predictions: pd.DataFrame
    per_class: pd.DataFrame
    figures: Mapping[str, Figure]
    tables: Mapping[str, pd.DataFrame]
    card: str


def build(
    bundle: Bundle,
    digest: str,
    test: shards.Shards,
    answers: Answers,
    data: DataReport,
    history: pd.DataFrame,
    top_k: int,
    resamples: int,
    seed: int,
    own: Sequence[str] = (),
) -> Report:
    """Compare a bundle's answers for the test images with the labels.

    digest: of the bundle; answers: in the order of `test`; data: the report of `prepare`;
    history: of the training; top_k, resamples, seed: see `metrics.compute`; own: metrics of one's own.
    """
    classes, labels, probabilities = test.layout.classes, test.labels, answers.probabilities
    predicted = probabilities.argmax(axis=1)
    facts = bundle.answer.facts if bundle.answer else None
    area = promises.aurc(labels, probabilities)
    rank_summary = ranking.summary(labels, probabilities)
    scores = replace(
        metrics.compute(labels, probabilities, top_k, resamples, seed),
        roc_auc=rank_summary.roc_auc,
        average_precision=rank_summary.average_precision,
        aurc=area,
        **vars(promises.measure(labels, answers, facts)),
        test_digest=test.source_digest()[:16],  # `dvc metrics diff` shows it as a column
        own=own_metrics.compute(own, labels, probabilities),
    )
    if bundle.temperature != 1:
        scores = _with_uncalibrated(scores, labels, probabilities, bundle.temperature)
    confusion = metrics.confusion_matrix(labels, predicted, len(classes))
    per_class = metrics.per_class(labels, predicted, classes).join(rank_summary.areas.set_index("number"))
    per_class = per_class.join(promises.by_class(labels, answers, len(classes)))
    risks = promises.risk_coverage(labels, probabilities)
    reliability = metrics.reliability(labels, probabilities)
    names = np.asarray(classes, object)[rank_summary.areas["number"]].tolist()
    figures = {
        "learning_curves": plots.learning_curves(history),
        "confusion": plots.confusion(confusion, classes),
        "reliability": plots.reliability(reliability, scores.ece),
        "risk_coverage": plots.risk_coverage(risks, area),
        **_ranking_figures(rank_summary, names, is_binary=len(classes) == 2),
        "mistakes": gallery.figure(bundle, test, probabilities),
    }
    tables = {
        "reliability": reliability,
        "risk_coverage": risks,
        "roc": ranking.table(rank_summary.roc, "false_positive_rate", names),
        "precision_recall": ranking.table(rank_summary.precision_recall, "recall", names),
    }
    pairs = metrics.confusions(confusion)
    card = model_card.write(bundle.made_from, facts, digest, data, scores, per_class, pairs)
    return Report(scores, _predictions(test, answers), per_class, figures, tables, card)


def write(report: Report) -> None:
    """Write all files of a report, metrics.json last. Each file appears complete or not at all."""
    with atomic.folder(paths.PLOTS) as folder:
        for name, figure in report.figures.items():
            plots.save(figure, folder / f"{name}.png")
        for name, table in report.tables.items():
            cells(table).to_csv(folder / f"{name}.csv", index=False, float_format="%.6g")
    with atomic.file(paths.PREDICTIONS) as path:
        report.predictions.to_parquet(path, index=False, write_page_checksum=True)
    with atomic.file(paths.CONFUSION) as path:
        pairs = report.predictions[["label", "predicted"]].rename(columns={"label": "actual"})
        cells(pairs).to_csv(path, index=False)
    with atomic.file(paths.PER_CLASS) as path:
        cells(report.per_class).to_csv(path, index=False, float_format="%.6g")
    with atomic.file(paths.MODEL_CARD) as path:
        path.write_text(report.card, encoding="utf-8")
    atomic.write_json(paths.METRICS, report.scores.as_json())


def _predictions(test: shards.Shards, answers: Answers) -> pd.DataFrame:
    names, probabilities = np.asarray(test.layout.classes, object), answers.probabilities
    predictions = pd.DataFrame(
        {
            "path": test.index["path"],
            "sha256": test.index["sha256"],
            "label": names[test.labels],
            "predicted": names[probabilities.argmax(axis=1)],
            "probability": probabilities.max(axis=1),
            "probabilities": list(probabilities),
        }
    )
    if answers.sets is not None:
        predictions["set"] = [names[row].tolist() for row in answers.sets]
    if answers.unknown is not None:
        predictions["unknown"], predictions["unknown_score"] = answers.unknown, answers.unknown_score
    predictions.attrs["classes"] = list(test.layout.classes)
    return predictions


def _ranking_figures(summary: ranking.Summary, names: list[str], is_binary: bool) -> dict[str, Figure]:
    """The ROC and precision-recall curves. names: of the classes that can be ranked.

    The curves of two classes mirror each other, so only that of the positive class is drawn: the second by label order.
    """
    drawn = slice(1 if is_binary else 0, None)
    names, areas = names[drawn], summary.areas[drawn]
    average_precisions = areas["average_precision"].to_numpy()
    return {
        "roc": plots.roc(summary.roc[drawn], ranking.GRID, names, areas["roc_auc"].to_numpy()),
        "precision_recall": plots.precision_recall(
            summary.precision_recall[drawn], ranking.GRID, names, average_precisions
        ),
    }


def _with_uncalibrated(
    scores: Scores, labels: metrics.Labels, probabilities: metrics.Probabilities, temperature: float
) -> Scores:
    """The scores with the temperature, and with two metrics as they would be without it."""
    before = calibration.uncalibrated(probabilities, temperature)
    return replace(
        scores,
        temperature=temperature,
        ece_uncalibrated=metrics.expected_calibration_error(labels, before),
        log_loss_uncalibrated=float(metrics.losses(labels, before).mean()),
    )
