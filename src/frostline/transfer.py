"""Transfer learning in two phases: the head on frozen features, then everything above the freeze line (LP-FT,
Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution", ICLR 2022)."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import keras
import numpy as np
from numpy.typing import NDArray

from frostline import (
    augmentation,
    backbones,
    batching,
    classifier,
    digest,
    engine,
    freezing,
    live,
    phases,
    planning,
    schedules,
    thawing,
    training,
)
from frostline.features import Rows
from frostline.params import Params
from frostline.shards import Shards
from frostline.store import Store

# What is kept at most: networks, and of each the compiled learners and the trained heads.
NETWORKS, LEARNERS, HEADS = 4, 16, 64

# Settings of the head that its layers are not built by.
NOT_BUILT = {"dropout", "classifier", "classifier_args"}


@dataclass(frozen=True)
class Data:
    """What to learn from. variants: the training split first, then its augmented variants, row by row alike."""

    variants: Sequence[Shards]
    validation: Shards


@dataclass(frozen=True)
class Result:
    """bundle: the trained classifier; history: one row an epoch, kept: the row of the weights that it ended with;
    audit: the proof that frozen weights stood still."""

    bundle: classifier.Bundle
    history: list[phases.Row]
    kept: phases.Row
    audit: freezing.Audit


class Trainer:
    """Trains once or again and again. Networks, compiled steps and trained heads are kept for the next training.

    What is kept is set back before it is used, so a training ends with the weights that it would have in a process of
    its own. The memory that it takes is bounded: the least recently used goes.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._networks: _Recent[_Network] = _Recent(NETWORKS)

    def run(
        self,
        params: Params,
        data: Data,
        resume: training.Snapshot | None,
        on_plan: Callable[[str], None],
        on_epoch: training.OnEpoch,
        looks: Sequence[float] = (),
    ) -> Result:
        """Train what params.yaml describes.

        resume: the last snapshot of an unfinished run of the same job; on_plan: called once with the plan for the
        features of frozen layers, in a line; looks: of the second phase, as `training.Learner.fit` has them. The
        result's model is good until the next training. Raises UserError for bad settings, InternalError where a frozen
        weight changed.
        """
        settings = params.finetune
        network = self._network(params, data)
        body = network.backbone.model
        train_batch_norm = _trains_batch_norm(params, network)
        stages = _stages(params, body)
        history = list(resume.history) if resume else []
        head = next((stage.phase for stage in stages if stage.phase.name == "head"), None)
        key = _head_key(params, data, head)
        left = [stage for stage in stages if resume is None or stage.is_left(resume)]
        if head is not None and len(stages) > 1 and (resume is None or resume.phase == "finetune"):
            trained = network.heads.get(key)
            if trained is not None:
                training.assign(network.head.top.variables, trained.variables)
                history = history or list(trained.history)
                left = [stage for stage in left if stage.phase.name != "head"]
        plan = _plan(params, network, left, data, self.store)
        on_plan(_told(plan, left))
        for stage in left:
            phase, line = stage.phase, stage.line
            freezing.freeze(body, phase.frozen_layers, train_batch_norm)
            before = freezing.fingerprint(body)
            with freezing.without_noise(body, phase.frozen_layers):
                learner = network.learner(stage, train_batch_norm)
                learned, checked = _examples(params, data, plan if line else None, stage.name)
                here = resume if stage is left[0] else None
                looked = looks if phase.name == "finetune" else ()
                history = learner.fit(phase, learned, checked, history, here, on_epoch, looked)
            audit = freezing.audit(body, network.whole, phase.frozen_layers, before)
            if phase.name == "head":
                network.heads.put(key, _TrainedHead(training.values(network.head.top.variables), list(history)))
        made_from = {
            "seed": params.seed,
            "backbone": {**params.backbone.model_dump(), "weights_sha256": _weights_digest(params.backbone.weights)},
            "head": params.head.model_dump(),
            "finetune": {**settings.model_dump(), "precision": _precision(params)},
            "cache_dtype": params.cache.dtype,
            "augment": params.augment.model_dump(include={"mode", "mixup", "cutmix"}),
            "copies": len(data.variants) - 1,
            "audit": asdict(audit),
            "groups": _groups(params, network, stages),
            "data": {"train": data.variants[0].source_digest(), "val": data.validation.source_digest()},
            "keras": keras.__version__,
        }
        kept = phases.kept(history, stages[-1].phase.stopping)
        layout = data.validation.layout
        return Result(classifier.Bundle(network.whole, layout, made_from), history, kept, audit)

    def range_test(
        self, params: Params, data: Data, rates: NDArray[np.float64], is_over: Callable[[list[float]], bool]
    ) -> list[float]:
        """The losses of batches at rising learning rates, as fine-tuning (or the head, where nothing is fine-tuned)
        would begin: behind the final freeze line, with the head trained. is_over: see `training.Learner.range_test`."""
        settings = params.finetune
        if settings.head_epochs and settings.epochs:
            alone = settings.model_copy(update={"epochs": 0})
            self.run(
                params.model_copy(update={"finetune": alone}), data, None, lambda plan: None, lambda row, now: None
            )
            network = self._network(params, data, is_fresh=False)
        else:
            network = self._network(params, data)
        body = network.backbone.model
        stage = _stages(params, body)[-1]
        plan = _plan(params, network, [stage], data, self.store)
        train_batch_norm = _trains_batch_norm(params, network)
        freezing.freeze(body, stage.phase.frozen_layers, train_batch_norm)
        with freezing.without_noise(body, stage.phase.frozen_layers):
            learned, _ = _examples(params, data, plan, stage.name)
            return network.learner(stage, train_batch_norm).range_test(stage.phase, learned, rates, is_over)

    def _network(self, params: Params, data: Data, is_fresh: bool = True) -> _Network:
        """The network of those settings, as it is before any training, or as the last one left it."""
        layout = data.validation.layout
        named, precision = params.backbone, _precision(params)
        fixed = params.head.model_dump_json(exclude=NOT_BUILT)
        key = (named, fixed, layout.image_size, len(layout.classes), params.seed, precision)
        keras.config.set_dtype_policy(precision)
        network = self._networks.get(key)
        if network is None:
            training.make_deterministic(params.seed)
            backbone = backbones.build(named.name, named.weights, layout.image_size, named.until)
            shape = backbone.model.output.shape[1:]
            head = classifier.build_head(shape, len(layout.classes), **params.head.model_dump(exclude=NOT_BUILT))
            network = _Network(backbone, head, classifier.whole(backbone, head))
            self._networks.put(key, network)
        if is_fresh:
            network.reset()
        network.head.set_dropout(params.head.dropout)
        return network


