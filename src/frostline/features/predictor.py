"""What a trained classifier says of prepared images, with its frozen layers' features out of the store."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
from numpy.typing import NDArray

from frostline.data.shards import Shards
from frostline.features import planning, prefix
from frostline.features.store import Store
from frostline.models import assembly, backend, bundles, freezing
from frostline.models.bundles import Bundle


def probabilities(bundle: Bundle, images: Shards, store: Store, mode: str) -> NDArray[np.float32]:
    """Probabilities by class, float32 (n, classes); as `bundle.probabilities` has them, to about 1e-6.

    Layers that training left as they were have the same features in every trial and every evaluation: they are taken
    from the store, or put there, as `planning.make` finds cheapest. mode: cache.mode.
    """

    def squashed(logits: keras.Model) -> keras.Model:
        return assembly.squashed(logits, bundle.temperature)

    return assembly.by_class(_run(bundle, squashed, images, store, mode))


def logits(bundle: Bundle, images: Shards, store: Store, mode: str) -> NDArray[np.float32]:
    """What the probabilities are made of, before any temperature: float32 (n, classes), or (n, 1) of a sigmoid."""
    return _run(bundle, lambda logits: logits, images, store, mode).astype(np.float32)


def _run(
    bundle: Bundle, ending: Callable[[keras.Model], keras.Model], images: Shards, store: Store, mode: str
) -> NDArray[np.float32]:
    """The output of the bundle's model with another ending behind its logits."""
    backbone, head = bundles.parts(bundle)
    source = prefix.FeatureSource(backbone, head)
    line = freezing.deepest_cut(backbone.model, bundle.made_from.audit.frozen_layers)
    if line is None:
        return assembly.outputs(ending(bundle.logits), images)
    once = planning.Demand("evaluate", line, epochs=1, variants={0})
    rows = planning.make(source, [once], [images], None, store, mode, "float32").rows("evaluate", images)
    model = ending(assembly.suffix(backbone, head, line))
    size = backend.batch_rows()
    made = []
    for start in range(0, len(images), size):
        there = np.arange(start, min(start + size, len(images)))
        made.append(backend.predict(model, rows.take(there), size))
    return np.concatenate(made)
