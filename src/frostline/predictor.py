"""What a trained classifier says of prepared pictures, with its frozen layers' features out of the store."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from frostline import classifier, engine, features, freezing, planning
from frostline.classifier import Bundle
from frostline.shards import Shards
from frostline.store import Store


def probabilities(bundle: Bundle, pictures: Shards, store: Store, mode: str) -> NDArray[np.float32]:
    """Probabilities by class, float32 (n, classes); as `bundle.probabilities` has them, to about 1e-6.

    Layers that training left as they were have the same features in every trial and every evaluation: they are taken
    from the store, or put there, as `planning.make` finds cheapest. mode: cache.mode.
    """
    backbone, head = classifier.parts(bundle)
    frozen = bundle.made_from["audit"]["frozen_layers"]
    line = freezing.deepest_cut(backbone.model, frozen)
    if line is None or mode == "never":
        return bundle.probabilities(pictures)
    once = planning.Phase("evaluate", line, epochs=1, variants=1)
    rows = planning.make(backbone, head, [once], [pictures], None, store, mode, "float32").rows("evaluate", pictures)
    model = classifier.squashed(head, classifier.suffix(backbone, head, line))
    size = features.batch_rows()
    made = []
    for start in range(0, len(pictures), size):
        there = np.arange(start, min(start + size, len(pictures)))
        made.append(engine.predict(model, rows.take(there), size))
    return classifier.by_class(np.concatenate(made))