@dataclass(frozen=True)
class _TrainedHead:
    """What the first phase leaves behind."""

    variables: list[NDArray[Any]]
    history: list[phases.Row]


class _Network:
    """Backbone and head, with all that is worth keeping between trainings. whole: pictures -> probabilities."""

    def __init__(self, backbone: backbones.Backbone, head: classifier.Head, whole: keras.Model) -> None:
        self.backbone, self.head, self.whole = backbone, head, whole
        self.heads: _Recent[_TrainedHead] = _Recent(HEADS)
        self._learners: _Recent[training.Learner] = _Recent(LEARNERS)
        self._augmenters: dict[Hashable, live.Variants] = {}
        self._fresh = training.values(whole.variables)

    def reset(self) -> None:
        """Set all variables, the states of random numbers among them, to what they were before any training."""
        training.assign(self.whole.variables, self._fresh)
        for augmenter in self._augmenters.values():
            augmenter.reset()

    def learner(self, stage: _Stage, train_batch_norm: bool) -> training.Learner:
        """What trains a stage, the body being frozen for it now."""
        key = (stage.phase.frozen_layers, train_batch_norm, stage.policy, stage.phase.rule)
        learner = self._learners.get(key)
        if learner is None:
            body = self.backbone.model
            model = classifier.suffix(self.backbone, self.head, stage.line, self._augmenter(stage))
            blocks = thawing.from_top(body) if stage.phase.rule.has_layer_decay else {}
            learner = training.Learner(model, stage.phase.rule, blocks)
            self._learners.put(key, learner)
        return learner

    def _augmenter(self, stage: _Stage) -> live.Variants | None:
        """What draws the live variants of a stage; None where it has none."""
        if stage.policy is None:
            return None
        key = (stage.policy, stage.phase.seed)
        if key not in self._augmenters:
            self._augmenters[key] = live.Variants(stage.policy, stage.phase.seed)
        return self._augmenters[key]


