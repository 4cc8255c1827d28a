"""Transfer learning in two phases: the head on frozen features, then everything above the freeze line (LP-FT,
Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution", ICLR 2022)."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace

import keras
import numpy as np
from numpy.typing import NDArray

from frostline.core.history import HistoryRow
from frostline.data.shards import Shards
from frostline.features import planning
from frostline.features.prefix import Rows
from frostline.features.store import Store
from frostline.models import assembly, backbones, backend, bundles, freezing, heads, sklearn_fit, sklearn_layers
from frostline.models import weights as files
from frostline.models.made_from import Audit, BackboneOrigin, LayerGroup, MadeFrom, SourceDigests
from frostline.params.schema import Params
from frostline.training import batching, course, loop, phases
from frostline.training.course import TrainingStage
from frostline.training.loop import NOBODY, Position, Snapshot, Watch
from frostline.training.networks import Network, Recent, TrainedHead

NETWORKS = 4  # at most, that are kept

# Settings of the head that its layers do not depend on.
NOT_BUILT = {"dropout", "classifier", "classifier_args"}


@dataclass(frozen=True)
class TrainingData:
    """The images of a training. variants: the training split first, then its stored variants, in the same row order."""

    variants: Sequence[Shards]
    validation: Shards


@dataclass(frozen=True)
class Result:
    """bundle: the trained classifier; history: one row for each epoch; final_row: the row of the weights in the bundle;
    audit: the proof that frozen weights did not change."""

    bundle: bundles.Bundle
    history: list[HistoryRow]
    final_row: HistoryRow
    audit: Audit


class Trainer:
    """Trains once or many times. Networks, compiled steps and trained heads are kept for the next training.

    They are reset before they are used again, so a training ends with the same weights as in a new process. Their
    number is limited: the least recently used ones are removed. locate: gives the place of `backbone.weights` on this
    machine.
    """

    def __init__(self, store: Store, locate: files.Locate = str) -> None:
        self.store, self.locate = store, locate
        self._networks: Recent[Network] = Recent(NETWORKS)

    def run(
        self,
        params: Params,
        data: TrainingData,
        resume: Snapshot | None = None,
        watch: Watch = NOBODY,
    ) -> Result:
        """Train a classifier by the settings.

        resume: the last snapshot of an unfinished run of the same job. The model of the result is valid until the next
        training. Raises UserError for bad settings, InternalError if a frozen weight changed.
        """
        network = self._network(params, data)
        body = network.backbone.model
        if network.backbone.loaded:
            watch.on_weights(network.backbone.loaded)
        if not params.head.is_dense:
            return self._fit_sklearn(params, data, network, watch)
        train_batch_norm = _trains_batch_norm(params, network)
        stages = course.stages(params, body)
        history = list(resume.position.history) if resume else []
        head = next((stage.phase for stage in stages if stage.phase.name == "head"), None)
        key = _head_key(params, data, head)
        first = next((stage for stage in stages if stage.phase.name == "finetune"), None)  # it starts from the head
        remaining = [stage for stage in stages if resume is None or stage.is_left(resume)]
        if head is not None and len(stages) > 1 and (resume is None or resume.phase == "finetune"):
            trained_head = network.heads.get(key)
            if trained_head is not None:
                backend.assign(network.head.top.variables, trained_head.variables)
                history = history or list(trained_head.history)
                remaining = [stage for stage in remaining if stage.phase.name != "head"]
        plan = _plan(params, network, remaining, data, self.store)
        watch.on_plan(_plan_text(plan, remaining))
        for stage in remaining:
            phase, line = stage.phase, stage.line
            freezing.freeze(body, phase.frozen_layers, train_batch_norm)
            before = freezing.fingerprint(body)
            with freezing.without_noise(body, phase.frozen_layers):
                learner = network.learner(stage, train_batch_norm)
                train_examples, validation_examples = _examples(params, data, plan if line else None, stage.name)
                snapshot = resume if stage is remaining[0] else None
                stage_watch = watch if phase.name == "finetune" else replace(watch, looks=())
                start = key if stage is first else None
                history = learner.fit(phase, train_examples, validation_examples, history, snapshot, stage_watch, start)
            audit = freezing.audit(body, network.whole, phase.frozen_layers, before)
            if phase.name == "head":
                network.heads.put(key, TrainedHead(backend.values(network.head.top.variables), list(history)))
        final_row = phases.final_row(history, stages[-1].phase.stopping)
        groups = course.groups(stages, body, network.head.top)
        made_from = self._made_from(params, data, network.backbone, audit, groups)
        return Result(bundles.Bundle(network.whole, data.validation.layout, made_from), history, final_row, audit)

    def _fit_sklearn(self, params: Params, data: TrainingData, network: Network, watch: Watch) -> Result:
        """Train a scikit-learn classifier on the frozen features of all variants."""
        body, layout = network.backbone.model, data.validation.layout
        stage = course.one_pass(params, body, len(data.variants))
        frozen, classes = stage.phase.frozen_layers, len(layout.classes)
        freezing.freeze(body, frozen, train_batch_norm=False)
        before = freezing.fingerprint(body)
        plan = _plan(params, network, [stage], data, self.store)
        watch.on_plan(_plan_text(plan, [stage]))
        train_examples, validation_examples = _examples(params, data, plan, stage.name)
        features = [_vectors(rows) for rows in train_examples.variants]
        labels = np.tile(train_examples.labels, len(features))
        settings, is_balanced = params.head, params.finetune.class_weight == "balanced"
        classifier = sklearn_fit.fit(
            settings.classifier, settings.classifier_args, np.concatenate(features), labels, is_balanced, params.seed
        )
        top = sklearn_layers.convert(classifier, features[0].shape[1], classes)
        whole = assembly.whole(network.backbone, heads.Head(network.head.pool, top, classes))
        audit = freezing.audit(body, whole, frozen, before)
        loss, accuracy = _evaluate_head(top, features[0], train_examples.labels)
        val_loss, val_accuracy = _evaluate_head(
            top, _vectors(validation_examples.variants[0]), validation_examples.labels
        )
        row = HistoryRow(
            step=1,
            phase="head",
            epoch=1,
            learning_rate=0.0,
            loss=loss,
            accuracy=accuracy,
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            frozen_layers=frozen,
        )
        watch.on_epoch(row, lambda: Snapshot("head", Position(1, [row], best_value=val_loss)))
        made_from = self._made_from(params, data, network.backbone, audit, course.groups([], body, top))
        return Result(bundles.Bundle(whole, layout, made_from), [row], row, audit)

    def _made_from(
        self,
        params: Params,
        data: TrainingData,
        backbone: backbones.Backbone,
        audit: Audit,
        groups: Sequence[LayerGroup],
    ) -> MadeFrom:
        """The origin of the bundle."""
        content = files.content(self.locate(params.backbone.weights))
        origin = BackboneOrigin(**params.backbone.model_dump(), weights_sha256=content, loaded=backbone.loaded)
        return MadeFrom(
            seed=params.seed,
            backbone=origin,
            head=params.head.model_dump(),
            finetune={**params.finetune.model_dump(), "precision": _precision(params)},
            cache_dtype=params.cache.dtype,
            augment=params.augment.model_dump(include={"mode", "mixup", "cutmix"}),
            copies=len(data.variants) - 1,
            audit=audit,
            data=SourceDigests(data.variants[0].source_digest(), data.validation.source_digest()),
            keras=keras.__version__,
            groups=tuple(groups),
        )

    def range_test(
        self, params: Params, data: TrainingData, rates: NDArray[np.float64], is_over: Callable[[list[float]], bool]
    ) -> list[float]:
        """The losses of batches at rising learning rates at the start of fine-tuning (behind the final freeze line,
        with a trained head), or of the head's phase without fine-tuning. is_over: see `loop.Learner.range_test`."""
        settings = params.finetune
        if settings.head_epochs and settings.epochs:
            head_only = settings.model_copy(update={"epochs": 0})
            self.run(params.model_copy(update={"finetune": head_only}), data)
            network = self._network(params, data, is_fresh=False)
        else:
            network = self._network(params, data)
        body = network.backbone.model
        stage = course.stages(params, body)[-1]
        plan = _plan(params, network, [stage], data, self.store)
        train_batch_norm = _trains_batch_norm(params, network)
        freezing.freeze(body, stage.phase.frozen_layers, train_batch_norm)
        with freezing.without_noise(body, stage.phase.frozen_layers):
            train_examples, _ = _examples(params, data, plan, stage.name)
            return network.learner(stage, train_batch_norm).range_test(stage.phase, train_examples, rates, is_over)

    def _network(self, params: Params, data: TrainingData, is_fresh: bool = True) -> Network:
        """The network of these settings: reset if `is_fresh`, else with the weights of the last training."""
        layout = data.validation.layout
        backbone_settings, precision = params.backbone, _precision(params)
        head_settings = params.head.model_dump_json(exclude=NOT_BUILT)
        key = (backbone_settings, head_settings, layout.image_size, len(layout.classes), params.seed, precision)
        keras.config.set_dtype_policy(precision)
        network = self._networks.get(key)
        if network is None:
            backend.make_deterministic(params.seed)
            backbone = backbones.of_section(backbone_settings, self.locate, layout.image_size)
            shape = backbone.model.output.shape[1:]
            params.head.require_fit(len(layout.classes))
            head = heads.build(shape, len(layout.classes), **params.head.model_dump(exclude=NOT_BUILT))
            network = Network(backbone, head, assembly.whole(backbone, head))
            self._networks.put(key, network)
        if is_fresh:
            network.reset()
        network.head.set_dropout(params.head.dropout)
        return network


