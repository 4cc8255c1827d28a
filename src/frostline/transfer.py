"""Transfer learning in two phases: the head on frozen features, then everything above the freeze line (LP-FT,
Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution", ICLR 2022)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import keras

from frostline import backbones, classifier, digest, freezing, planning, training
from frostline.features import Rows
from frostline.params import Params
from frostline.shards import Shards
from frostline.store import Store


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


def run(
    params: Params,
    data: Data,
    store: Store,
    resume: training.Snapshot | None,
    on_plan: Callable[[str], None],
    on_epoch: training.OnEpoch,
) -> Result:
    """Train what params.yaml describes.

    resume: the last snapshot of a killed run of the same job; on_plan: called once with the plan for the features of
    frozen layers, in a line. Raises UserError for bad settings, InternalError where a
    frozen weight changed.
    """
    settings = params.finetune
    layout = data.validation.layout
    training.make_deterministic(params.seed)
    keras.config.set_dtype_policy(settings.precision)
    named = params.backbone
    backbone = backbones.build(named.name, named.weights, layout.image_size, named.until)
    body = backbone.model
    head = classifier.build_head(body.output.shape[1:], len(layout.classes), **params.head.model_dump())
    whole = classifier.whole(backbone, head)
    train_batch_norm = settings.batch_norm == "train" or (settings.batch_norm == "auto" and not backbone.pretrained)
    depths = {"head": len(body.layers), "finetune": freezing.depth(body, settings.freeze)}

    history = resume.history if resume else []
    head_is_done = resume is not None and resume.phase == "finetune"
    phases = {name: _phase(params, name) for name in depths if not (name == "head" and head_is_done)}
    phases = {name: phase for name, phase in phases.items() if phase.epochs}
    lines = {name: freezing.deepest_cut(body, depths[name]) for name in phases}
    plan = _plan(params, backbone, head, phases, lines, data, store)
    on_plan(plan.text if plan else "plan: nothing is frozen, every batch goes through all layers")
    audits = []
    for name, phase in phases.items():
        depth, line = depths[name], lines[name]
        freezing.freeze(body, depth, train_batch_norm)
        before = freezing.fingerprint(body)
        with freezing.without_noise(body, depth):
            model = classifier.suffix(backbone, head, line)
            learned, checked = _examples(params, data, plan if line else None, name)
            here = resume if resume is not None and resume.phase == name else None
            history = training.fit(model, phase, learned, checked, history, here, on_epoch)
        audits.append(freezing.audit(body, whole, depth, before))
    made_from = {
        "seed": params.seed,
        "backbone": {**named.model_dump(), "weights_sha256": _weights_digest(named.weights)},
        "head": params.head.model_dump(),
        "finetune": settings.model_dump(),
        "cache_dtype": params.cache.dtype,
        "copies": len(data.variants) - 1,
        "audit": asdict(audits[-1]),
        "data": {"train": data.variants[0].source_digest(), "val": data.validation.source_digest()},
        "keras": keras.__version__,
    }
    kept = training.kept(history, next(reversed(phases.values())).stopping)
    return Result(classifier.Bundle(whole, layout, made_from), history, kept, audits[-1])


def _weights_digest(weights: str) -> str | None:
    """Digest of the file that `backbone.weights` names; None for a keyword."""
    path = Path(weights)
    return digest.of_file(path) if path.is_file() else None


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
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        schedule=settings.schedule,
        stopping=training.Stopping(**stopping.model_dump()) if stopping else None,
        label_smoothing=settings.label_smoothing,
        seed=params.seed,
    )


def _plan(
    params: Params,
    backbone: backbones.Backbone,
    head: classifier.Head,
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
    return planning.make(backbone, head, planned, data.variants, data.validation, store, cache.mode, cache.dtype)


def _examples(
    params: Params, data: Data, plan: planning.Plan | None, phase: str
) -> tuple[training.Examples, training.Examples]:
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
    return training.Examples(learned, train.labels, weights), training.Examples([checked], validation.labels)
