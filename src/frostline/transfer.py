"""Transfer learning in two phases: the head on frozen features, then everything above the freeze line (LP-FT,
Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution", ICLR 2022)."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Generic, TypeVar

import keras
from numpy.typing import NDArray

from frostline import backbones, batching, classifier, freezing, planning, training
from frostline import weights as files
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
    history: list[training.Row]
    kept: training.Row
    audit: freezing.Audit


class Trainer:
    """Trains once or again and again. Networks, compiled steps and trained heads are kept for the next training.

    What is kept is set back before it is used, so a training ends with the weights that it would have in a process of
    its own. The memory that it takes is bounded: the least recently used goes. locate: where `backbone.weights` lies on
    this machine.
    """

    def __init__(self, store: Store, locate: files.Locate = str) -> None:
        self.store, self.locate = store, locate
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

        resume: the last snapshot of an unfinished run of the same job; on_plan: called with what a file of weights gave
        the backbone, where it is one, and then with the plan for the features of frozen layers, each in a line; looks:
        of the second phase, as `training.Learner.fit` has them. The result's model is good until the next training.
        Raises UserError for bad settings, InternalError where a frozen weight changed.
        """
        settings = params.finetune
        layout = data.validation.layout
        network = self._network(params, data)
        body = network.backbone.model
        train_batch_norm = settings.batch_norm == "train" or (
            settings.batch_norm == "auto" and not network.backbone.pretrained
        )
        depths = {"head": len(body.layers), "finetune": freezing.depth(body, settings.freeze)}
        phases = {name: _phase(params, name) for name in depths}
        phases = {name: phase for name, phase in phases.items() if phase.epochs}
        lines = {name: freezing.deepest_cut(body, depths[name]) for name in phases}
        history = list(resume.history) if resume else []
        key = _head_key(params, data, phases.get("head"))
        if len(phases) == 2 and (resume is None or resume.phase == "finetune"):
            trained = network.heads.get(key)
            if trained is not None:
                training.assign(network.head.top.variables, trained.variables)
                history = history or list(trained.history)
            if trained is not None or resume is not None:
                del phases["head"]
        plan = _plan(params, network, phases, {name: lines[name] for name in phases}, data, self.store)
        if network.backbone.loaded:
            on_plan(str(network.backbone.loaded))
        on_plan(plan.text if plan else "plan: nothing is frozen, every batch goes through all layers")
        for name, phase in phases.items():
            depth, line = depths[name], lines[name]
            freezing.freeze(body, depth, train_batch_norm)
            before = freezing.fingerprint(body)
            with freezing.without_noise(body, depth):
                learner = network.learner(line, (depth, train_batch_norm), phase.rule)
                learned, checked = _examples(params, data, plan if line else None, name)
                here = resume if resume is not None and resume.phase == name else None
                history = learner.fit(
                    phase, learned, checked, history, here, on_epoch, looks if name == "finetune" else ()
                )
            audit = freezing.audit(body, network.whole, depth, before)
            if name == "head":
                network.heads.put(key, _TrainedHead(training.values(network.head.top.variables), list(history)))
        made_from = {
            "seed": params.seed,
            "backbone": _backbone(params, self.locate, network.backbone),
            "head": params.head.model_dump(),
            "finetune": settings.model_dump(),
            "cache_dtype": params.cache.dtype,
            "copies": len(data.variants) - 1,
            "audit": asdict(audit),
            "data": {"train": data.variants[0].source_digest(), "val": data.validation.source_digest()},
            "keras": keras.__version__,
        }
        kept = training.kept(history, next(reversed(phases.values())).stopping)
        return Result(classifier.Bundle(network.whole, layout, made_from), history, kept, audit)

    def _network(self, params: Params, data: Data) -> _Network:
        """The network of those settings, as it is before any training."""
        layout = data.validation.layout
        named, precision = params.backbone, params.finetune.precision
        fixed = params.head.model_dump_json(exclude=NOT_BUILT)
        key = (named, fixed, layout.image_size, len(layout.classes), params.seed, precision)
        keras.config.set_dtype_policy(precision)
        network = self._networks.get(key)
        if network is None:
            training.make_deterministic(params.seed)
            start = self.locate(named.weights)
            backbone = backbones.build(named.name, start, layout.image_size, named.until, named.alpha)
            shape = backbone.model.output.shape[1:]
            head = classifier.build_head(shape, len(layout.classes), **params.head.model_dump(exclude=NOT_BUILT))
            network = _Network(backbone, head, classifier.whole(backbone, head))
            self._networks.put(key, network)
        network.reset()
        network.head.set_dropout(params.head.dropout)
        return network