def _head_key(params: Params, data: TrainingData, phase: phases.Phase | None) -> Hashable:
    """A key of everything that the result of the head's phase depends on, except the network."""
    images = [split.digest for split in (*data.variants, data.validation)]
    return (phase, str(params.head.dropout), params.finetune.class_weight, params.cache.dtype, *images)


def _trains_batch_norm(params: Params, network: Network) -> bool:
    """Whether BatchNorm layers above the freeze line are trained."""
    mode = params.finetune.batch_norm
    return mode == "train" or (mode == "auto" and not network.backbone.pretrained)


def _vectors(rows: Rows) -> NDArray[np.float32]:
    """All rows, float32 (n, width)."""
    return rows.take(np.arange(len(rows))).astype(np.float32, copy=False)


def _evaluate_head(top: keras.Model, features: NDArray[np.float32], labels: NDArray[np.int64]) -> tuple[float, float]:
    """Cross-entropy and accuracy of a head on features."""
    rows = backend.batch_rows()
    starts = range(0, len(features), rows)
    chunks = [features[start : start + rows] for start in starts]
    logits = np.concatenate([backend.predict(top, chunk, rows) for chunk in chunks]).astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    likelihood = logits[np.arange(len(labels)), labels] - np.log(np.exp(logits).sum(axis=1))
    return float(-likelihood.mean()), float((logits.argmax(axis=1) == labels).mean())


