"""Add prediction sets and "none of these" to a trained classifier, as a second network behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import keras
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from frostline.data.shards import Shards
from frostline.features import depths, predictor
from frostline.features.store import Store
from frostline.models import all_depths, answers, bundles, freezing, keras_internals
from frostline.models.answer_facts import AnswerFacts, LeftOut, SetFacts, UnknownFacts
from frostline.models.bundles import AnswerNetwork, Bundle
from frostline.models.freezing import CutPoint
from frostline.params.evaluate import EvaluateSection, UnknownSection
from frostline.uncertainty import conformal, evidence, leaving_out, space
from frostline.uncertainty.evidence import Strangeness
from frostline.uncertainty.leaving_out import Labelled
from frostline.uncertainty.space import Space

SHARES = (0.5, 0.7, 0.85, 1.0)  # of the body's compute, about where its features are measured
USUAL = 2  # of these, if there are too few classes to measure
MOST = 5000  # images of a split, at most, whose features are used


@dataclass(frozen=True)
class Images:
    """train: without variants; calibration: images that nothing was chosen by, perhaps none or None."""

    train: Shards
    validation: Shards
    calibration: Shards | None


def fit(bundle: Bundle, images: Images, settings: EvaluateSection, store: Store, mode: str, seed: int) -> Bundle:
    """The bundle with what `evaluate.sets` and `evaluate.unknown` ask for. mode: cache.mode."""
    if settings.sets is None and settings.unknown is None:
        return bundle
    split, known = ("calibration", images.calibration) if images.calibration else ("val", images.validation)
    logits, probabilities = predictor.outputs(bundle, known, store, mode)
    sets = None
    if settings.sets is not None:
        sets = conformal.fit(settings.sets.score, probabilities, known.labels, settings.sets.coverage, seed)
    rule = None
    if settings.unknown is not None:
        rows = _sample(known, seed)
        values = evidence.of_outputs(logits[rows], probabilities[rows])
        rule = _rule(bundle, images, known, rows, _arrays(values), settings.unknown, store, seed)
    facts = AnswerFacts(split, len(known), known.source_digest(), sets, rule.facts if rule else None)
    return replace(bundle, answer=AnswerNetwork(_network(bundle, sets, rule), facts))


@dataclass(frozen=True)
class _Rule:
    """How strangers are told: the facts, the score, and for a score of features their place and space."""

    facts: UnknownFacts
    score: Strangeness
    place: CutPoint | None
    space: Space | None


def _rule(
    bundle: Bundle,
    images: Images,
    known: Shards,
    rows: NDArray[np.int64],
    outputs: Mapping[str, NDArray[np.float32]],
    settings: UnknownSection,
    store: Store,
    seed: int,
) -> _Rule:
    """The rule of `evaluate.unknown`. rows: of the known images that are used; outputs: the evidence of their
    outputs."""
    body = bundles.parts(bundle)[0]
    one_pass = depths.Pass([body], "unknown", places)
    train_rows, validation_rows = _sample(images.train, seed), _sample(images.validation, seed)
    keys = {depth.layer: depth.entry.key for depth in one_pass.depths[0]}
    lines = freezing.compute_below(body.model)[bundle.made_from.audit.frozen_layers]
    kept = {depth.entry.key for depth in one_pass.depths[0] if depth.share <= lines}

    def features(split: Shards, of: NDArray[np.int64]) -> Labelled:
        vectors = one_pass.vectors(split, of, store, kept)
        return Labelled({layer: vectors[key] for layer, key in keys.items()}, split.labels[of])

    train, validation = features(images.train, train_rows), features(images.validation, validation_rows)
    measured = leaving_out.measure(train, validation, seed)
    score, layer = _choice(settings.score, measured, list(keys))
    if layer is None:
        fitted, at, values = None, None, dict(outputs)
    else:
        fitted = space.fit(train.vectors[layer], train.labels)
        at = next(cut for cut in places(body.model) if cut.layer == layer)
        of_known = validation if known is images.validation else features(known, rows)
        values = {**outputs, **fitted.distances(of_known.vectors[layer])}
    rule = Strangeness.fit(score, values)
    limit = conformal.threshold(np.asarray(rule.of(values), np.float32), 1 - settings.false_alarms)
    bank = len(fitted.bank) if fitted is not None else 0
    facts = UnknownFacts(score, layer, settings.false_alarms, limit, bank, tuple(measured))
    return _Rule(facts, rule, at, fitted)


def places(body: keras.Model) -> list[CutPoint]:
    """The depths of a body at which features are measured, from the bottom up; the last one is its end."""
    cuts, shares = all_depths.depths(body), freezing.compute_below(body)
    chosen = {min(range(len(cuts)), key=lambda at: abs(shares[cuts[at].depth] - share)) for share in SHARES}
    return [cuts[at] for at in sorted(chosen | {len(cuts) - 1})]


def _choice(wanted: str, measured: Sequence[LeftOut], layers: Sequence[str]) -> tuple[str, str | None]:
    """The score and its layer: the best one that was measured, of the wanted score or of all."""
    for each in measured:
        if wanted in ("auto", each.score):
            return each.score, each.layer
    score = "combined" if wanted == "auto" else wanted
    return score, layers[min(USUAL, len(layers) - 1)] if evidence.needs_features(score) else None


def _sample(images: Shards, seed: int) -> NDArray[np.int64]:
    """The rows of at most MOST images, ascending, about as many of each class as there can be."""
    labels = images.labels
    if len(labels) <= MOST:
        return np.arange(len(labels))
    chance = np.random.default_rng(seed).permutation(len(labels))
    place = pd.Series(labels[chance]).groupby(labels[chance]).cumcount()
    return np.sort(chance[np.argsort(place.to_numpy(), kind="stable")[:MOST]])


def _arrays(values: Mapping[str, object]) -> dict[str, NDArray[np.float32]]:
    return {name: np.asarray(value) for name, value in values.items()}


def _network(bundle: Bundle, sets: SetFacts | None, rule: _Rule | None) -> keras.Model:
    """The network `answer.keras`, see `models.answers`. It takes what its rules need of features, logits and
    probabilities."""
    units = bundle.model.output.shape[-1]
    with keras_internals.names_from_one():
        given = {answers.PROBABILITIES: keras.Input((units,), name=answers.PROBABILITIES)}
        by_class = answers.by_class(given[answers.PROBABILITIES])
        found = {}
        if sets is not None:
            found[answers.SET] = conformal.sets(sets, by_class)
        if rule is not None:
            if "energy" in rule.score.scales:
                given[answers.LOGITS] = keras.Input((units,), name=answers.LOGITS)
            logits = given.get(answers.LOGITS, given[answers.PROBABILITIES])
            values = evidence.of_outputs(logits, by_class)
            if rule.place is not None and rule.space is not None:
                tensor = rule.place.tensor
                given[answers.FEATURES] = keras.Input(tensor.shape[1:], name=answers.FEATURES)
                pool = all_depths.average(bundles.parts(bundle)[0].model, tensor)
                values |= rule.space.layers(pool(given[answers.FEATURES]))
            score = rule.score.of(values)
            limit = min(rule.facts.threshold, float(np.finfo(np.float32).max))
            found |= {answers.SCORE: score, answers.UNKNOWN: keras.ops.greater(score, limit)}
        return keras.Model(given, found, name="answer")