T = TypeVar("T")


class _Recent(Generic[T]):
    """The values that were used last, at most `size` of them."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._values: dict[Hashable, T] = {}

    def get(self, key: Hashable) -> T | None:
        """The value of a key, which so becomes the last used; None where there is none."""
        if key not in self._values:
            return None
        self._values[key] = self._values.pop(key)
        return self._values[key]

    def put(self, key: Hashable, value: T) -> None:
        """Keep a value; the least recently used one goes where there are too many."""
        self._values[key] = value
        if len(self._values) > self.size:
            del self._values[next(iter(self._values))]


def _head_key(params: Params, data: Data, phase: phases.Phase | None) -> Hashable:
    """What the first phase's outcome depends on besides the network."""
    pictures = [each.digest for each in (*data.variants, data.validation)]
    return (phase, str(params.head.dropout), params.finetune.class_weight, params.cache.dtype, *pictures)


def _weights_digest(weights: str) -> str | None:
    """Digest of the file that `backbone.weights` names; None for a keyword."""
    path = Path(weights)
    return digest.of_file(path) if path.is_file() else None


@dataclass(frozen=True)
class _Stage:
    """A part of training with one freeze line. line: where the suffix begins, None for pictures; policy: by which live
    variants are drawn, None for none."""

    name: str
    phase: phases.Phase
    line: freezing.CutPoint | None
    policy: augmentation.Policy | None

    def is_left(self, resume: training.Snapshot) -> bool:
        """Whether it is not over at a snapshot; one whose last epoch is just over has yet to take its average."""
        if resume.phase != self.phase.name:
            return self.phase.name == "finetune"
        end = self.phase.stage.stop
        return resume.epoch < end or (resume.epoch == end and resume.batch == 0)


def _stages(params: Params, body: keras.Model) -> list[_Stage]:
    """The head's phase, then fine-tuning, in several stages where the backbone thaws gradually."""
    settings = params.finetune
    found = []
    if settings.head_epochs:
        frozen = len(body.layers)
        phase = _phase(params, "head", settings.head_epochs, range(settings.head_epochs), frozen)
        found.append(_Stage("head", phase, freezing.deepest_cut(body, frozen), None))
    policy = augmentation.Policy.of(params.augment) if params.augment.mode == "live" else None
    spans = thawing.stages(body, freezing.parse(settings.freeze), settings.epochs) if settings.epochs else []
    for frozen, span in spans:
        name = "finetune" if len(spans) == 1 else f"finetune from epoch {span.start + 1}"
        phase = _phase(params, "finetune", settings.epochs, span, frozen)
        line = freezing.deepest_cut(body, frozen) if policy is None else None
        found.append(_Stage(name, phase, line, policy))
    return found


