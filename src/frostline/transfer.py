"""Transfer learning in two phases: the head on frozen features, then everything above the freeze line (LP-FT,
Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution", ICLR 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import keras

from frostline import backbones, classifier, digest, features, freezing, training
from frostline.params import Params
from frostline.shards import Shards


@dataclass(frozen=True)
class Data:
    """What to learn from. variants: the training split first, then its augmented variants, row by row alike."""

    variants: Sequence[Shards]
    validation: Shards


@dataclass(frozen=True)
class Result:
    """bundle: the trained classifier; history: one row an epoch; audit: the proof that frozen weights stood still."""

    bundle: classifier.Bundle
    history: list[training.Row]
    audit: freezing.Audit


def run(
    params: Params,
    data: Data,
    store: features.Store,
    resume: training.Snapshot | None,
    on_epoch: training.OnEpoch,
) -> Result:
    """Train what params.yaml describes.

    resume: the last snapshot of a killed run of the same job. Raises UserError for bad settings, InternalError where a
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
    audits = []
    for name, depth in depths.items():
        phase = _phase(params, name)
        done = resume is not None and resume.phase == "finetune" and name == "head"
        if done or phase.epochs == 0:
            continue
        freezing.freeze(body, depth, train_batch_norm)
        before = freezing.fingerprint(body)
        extractor = _extractor(params, backbone, head, depth, data, store)
        with freezing.without_noise(body, depth):
            model = classifier.suffix(backbone, head, extractor[0] if extractor else None)
            learned, checked = _examples(params, data, store, extractor[1] if extractor else None)
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
    return Result(classifier.Bundle(whole, layout, made_from), history, audits[-1])


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


def _extractor(
    params: Params,
    backbone: backbones.Backbone,
    head: classifier.Head,
    depth: int,
    data: Data,
    store: features.Store,
) -> tuple[freezing.CutPoint, features.Extractor] | None:
    """Where to cut and what to store for a freeze depth; None where every batch goes through the whole graph."""
    cut = freezing.deepest_cut(backbone.model, depth)
    if cut is None or params.cache.mode == "never":
        return None
    extractor = features.Extractor(classifier.prefix(backbone, head, cut))
    needed = sum(store.size(extractor, len(pictures)) for pictures in [*data.variants, data.validation])
    return (cut, extractor) if params.cache.mode == "always" or needed <= store.budget else None


def _examples(
    params: Params, data: Data, store: features.Store, extractor: features.Extractor | None
) -> tuple[training.Examples, training.Examples]:
    """Training and validation examples: stored features where there is an extractor, else the pictures themselves."""
    train, validation = data.variants[0], data.validation
    weights = None
    if params.finetune.class_weight == "balanced":
        weights = training.balanced(train.labels, len(train.layout.classes))
    learned: Sequence[features.Rows] = data.variants
    checked: Sequence[features.Rows] = [validation]
    if extractor is not None:
        learned = [features.Stored(store, extractor, pictures) for pictures in data.variants]
        checked = [features.Stored(store, extractor, validation)]
    return training.Examples(learned, train.labels, weights), training.Examples(checked, validation.labels)
