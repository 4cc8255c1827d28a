"""The predictions of a trained classifier for prepared images, with stored features of its frozen layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from frostline.core import progress
from frostline.data.shards import Rows, Shards
from frostline.features import extraction, planning, prefix
from frostline.features.elsewhere import RemoteNetwork
from frostline.features.store import Store
from frostline.models import answers as names
from frostline.models import assembly, backend, bands, bundles, freeze_rules, freezing
from frostline.models.answer_facts import Answers
from frostline.models.bundles import Bundle

CHUNK = 4096  # images whose features are in memory at once


def probabilities(bundle: Bundle, images: Shards, store: Store, mode: str) -> NDArray[np.float32]:
    """The probabilities of each class, float32 (n, classes), equal to `bundle.probabilities` to about 1e-6.

    Frozen layers give the same features in every trial and every evaluation. They are taken from the store, or put
    there, if `planning.make` finds that cheapest. mode: cache.mode.
    """

    def squashed(logits: keras.Model) -> keras.Model:
        return assembly.squashed(logits, bundle.temperature)

    return assembly.by_class(_run(bundle, squashed, images, store, mode))


def logits(bundle: Bundle, images: Shards, store: Store, mode: str) -> NDArray[np.float32]:
    """The logits before any temperature: float32 (n, classes), or (n, 1) of a sigmoid."""
    return _run(bundle, lambda logits: logits, images, store, mode)


def outputs(bundle: Bundle, images: Shards, store: Store, mode: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """`logits` and `probabilities` in one run."""

    def both(logits: keras.Model) -> keras.Model:
        squashed = assembly.squashed(logits, bundle.temperature).output
        return keras.Model(logits.input, keras.layers.Concatenate(dtype="float32")([logits.output, squashed]))

    raw = _run(bundle, both, images, store, mode)
    units = raw.shape[1] // 2
    return raw[:, :units], assembly.by_class(raw[:, units:])


def answers(bundle: Bundle, images: Shards, store: Store, mode: str) -> Answers:
    """All that the classifier says of prepared images, equal to `models.answers.load` to about 1e-6."""
    if bundle.answer is None:
        return Answers(probabilities(bundle, images, store, mode))
    logits, by_class = outputs(bundle, images, store, mode)
    given: dict[str, Callable[[NDArray[np.int64]], NDArray[Any]]] = {
        names.LOGITS: logits.__getitem__,
        names.PROBABILITIES: by_class[:, -logits.shape[1] :].__getitem__,
    }
    network, unknown = bundle.answer.network, bundle.answer.facts.unknown
    inputs = dict(network.input)
    if unknown is not None and unknown.layer is not None:
        inputs[names.FEATURES] = network.get_layer("pool").output  # which is what the extractor gives
        given[names.FEATURES] = _features(bundle, unknown.layer, images, store, mode).take
    behind = keras.Model(list(inputs.values()), network.output)
    parts = []
    for start in range(0, len(images), CHUNK):
        rows = np.arange(start, min(start + CHUNK, len(images)))
        batch = [given[name](rows) for name in inputs]
        parts.append(behind.predict(batch, batch_size=backend.batch_rows(), verbose=0))
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return Answers(by_class, found.get(names.SET), found.get(names.UNKNOWN), found.get(names.SCORE))


def _features(bundle: Bundle, layer: str, images: Shards, store: Store, mode: str) -> Rows:
    """The pooled features of a layer. They are stored if the layer is frozen."""
    backbone, _ = bundles.parts(bundle)
    place = next(cut for cut in freezing.cut_points(backbone.model) if cut.layer == layer)
    is_kept = place.depth <= bundle.made_from.audit.frozen_layers and mode != "never"
    return extraction.extractor(backbone, layer, "avg").rows(images, store if is_kept else None)


def _run(
    bundle: Bundle, ending: Callable[[keras.Model], keras.Model], images: Shards, store: Store, mode: str
) -> NDArray[np.float32]:
    """The output of the bundle's model with `ending` behind its logits.

    An executor of the store computes the whole network, without stored features.
    """
    if store.executor is not None:
        network = RemoteNetwork.of(images, [ending(bundle.logits)])
        size = backend.batch_rows()
        parts = [np.arange(start, min(start + size, len(images))) for start in range(0, len(images), size)]
        results = progress.track(store.executor.map(network, parts, on_gpu=True), len(images), "predict", size)
        return np.concatenate(list(results)).astype(np.float32, copy=False)
    backbone, head = bundles.parts(bundle)
    source = prefix.FeatureSource(backbone, head)
    settings = bundle.made_from.finetune
    rule = freeze_rules.parse(settings["freeze"], settings.get("train"))
    is_line = rule.band is None or bundle.made_from.ingredients > 0  # a soup is frozen below its lowest line
    start = bundle.made_from.audit.frozen_layers if is_line else bands.of_rule(backbone.model, rule).start
    line = freezing.deepest_cut(backbone.model, start)
    if line is None:
        return assembly.outputs(ending(bundle.logits), images)
    once = planning.Demand("evaluate", line, epochs=1, variants={0})
    rows = planning.make(source, [once], [images], None, store, mode, "float32").rows("evaluate", images)
    return assembly.outputs(ending(assembly.suffix(backbone, head, line)), rows)
