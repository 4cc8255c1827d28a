"""The whole answer of a classifier: probabilities, a prediction set, and whether an image shows none of the classes.

A bundle may have a second network, `answer.keras`, behind its classifier. It takes the features of one depth of the
body, the logits and the probabilities, and says the rest. `load` joins the two, so that the body runs once.

Every registered model contains a copy of this file (see packaging.py), so it imports only Keras, when that is needed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

ACCOUNT, MODEL, ANSWER = "bundle.json", "model.keras", "answer.keras"
FEATURES, LOGITS, PROBABILITIES = "features", "logits", "probabilities"  # the inputs of the second network
SET, SCORE, UNKNOWN = "set", "unknown_score", "unknown"  # its outputs
OTHERS = ("head", "pool")  # the models inside of a classifier that are not its body


def load(folder: Path) -> keras.Model:
    """The whole network of a bundle's folder, in Keras's safe mode: uint8 images (n, size, size, 3) -> a dict.

    `probabilities`: float32 (n, classes), of both classes where the head is one sigmoid unit; if the bundle has them,
    `set`: bool (n, classes), whether a class is in the prediction set; `unknown_score`: float32 (n,), higher for images
    that are less like those of the classes; `unknown`: bool (n,). Raises OSError or ValueError if it is not a bundle.
    """
    return networks(folder)[1]


def networks(folder: Path) -> tuple[keras.Model, keras.Model]:
    """The classifier of a bundle's folder, uint8 images -> softmax (n, classes) or sigmoid (n, 1), and the whole
    network of `load`. They share their layers."""
    import keras

    about = json.loads((folder / ACCOUNT).read_text(encoding="utf-8")).get("answers")
    model = keras.saving.load_model(folder / MODEL, compile=False, safe_mode=True)
    if about is None:
        return model, keras.Model(model.input, {PROBABILITIES: by_class(model.output)}, name="answers")
    answer = keras.saving.load_model(folder / ANSWER, compile=False, safe_mode=True)
    return model, whole(model, answer, (about.get("unknown") or {}).get("layer"))


def whole(model: keras.Model, answer: keras.Model, layer: str | None) -> keras.Model:
    """A classifier and the network behind it as one, see `load`. layer: of the body, whose output `answer` takes."""
    import keras

    body = next(each for each in model.layers if isinstance(each, keras.Model) and each.name not in OTHERS)
    places = [] if layer is None else [operation(body, layer).output]
    x = model.get_layer("preprocess").output
    *features, x = keras.tree.flatten(keras.Model(body.input, [*places, body.output], name=body.name)(x))
    for name in ("pool", "head"):
        x = model.get_layer(name)(x)
    logits = x
    for name in ("temperature", "probabilities"):
        x = model.get_layer(name)(x) if any(each.name == name for each in model.layers) else x
    given = {LOGITS: logits, PROBABILITIES: x} | ({FEATURES: features[0]} if features else {})
    found = answer({name: given[name] for name in answer.input})  # which takes what its rules need
    return keras.Model(model.input, {PROBABILITIES: by_class(x), **found}, name="answers")


def joined(model: keras.Model) -> keras.Model:
    """The network of `load` with one output, float32 (n, columns): the probabilities, then `set` and `unknown` as 0 or
    1, if there are any."""
    import keras

    found, ops = model.output, keras.ops
    parts = [found[PROBABILITIES]]
    if SET in found:
        parts.append(ops.cast(found[SET], "float32"))
    if UNKNOWN in found:
        parts.append(ops.expand_dims(ops.cast(found[UNKNOWN], "float32"), axis=-1))
    return keras.Model(model.input, parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=-1), name="joined")


def operation(body: keras.Model, name: str) -> Any:
    """The layer of a body, or operation such as a sum, with this name."""
    return next(each for each in body.operations if each.name == name)


def by_class(probabilities: keras.KerasTensor) -> keras.KerasTensor:
    """The probabilities of all classes, (n, classes). One sigmoid unit gives that of the second class alone."""
    import keras

    if probabilities.shape[-1] > 1:
        return probabilities
    return keras.ops.concatenate([1 - probabilities, probabilities], axis=-1)