def _precision(params: Params) -> str:
    """The precision of training, as a dtype policy of Keras."""
    precision = params.finetune.precision
    return backend.best_precision() if precision == "auto" else precision


def _plan(
    params: Params, network: Network, stages: Sequence[TrainingStage], data: TrainingData, store: Store
) -> planning.Plan | None:
    """The plan for the stages that begin behind a freeze line; None if no stage does."""
    variants = len(data.variants)
    demands = [
        planning.Demand(
            stage.name,
            stage.line,
            len(stage.phase.stage),
            frozenset(epoch % variants for epoch in stage.phase.stage),
        )
        for stage in stages
        if stage.line is not None
    ]
    if not demands:
        return None
    cache = params.cache
    return planning.make(network.source, demands, data.variants, data.validation, store, cache.mode, cache.dtype)


def _plan_text(plan: planning.Plan | None, stages: Sequence[TrainingStage]) -> str:
    """The plan in one line."""
    live = "every batch is drawn anew and goes through all layers, and nothing is stored"
    parts = [plan.text] if plan else []
    if any(stage.policy is not None for stage in stages):
        parts.append(f"finetune on live variants: {live}" if plan else f"plan: live variants: {live}")
    return "; ".join(parts) or "plan: nothing is frozen, every batch goes through all layers"


def _examples(
    params: Params, data: TrainingData, plan: planning.Plan | None, stage: str
) -> tuple[batching.Examples, batching.Examples]:
    """Training and validation examples of a stage: the features by the plan, or without one the images themselves."""
    train, validation = data.variants[0], data.validation
    weights = None
    if params.finetune.class_weight == "balanced":
        weights = loop.balanced(train.labels, len(train.layout.classes))
    train_rows: Sequence[Rows] = data.variants
    validation_rows: Rows = validation
    if plan is not None:
        train_rows = [plan.rows(stage, images, variant) for variant, images in enumerate(data.variants)]
        validation_rows = plan.rows(stage, validation)
    return batching.Examples(train_rows, train.labels, weights), batching.Examples([validation_rows], validation.labels)