@dataclass(frozen=True)
class _TrainedHead:
    """What the first phase leaves behind."""

    variables: list[NDArray[Any]]
    history: list[training.Row]


class _Network:
    """Backbone and head, with all that is worth keeping between trainings. whole: pictures -> probabilities."""

    def __init__(self, backbone: backbones.Backbone, head: classifier.Head, whole: keras.Model) -> None:
        self.backbone, self.head, self.whole = backbone, head, whole
        self.heads: _Recent[_TrainedHead] = _Recent(HEADS)
        self._learners: _Recent[training.Learner] = _Recent(LEARNERS)
        self._fresh = training.values(whole.variables)

    def reset(self) -> None:
        """Set all variables, the states of random numbers among them, to what they were before any training."""
        training.assign(self.whole.variables, self._fresh)

    def learner(self, line: freezing.CutPoint | None, frozen: Hashable, rule: training.Rule) -> training.Learner:
        """What trains behind a line by that rule. frozen: what is known of how the body is frozen now."""
        learner = self._learners.get((frozen, rule))
        if learner is None:
            learner = training.Learner(classifier.suffix(self.backbone, self.head, line), rule)
            self._learners.put((frozen, rule), learner)
        return learner


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


def _head_key(params: Params, data: Data, phase: training.Phase | None) -> Hashable:
    """What the first phase's outcome depends on besides the network."""
    pictures = [each.digest for each in (*data.variants, data.validation)]
    return (phase, str(params.head.dropout), params.finetune.class_weight, params.cache.dtype, *pictures)


def _backbone(params: Params, locate: files.Locate, backbone: backbones.Backbone) -> dict[str, Any]:
    """What a bundle says of its backbone: the settings, the digest of the weights, and what they gave."""
    content = files.content(locate(params.backbone.weights))
    made = {**params.backbone.model_dump(), "weights_sha256": content}
    return made | ({"loaded": asdict(backbone.loaded)} if backbone.loaded else {})


def _phase(params: Params, name: str) -> training.Phase:
    settings = params.finetune
    stopping = settings.early_stopping
    is_head = name == "head"
    return training.Phase(
        name=name,
        epochs=settings.head_epochs if is_head else settings.epochs,
        batch_size=settings.batch_size,
        optimizer=settings.optimizer,
        learning_rate=settings.head_learning_rate if is_head else settings.learning_rate,
        schedule=settings.schedule,
        weight_decay=settings.weight_decay,
        momentum=settings.momentum,
        label_smoothing=settings.label_smoothing,
        ema_momentum=settings.ema_momentum,
        stopping=training.Stopping(**stopping.model_dump()) if stopping else None,
        seed=params.seed,
    )


def _plan(
    params: Params,
    network: _Network,
    phases: Mapping[str, training.Phase],
    lines: Mapping[str, freezing.CutPoint | None],
    data: Data,
    store: Store,
) -> planning.Plan | None:
    """Where the phases that have something frozen take their features; None where none has."""
    planned = [
        planning.Phase(name, line, phases[name].epochs, min(phases[name].epochs, len(data.variants)))
        for name, line in lines.items()
        if line is not None
    ]
    if not planned:
        return None
    cache = params.cache
    return planning.make(
        network.backbone, network.head, planned, data.variants, data.validation, store, cache.mode, cache.dtype
    )


def _examples(
    params: Params, data: Data, plan: planning.Plan | None, phase: str
) -> tuple[batching.Examples, batching.Examples]:
    """Training and validation examples of a phase: features as planned, else the pictures themselves."""
    train, validation = data.variants[0], data.validation
    weights = None
    if params.finetune.class_weight == "balanced":
        weights = training.balanced(train.labels, len(train.layout.classes))
    learned: Sequence[Rows] = data.variants
    checked: Rows = validation
    if plan is not None:
        learned = [plan.rows(phase, pictures, variant) for variant, pictures in enumerate(data.variants)]
        checked = plan.rows(phase, validation)
    return batching.Examples(learned, train.labels, weights), batching.Examples([checked], validation.labels)
