"""Training of a scikit-learn classifier as the head, on the frozen features of all variants."""

from __future__ import annotations

import keras
import numpy as np
from numpy.typing import NDArray

from frostline.core.history import HistoryRow
from frostline.data.shards import Rows
from frostline.features.store import Store
from frostline.models import assembly, backend, freezing, heads, sklearn_fit, sklearn_layers
from frostline.params.schema import Params
from frostline.training import course, examples
from frostline.training.examples import Outcome, TrainingData
from frostline.training.loop import Position, Snapshot, Watch
from frostline.training.networks import Network


def train(
    params: Params, data: TrainingData, network: Network, store: Store, watch: Watch, resume: Snapshot | None
) -> Outcome:
    """Fit the classifier of `head.classifier`. resume: not used, because the fit is one step."""
    body, classes = network.backbone.model, len(data.validation.layout.classes)
    stage = course.one_pass(params, body, len(data.variants))
    band = stage.phase.band
    freezing.freeze(body, band, train_batch_norm=False)
    before = freezing.fingerprint(body)
    plan = examples.make_plan(params, network, [stage], data, store)
    watch.on_plan(examples.describe(plan, [stage]))
    train_examples, validation_examples = examples.of_stage(params, data, plan, stage)
    features = [_vectors(rows) for rows in train_examples.variants]
    classifier = sklearn_fit.fit(
        params.head.classifier,
        params.head.classifier_args,
        np.concatenate(features),
        np.tile(train_examples.labels, len(features)),
        params.finetune.class_weight == "balanced",
        params.seed,
    )
    top = sklearn_layers.convert(classifier, features[0].shape[1], classes)
    whole = assembly.whole(network.backbone, heads.Head(network.head.pool, top, classes))
    audit = freezing.audit(body, whole, band, before)
    loss, accuracy = _evaluate(top, features[0], train_examples.labels)
    val_loss, val_accuracy = _evaluate(top, _vectors(validation_examples.variants[0]), validation_examples.labels)
    row = HistoryRow(
        step=1,
        phase="head",
        epoch=1,
        learning_rate=0.0,
        loss=loss,
        accuracy=accuracy,
        val_loss=val_loss,
        val_accuracy=val_accuracy,
        frozen_layers=band.frozen,
    )
    watch.on_epoch(row, lambda: Snapshot("head", Position(1, [row], best_value=val_loss)))
    return Outcome(whole, [row], row, audit, course.groups([], body, top))


def _vectors(rows: Rows) -> NDArray[np.float32]:
    """All rows, float32 (n, width)."""
    return rows.take(np.arange(len(rows))).astype(np.float32, copy=False)


def _evaluate(top: keras.Model, features: NDArray[np.float32], labels: NDArray[np.int64]) -> tuple[float, float]:
    """Cross-entropy and accuracy of a head on features."""
    rows = backend.batch_rows()
    starts = range(0, len(features), rows)
    chunks = [features[start : start + rows] for start in starts]
    logits = np.concatenate([backend.predict(top, chunk, rows) for chunk in chunks]).astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    likelihood = logits[np.arange(len(labels)), labels] - np.log(np.exp(logits).sum(axis=1))
    return float(-likelihood.mean()), float((logits.argmax(axis=1) == labels).mean())