def _phase(params: Params, name: str, epochs: int, stage: range, frozen: int) -> phases.Phase:
    settings, callbacks = params.finetune, params.finetune.callbacks
    is_head = name == "head"
    rate = settings.head_learning_rate if is_head else settings.learning_rate
    schedule = schedules.parse(settings.schedule)
    if callbacks.LearningRateScheduler:
        schedule = schedules.table(callbacks.LearningRateScheduler.schedule, rate)
    if is_head and schedule.is_absolute:  # the rates are those of fine-tuning
        schedule = schedules.parse("constant")
    plateau, best, stopping = callbacks.ReduceLROnPlateau, callbacks.ModelCheckpoint, settings.early_stopping
    keep = phases.Stopping(best.monitor, None) if best else None
    return phases.Phase(
        name=name,
        epochs=epochs,
        stage=stage,
        batch_size=settings.batch_size,
        optimizer=settings.optimizer,
        learning_rate=rate,
        schedule=schedule,
        plateau=phases.Plateau(**plateau.model_dump()) if plateau else None,
        weight_decay=settings.weight_decay,
        momentum=settings.momentum,
        label_smoothing=settings.label_smoothing,
        focal_gamma=settings.focal_gamma if settings.loss == "focal" else None,
        ema_momentum=settings.ema_momentum,
        layer_decay=settings.layer_decay if freezing.parse(settings.freeze).is_discriminative and not is_head else 1.0,
        mixup=params.augment.mixup,
        cutmix=params.augment.cutmix,
        stopping=phases.Stopping(**stopping.model_dump()) if stopping else keep,
        seed=params.seed,
        frozen_layers=frozen,
    )


def _trains_batch_norm(params: Params, network: _Network) -> bool:
    """Whether BatchNorm above the line is trained."""
    named = params.finetune.batch_norm
    return named == "train" or (named == "auto" and not network.backbone.pretrained)


def _precision(params: Params) -> str:
    """The precision of training, as a dtype policy of Keras."""
    named = params.finetune.precision
    return engine.best_precision() if named == "auto" else named


def _groups(params: Params, network: _Network, stages: Sequence[_Stage]) -> list[dict[str, Any]]:
    """Each block of the backbone, from the bottom up, and the head: what was trained of it, and how fast."""
    settings, body = params.finetune, network.backbone.model
    last = stages[-1].phase
    spans = [(each.phase.frozen_layers, each.phase.stage) for each in stages if each.phase.name == "finetune"]
    blocks = thawing.groups(body, spans or [(len(body.layers), range(0))], last.learning_rate, last.layer_decay)
    top = network.head.top
    rate = settings.learning_rate if spans else settings.head_learning_rate
    head = thawing.Group("head", len(top.layers), top.count_params(), rate, thawed=1)
    return [asdict(group) for group in (*blocks, head)]


def _plan(
    params: Params, network: _Network, stages: Sequence[_Stage], data: Data, store: Store
) -> planning.Plan | None:
    """Where the stages that begin behind a freeze line take their features; None where none does."""
    variants = len(data.variants)
    planned = [
        planning.Phase(
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
    return planning.make(
        network.backbone, network.head, planned, data.variants, data.validation, store, cache.mode, cache.dtype
    )


def _told(plan: planning.Plan | None, stages: Sequence[_Stage]) -> str:
    """The plan in a line."""
    drawn = "every batch is drawn afresh and goes through all layers, nothing of it is stored"
    parts = [plan.text] if plan else []
    if any(stage.policy is not None for stage in stages):
        parts.append(f"finetune on live variants: {drawn}" if plan else f"plan: live variants: {drawn}")
    return "; ".join(parts) or "plan: nothing is frozen, every batch goes through all layers"


def _examples(
    params: Params, data: Data, plan: planning.Plan | None, stage: str
) -> tuple[batching.Examples, batching.Examples]:
    """Training and validation examples of a stage: features as planned, else the pictures themselves."""
    train, validation = data.variants[0], data.validation
    weights = None
    if params.finetune.class_weight == "balanced":
        weights = training.balanced(train.labels, len(train.layout.classes))
    learned: Sequence[Rows] = data.variants
    checked: Rows = validation
    if plan is not None:
        learned = [plan.rows(stage, pictures, variant) for variant, pictures in enumerate(data.variants)]
        checked = plan.rows(stage, validation)
    return batching.Examples(learned, train.labels, weights), batching.Examples([checked], validation.labels)
