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

NETWORKS = 4  # are kept at most

# Settings of the head that its layers are not built by.
NOT_BUILT = {"dropout", "classifier", "classifier_args"}


@dataclass(frozen=True)
class TrainingData:
    """What to learn from. variants: the training split first, then its augmented variants, row by row alike."""

    variants: Sequence[Shards]
    validation: Shards


@dataclass(frozen=True)
class Result:
    """bundle: the trained classifier; history: one row an epoch, kept: the row of the weights that it ended with;
    audit: the proof that frozen weights stood still."""

    bundle: bundles.Bundle
    history: list[HistoryRow]
    kept: HistoryRow
    audit: Audit


class Trainer:
    """Trains once or again and again. Networks, compiled steps and trained heads are kept for the next training.

    What is kept is set back before it is used, so a training ends with the weights that it would have in a process of
    its own. The memory that it takes is bounded: the least recently used goes. locate: where `backbone.weights` lies on
    this machine.
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
        """Train what params.yaml describes.

        resume: the last snapshot of an unfinished run of the same job. The result's model is good until the next
        training. Raises UserError for bad settings, InternalError where a frozen weight changed.
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
        left = [stage for stage in stages if resume is None or stage.is_left(resume)]
        if head is not None and len(stages) > 1 and (resume is None or resume.phase == "finetune"):
            trained = network.heads.get(key)
            if trained is not None:
                backend.assign(network.head.top.variables, trained.variables)
                history = history or list(trained.history)
                left = [stage for stage in left if stage.phase.name != "head"]
        plan = _plan(params, network, left, data, self.store)
        watch.on_plan(_told(plan, left))
        for stage in left:
            phase, line = stage.phase, stage.line
            freezing.freeze(body, phase.frozen_layers, train_batch_norm)
            before = freezing.fingerprint(body)
            with freezing.without_noise(body, phase.frozen_layers):
                learner = network.learner(stage, train_batch_norm)
                learned, checked = _examples(params, data, plan if line else None, stage.name)
                here = resume if stage is left[0] else None
                seen = watch if phase.name == "finetune" else replace(watch, looks=())
                start = key if stage is first else None
                history = learner.fit(phase, learned, checked, history, here, seen, start)
            audit = freezing.audit(body, network.whole, phase.frozen_layers, before)
            if phase.name == "head":
                network.heads.put(key, TrainedHead(backend.values(network.head.top.variables), list(history)))
        kept = phases.kept(history, stages[-1].phase.stopping)
        groups = course.groups(stages, body, network.head.top)
        made_from = self._made_from(params, data, network.backbone, audit, groups)
        return Result(bundles.Bundle(network.whole, data.validation.layout, made_from), history, kept, audit)

    def _fit_sklearn(self, params: Params, data: TrainingData, network: Network, watch: Watch) -> Result:
        """Train one of scikit-learn's classifiers on the frozen features of all variants."""
        body, layout = network.backbone.model, data.validation.layout
        stage = course.one_pass(params, body, len(data.variants))
        frozen, classes = stage.phase.frozen_layers, len(layout.classes)
        freezing.freeze(body, frozen, train_batch_norm=False)
        before = freezing.fingerprint(body)
        plan = _plan(params, network, [stage], data, self.store)
        watch.on_plan(_told(plan, [stage]))
        learned, checked = _examples(params, data, plan, stage.name)
        known = [_vectors(rows) for rows in learned.variants]
        labels = np.tile(learned.labels, len(known))
        settings, is_balanced = params.head, params.finetune.class_weight == "balanced"
        fitted = sklearn_fit.fit(
            settings.classifier, settings.classifier_args, np.concatenate(known), labels, is_balanced, params.seed
        )
        top = sklearn_layers.convert(fitted, known[0].shape[1], classes)
        whole = assembly.whole(network.backbone, heads.Head(network.head.pool, top, classes))
        audit = freezing.audit(body, whole, frozen, before)
        loss, accuracy = _measured(top, known[0], learned.labels)
        val_loss, val_accuracy = _measured(top, _vectors(checked.variants[0]), checked.labels)
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
        """What the bundle records."""
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
        """The losses of batches at rising learning rates, as fine-tuning (or the head, where nothing is fine-tuned)
        would begin: behind the final freeze line, with the head trained. is_over: see `loop.Learner.range_test`."""
        settings = params.finetune
        if settings.head_epochs and settings.epochs:
            alone = settings.model_copy(update={"epochs": 0})
            self.run(params.model_copy(update={"finetune": alone}), data)
            network = self._network(params, data, is_fresh=False)
        else:
            network = self._network(params, data)
        body = network.backbone.model
        stage = course.stages(params, body)[-1]
        plan = _plan(params, network, [stage], data, self.store)
        train_batch_norm = _trains_batch_norm(params, network)
        freezing.freeze(body, stage.phase.frozen_layers, train_batch_norm)
        with freezing.without_noise(body, stage.phase.frozen_layers):
            learned, _ = _examples(params, data, plan, stage.name)
            return network.learner(stage, train_batch_norm).range_test(stage.phase, learned, rates, is_over)

    def _network(self, params: Params, data: TrainingData, is_fresh: bool = True) -> Network:
        """The network of those settings, as it is before any training, or as the last one left it."""
        layout = data.validation.layout
        named, precision = params.backbone, _precision(params)
        fixed = params.head.model_dump_json(exclude=NOT_BUILT)
        key = (named, fixed, layout.image_size, len(layout.classes), params.seed, precision)
        keras.config.set_dtype_policy(precision)
        network = self._networks.get(key)
        if network is None:
            backend.make_deterministic(params.seed)
            backbone = backbones.of_section(named, self.locate, layout.image_size)
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
    """What the first phase's outcome depends on besides the network."""
    images = [each.digest for each in (*data.variants, data.validation)]
    return (phase, str(params.head.dropout), params.finetune.class_weight, params.cache.dtype, *images)


