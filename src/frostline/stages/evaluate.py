"""Stage `evaluate`: the classifier on the test split, which nothing has looked at before."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from frostline import paths
from frostline.core import atomic, digest
from frostline.core.escaping import cells
from frostline.data import shards
from frostline.errors import DataError, UnreachableError
from frostline.evaluation import metrics as evaluation
from frostline.evaluation import model_card, plots, ranking, summary
from frostline.evaluation.metrics import Probabilities
from frostline.features import store
from frostline.models import backend, calibration
from frostline.models.made_from import MadeFrom
from frostline.params.schema import Params
from frostline.tracking import contact, lineage, run_log, tracker

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from frostline.models.bundles import Bundle

GALLERY = 24  # pictures
GALLERY_SIDE = 256  # pixels, at most about twice as many


def run(params: Params) -> str:
    """Evaluate; a few lines that say how good it is and where to look."""
    with backend.quiet():
        from frostline.features import predictor
        from frostline.models import bundles

    features = store.opened(params.cache)
    test = shards.open_folder(paths.PREPARED / "test", features.memory)
    bundle = bundles.load(paths.BUNDLE)
    if bundle.layout != test.layout:
        raise DataError(f"{paths.BUNDLE}: was trained on other classes or sizes than {test.folder}; run `dvc repro`")
    probabilities = predictor.probabilities(bundle, test, features, params.cache.mode)
    predicted = probabilities.argmax(axis=1)
    classes = test.layout.classes
    ranked = ranking.summary(test.labels, probabilities)
    metrics = _metrics(params, test, probabilities, ranked, bundle.temperature)
    confusion = evaluation.confusion_matrix(test.labels, predicted, len(classes))
    per_class = evaluation.per_class(test.labels, predicted, classes).join(ranked.areas.set_index("number"))
    data = json.loads(paths.DATA_REPORT.read_text(encoding="utf-8"))
    produced = digest.of_folder(paths.BUNDLE)
    card = model_card.write(bundle.made_from, produced, data, metrics, per_class, evaluation.confusions(confusion))
    names = np.asarray(classes, object)
    predictions = pd.DataFrame(
        {
            "path": test.index["path"],
            "sha256": test.index["sha256"],
            "label": names[test.labels],
            "predicted": names[predicted],
            "probability": probabilities.max(axis=1),
            "probabilities": list(probabilities),
        }
    )
    predictions.attrs["classes"] = list(classes)
    reliability = evaluation.reliability(test.labels, probabilities)
    ranked_names = names[ranked.areas["number"]].tolist()
    figures = {
        "learning_curves": plots.learning_curves(pd.read_csv(paths.HISTORY)),
        "confusion": plots.confusion(confusion, classes),
        "reliability": plots.reliability(reliability, metrics["ece"]),
        "roc": plots.roc(ranked.roc, ranking.GRID, ranked_names, metrics.get("roc_auc")),
        "precision_recall": plots.precision_recall(
            ranked.precision_recall, ranking.GRID, ranked_names, metrics.get("average_precision")
        ),
        "mistakes": _gallery(bundle, test, probabilities),
    }
    tables = {
        "reliability": reliability,
        "roc": ranking.table(ranked.roc, "false_positive_rate", ranked_names),
        "precision_recall": ranking.table(ranked.precision_recall, "recall", ranked_names),
    }
    with atomic.folder(paths.PLOTS) as folder:
        for name, figure in figures.items():
            figure.savefig(folder / f"{name}.png")
        for name, table in tables.items():
            cells(table).to_csv(folder / f"{name}.csv", index=False, float_format="%.6g")
    with atomic.file(paths.PREDICTIONS) as path:
        predictions.to_parquet(path, index=False, write_page_checksum=True)
    with atomic.file(paths.CONFUSION) as path:
        cells(predictions[["label", "predicted"]].rename(columns={"label": "actual"})).to_csv(path, index=False)
    with atomic.file(paths.PER_CLASS) as path:
        cells(per_class).to_csv(path, index=False, float_format="%.6g")
    with atomic.file(paths.MODEL_CARD) as path:
        path.write_text(card, encoding="utf-8")
    atomic.write_json(paths.METRICS, metrics)

    record(params, bundle.made_from, produced, metrics)
    return summary.text(metrics, paths.MODEL_CARD, params.finetune.freeze)


def record(params: Params, made_from: MadeFrom, produced: str, metrics: Mapping[str, Any]) -> None:
    """Tell the run that produced the bundle. The results are in the project by now: a server that is away loses none.

    produced: the bundle's digest.
    """
    try:
        with tracker.tracker(params.tracking).result(produced, run_log.name_of(made_from)) as log:
            if log.state.is_new:  # trained where no tracking was, or its run is gone: what the bundle knows of itself
                log.params(tracker.flat(made_from.recorded()))
                log.tags(lineage.tags(paths.DVC_LOCK, [paths.PREPARED, paths.AUGMENTED], [paths.REPORTS]))
            run_log.evaluated(log, params.data.source, metrics, Path())
    except UnreachableError as error:
        print(
            f"warning: {str(error).removesuffix(contact.FIX)}; the evaluation is in {paths.REPORTS}, and "
            "`frostline sync` records it when the server is back",
            file=sys.stderr,
        )


def _metrics(
    params: Params,
    test: shards.Shards,
    probabilities: Probabilities,
    ranked: ranking.Summary,
    temperature: float,
) -> dict[str, Any]:
    """All of metrics.json; where the bundle is calibrated, with what the temperature changed."""
    settings = params.evaluate
    metrics = evaluation.metrics(test.labels, probabilities, settings.top_k, settings.bootstrap, params.seed)
    metrics |= ranked.metrics
    if temperature != 1:
        before = calibration.uncalibrated(probabilities, temperature)
        metrics |= {
            "temperature": temperature,
            "ece_uncalibrated": evaluation.expected_calibration_error(test.labels, before),
            "log_loss_uncalibrated": float(evaluation.losses(test.labels, before).mean()),
        }
    return {**metrics, "test_digest": test.source_digest()}


def _gallery(bundle: Bundle, test: shards.Shards, probabilities: Probabilities) -> Figure:
    """The worst mistakes, or the least sure right answers, each beside what speaks for the predicted class."""
    from frostline.evaluation import gradcam

    rows = evaluation.hardest(test.labels, probabilities, GALLERY)
    predicted = probabilities.argmax(axis=1)
    wrong = int((predicted != test.labels).sum())
    pictures = test.take(rows)
    explainer = gradcam.GradCam(bundle)
    heat = explainer(pictures, predicted[rows])
    step = max(1, test.layout.image_size // GALLERY_SIDE)
    shown = pictures[:, ::step, ::step]
    names = test.layout.classes
    captions = [plots.caption(names[test.labels[row]], names[predicted[row]], probabilities[row].max()) for row in rows]
    many = f"{len(test):,} test pictures"
    which = f"Worst mistakes, {len(rows)} of {wrong:,} on {many}" if wrong else f"No mistake on {many}; the least sure"
    how = f"Coloured: what speaks for the predicted class ({explainer.method})"
    title = f"{which}. {how if explainer.method else 'Not coloured: this head has no gradient'}"
    return plots.mistakes(shown, gradcam.overlay(shown, heat[:, ::step, ::step]), captions, title)
