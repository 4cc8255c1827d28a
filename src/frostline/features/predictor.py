"""The predictions of a trained classifier for prepared images, with stored features of its frozen layers."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
from numpy.typing import NDArray

from frostline.core import progress
from frostline.data.shards import Shards
from frostline.features import planning, prefix
from frostline.features.elsewhere import RemoteNetwork
from frostline.features.store import Store
from frostline.models import assembly, backend, bands, bundles, freeze_rules, freezing
from frostline.models.bundles import Bundle


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