def _trains_batch_norm(params: Params, network: Network) -> bool:
    """Whether BatchNorm above the line is trained."""
    named = params.finetune.batch_norm
    return named == "train" or (named == "auto" and not network.backbone.pretrained)


def _vectors(rows: Rows) -> NDArray[np.float32]:
    """All rows, float32 (n, width)."""
    return rows.take(np.arange(len(rows))).astype(np.float32, copy=False)


def _measured(top: keras.Model, features: NDArray[np.float32], labels: NDArray[np.int64]) -> tuple[float, float]:
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
    named = params.finetune.precision
    return backend.best_precision() if named == "auto" else named


def _plan(
    params: Params, network: Network, stages: Sequence[TrainingStage], data: TrainingData, store: Store
) -> planning.Plan | None:
    """Where the stages that begin behind a freeze line take their features; None where none does."""
    variants = len(data.variants)
    planned = [
        planning.Demand(
            stage.name,
            stage.line,
            len(stage.phase.stage),
            frozenset(epoch % variants for epoch in stage.phase.stage),
        )
        for stage in stages
        if stage.line is not None
    ]
    if not planned:
        return None
    cache = params.cache
    return planning.make(network.source, planned, data.variants, data.validation, store, cache.mode, cache.dtype)


def _told(plan: planning.Plan | None, stages: Sequence[TrainingStage]) -> str:
    """The plan in a line."""
    drawn = "every batch is drawn afresh and goes through all layers, nothing of it is stored"
    parts = [plan.text] if plan else []
    if any(stage.policy is not None for stage in stages):
        parts.append(f"finetune on live variants: {drawn}" if plan else f"plan: live variants: {drawn}")
    return "; ".join(parts) or "plan: nothing is frozen, every batch goes through all layers"


def _examples(
    params: Params, data: TrainingData, plan: planning.Plan | None, stage: str
) -> tuple[batching.Examples, batching.Examples]:
    """Training and validation examples of a stage: features as planned, else the images themselves."""
    train, validation = data.variants[0], data.validation
    weights = None
    if params.finetune.class_weight == "balanced":
        weights = loop.balanced(train.labels, len(train.layout.classes))
    learned: Sequence[Rows] = data.variants
    checked: Rows = validation
    if plan is not None:
        learned = [plan.rows(stage, images, variant) for variant, images in enumerate(data.variants)]
        checked = plan.rows(stage, validation)
    return batching.Examples(learned, train.labels, weights), batching.Examples([checked], validation.labels)
