"""Stage `evaluate`: the classifier on the test split, which nothing has looked at before."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from frostline import (
    atomic,
    catalog,
    digest,
    engine,
    evaluation,
    lineage,
    model_card,
    plots,
    run_log,
    shards,
    store,
    summary,
    tracking,
)
from frostline.errors import DataError
from frostline.params import Params


def run(params: Params) -> str:
    """Evaluate; a few lines that say how good it is and where to look."""
    with engine.quiet():
        from frostline import classifier, predictor

    features = store.opened(params.cache)
    test = shards.open_folder(catalog.PREPARED / "test", features.memory)
    bundle = classifier.load(catalog.BUNDLE)
    if bundle.layout != test.layout:
        raise DataError(f"{catalog.BUNDLE}: was trained on other classes or sizes than {test.folder}; run `dvc repro`")
    settings = params.evaluate
    probabilities = predictor.probabilities(bundle, test, features, params.cache.mode)
    predicted = probabilities.argmax(axis=1)
    classes = test.layout.classes
    metrics = evaluation.metrics(test.labels, probabilities, settings.top_k, settings.bootstrap, params.seed)
    metrics["test_digest"] = test.source_digest()
    table = evaluation.per_class(test.labels, predicted, classes)
    data = json.loads(catalog.DATA_REPORT.read_text(encoding="utf-8"))
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
    confusion = evaluation.confusion_matrix(test.labels, predicted, len(classes))
    figures = {
        "learning_curves": plots.learning_curves(pd.read_csv(catalog.HISTORY)),
        "confusion": plots.confusion(confusion, classes),
        "reliability": plots.reliability(evaluation.reliability(test.labels, probabilities), metrics["ece"]),
    }
    with atomic.folder(catalog.PLOTS) as folder:
        for name, figure in figures.items():
            figure.savefig(folder / f"{name}.png")
    with atomic.file(catalog.PREDICTIONS) as path:
        predictions.to_parquet(path, index=False)
    with atomic.file(catalog.CONFUSION) as path:
        predictions[["label", "predicted"]].rename(columns={"label": "actual"}).to_csv(path, index=False)
    with atomic.file(catalog.PER_CLASS) as path:
        table.to_csv(path, index=False, float_format="%.6g")
    with atomic.file(catalog.MODEL_CARD) as path:
        path.write_text(model_card.write(bundle.made_from, data, metrics, table), encoding="utf-8")
    atomic.write_json(catalog.METRICS, metrics)

    produced = digest.of_folder(catalog.BUNDLE)
    with tracking.tracker(params.tracking).result(produced, bundle.made_from["backbone"]["name"]) as log:
        if log.is_new:  # trained where no tracking was, or its run is gone: what the bundle knows of itself
            log.params(tracking.flat(bundle.made_from))
            log.tags(lineage.tags(catalog.DVC_LOCK, [catalog.PREPARED, catalog.AUGMENTED], [catalog.REPORTS]))
        run_log.evaluated(log, params.data.source, metrics, Path())
    return summary.text(metrics, catalog.MODEL_CARD, params.finetune.freeze)
