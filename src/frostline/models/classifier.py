"""Backbone and head as one model, and the bundle it is saved as.

models/classifier/
├── model.keras    uint8 pictures (n, size, size, 3) -> probabilities; loads with plain Keras, safe mode on
└── bundle.json    classes in label order, image_size, resize, and what the model was made from
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from frostline.core import progress
from frostline.data.shards import Layout, Shards
from frostline.errors import DataError
from frostline.models import backbones, backend, bundles, graph
from frostline.models.backbones import Backbone
from frostline.models.freezing import CutPoint

# What makes a vector of a feature map, by `head.pooling`.
POOLS: dict[str, type[keras.layers.Layer]] = {
    "avg": keras.layers.GlobalAveragePooling2D,
    "max": keras.layers.GlobalMaxPooling2D,
    "flatten": keras.layers.Flatten,
}

# A Dropout layer that is made with rate 0 has no generator of random numbers; this one is replaced at once.
PLACEHOLDER = 0.5

# The day zip files begin with: a bundle's bytes must not tell when it was saved.
ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Head:
    """pool: feature map -> vector; top: vector -> logits (n, units), a Sequential where it is trained as a part of the
    network; units: 1 for a sigmoid, else one a class.

    rates: of the Dropout layers, variables, so that what is compiled for training serves any.
    """

    pool: keras.layers.Layer
    top: keras.Model
    units: int

    @cached_property
    def rates(self) -> dict[str, keras.Variable]:
        """The rate of each Dropout layer, by the layer's name."""
        return {
            layer.name: keras.Variable(layer.rate, trainable=False, name=f"{layer.name}_rate")
            for layer in self.top.layers
            if isinstance(layer, keras.layers.Dropout)
        }

    def set_dropout(self, rates: float | Sequence[float]) -> None:
        """Drop that share, in [0, 1), of the activations in training from here on: one rate, or one for each layer."""
        given = np.broadcast_to(rates, len(self.rates)).tolist()
        for (name, variable), rate in zip(self.rates.items(), given, strict=True):
            variable.assign(rate)
            self.top.get_layer(name).rate = rate


class _Dropout(keras.layers.Layer):
    """One of a head's Dropout layers in training, its rate being the head's variable."""

    def __init__(self, layer: keras.layers.Dropout, rate: keras.Variable) -> None:
        super().__init__()
        self.seed_generator, self.rate = layer.seed_generator, rate
        self.built = True

    def compute_output_spec(self, x: keras.KerasTensor) -> keras.KerasTensor:
        return keras.KerasTensor(x.shape, x.dtype)

    def call(self, x: Any, training: bool | None = None) -> Any:
        if not training:
            return x
        # Keras's own function asks the rate in Python whether it is 0.
        rate = keras.ops.cast(self.rate, x.dtype)
        drawn = keras.random.uniform(keras.ops.shape(x), dtype=x.dtype, seed=self.seed_generator)
        return keras.ops.where(drawn >= rate, x / (1 - rate), keras.ops.zeros_like(x))


@dataclass(frozen=True)
class Bundle:
    """A trained classifier.

    model: pictures (n, size, size, 3) in [0, 255] -> softmax (n, classes) or sigmoid (n, 1).
    """

    model: keras.Model
    layout: Layout
    made_from: dict[str, Any]

    @property
    def temperature(self) -> float:
        """What the model divides its logits by; 1 where it was never calibrated."""
        return float(self.made_from.get("temperature", 1.0))

    @property
    def logits(self) -> keras.Model:
        """What the model computes before temperature and squashing: pictures -> logits (n, units)."""
        named = {layer.name: layer for layer in self.model.layers}
        return keras.Model(self.model.input, named.get("temperature", named["probabilities"]).input)

    def calibrated(self, temperature: float) -> Bundle:
        """The same weights with logits divided by a temperature in (0, inf), whatever they were divided by before."""
        model = squashed(self.logits, temperature)
        return Bundle(model, self.layout, {**self.made_from, "temperature": temperature})

    def probabilities(self, pictures: Shards) -> NDArray[np.float32]:
        """Probabilities by class, float32 (n, classes), of prepared pictures."""
        return by_class(outputs(self.model, pictures))


def outputs(model: keras.Model, pictures: Shards) -> NDArray[np.float32]:
    """What a model of pictures gives for prepared ones, float32 (n, units)."""
    raw = np.empty((len(pictures), model.output.shape[-1]), np.float32)
    size = backend.batch_rows()
    for start in progress.track(range(0, len(pictures), size), len(pictures), "predict", size):
        rows = np.arange(start, min(start + size, len(pictures)))
        raw[rows] = backend.predict(model, pictures.take(rows), size)
    return raw


def by_class(raw: NDArray[np.float32]) -> NDArray[np.float32]:
    """A model's output, (n, units), as probabilities (n, classes): a sigmoid's is that of the second of two."""
    return np.concatenate([1 - raw, raw], axis=1) if raw.shape[1] == 1 else raw


def build_head(
    shape: tuple[int, ...],
    classes: int,
    pooling: str,
    hidden: Sequence[int],
    activation: str,
    binary: bool,
    batch_norm: bool = False,
    l2: float = 0.0,
) -> Head:
    """A head for feature maps of `shape` (height, width, channels), with nothing dropped as yet.

    hidden: widths of Dense layers, each followed by BatchNorm where that is asked for, `activation` and dropout; with
    none, dropout acts on the pooled features. l2: what is added to the loss for each squared kernel weight of a Dense
    layer. binary: one sigmoid unit, for two classes.
    """
    pool = POOLS[pooling](name="pool")
    units = 1 if binary else classes
    # Every name is given: Keras's own are numbered by what the process built before, and would end up in the bundle.
    stack: list[keras.layers.Layer] = [keras.Input(pool.compute_output_shape((None, *shape))[1:], name="pooled")]
    for number, width in enumerate(hidden, 1):
        if batch_norm:
            stack += [
                keras.layers.Dense(width, use_bias=False, kernel_regularizer=_l2(l2), name=f"hidden{number}"),
                keras.layers.BatchNormalization(name=f"norm{number}"),
                keras.layers.Activation(activation, name=f"activation{number}"),
            ]
        else:
            stack.append(
                keras.layers.Dense(width, activation=activation, kernel_regularizer=_l2(l2), name=f"hidden{number}")
            )
        stack.append(keras.layers.Dropout(PLACEHOLDER, name=f"dropout{number}"))
    if not hidden:
        stack.append(keras.layers.Dropout(PLACEHOLDER, name="dropout"))
    stack.append(keras.layers.Dense(units, kernel_regularizer=_l2(l2), name="logits"))
    head = Head(pool, keras.Sequential(stack, name="head"), units)
    head.set_dropout(0.0)
    return head


def _l2(factor: float) -> keras.regularizers.Regularizer | None:
    return keras.regularizers.L2(factor) if factor else None


def segment(backbone: Backbone, head: Head, start: CutPoint | None, end: CutPoint) -> keras.Model:
    """What crosses one cut (None: pictures) -> what crosses a deeper one, in inference mode.

    Behind the last layer, where nothing is left to train, the pooled vector crosses. The weights are copies.
    """
    body = backbone.model
    crossing = _pictures(body) if start is None else keras.Input(start.tensor.shape[1:], name="crossing")
    x = graph.inference_twin(body.input if start is None else start.tensor, end.tensor)(
        backbone.preprocess(crossing) if start is None else crossing
    )
    return keras.Model(crossing, head.pool(x) if _is_end(body, end) else x)


def crossing_shape(backbone: Backbone, head: Head, cut: CutPoint) -> tuple[int, ...]:
    """Shape of what crosses a cut, of one picture."""
    shape = cut.tensor.shape
    return tuple((head.pool.compute_output_shape(shape) if _is_end(backbone.model, cut) else shape)[1:])


def keys(backbone: Backbone, head: Head, cuts: Sequence[CutPoint]) -> list[str]:
    """Digest of all that the features at each cut depend on besides the picture; the engine's version is not in it."""
    pictures = _pictures(backbone.model)
    pooled = head.pool(backbone.model(backbone.preprocess(pictures)))
    found = graph.tensor_keys(keras.Model(pictures, pooled))
    return [found[id(pooled if _is_end(backbone.model, cut) else cut.tensor)] for cut in cuts]


def suffix(
    backbone: Backbone, head: Head, cut: CutPoint | None, augmenter: keras.layers.Layer | None = None
) -> keras.Model:
    """What crosses the cut -> logits; without a cut, pictures -> logits. Shares its layers with the backbone.

    It is for training, after `freezing.freeze`: what is frozen then is computed the quickest way. augmenter: pictures
    -> their variants in training, where there is no cut.
    """
    body = backbone.model
    if cut is None:
        pictures = _pictures(body)
        x = pictures if augmenter is None else augmenter(pictures)
        return keras.Model(pictures, _logits(head, head.pool(graph.Fused(body)(backbone.preprocess(x)))))
    if _is_end(body, cut):
        pooled = keras.Input(crossing_shape(backbone, head, cut), name="crossing")
        return keras.Model(pooled, _logits(head, pooled))
    crossing = keras.Input(cut.tensor.shape[1:], name="crossing")
    rest = graph.Fused(keras.Model(cut.tensor, body.output))
    return keras.Model(crossing, _logits(head, head.pool(rest(crossing))))


def whole(backbone: Backbone, head: Head) -> keras.Model:
    """Pictures -> probabilities, float32 whatever the precision of training; what a bundle is saved as."""
    pictures = _pictures(backbone.model)
    logits = head.top(head.pool(backbone.model(backbone.preprocess(pictures))))
    return squashed(keras.Model(pictures, logits), temperature=1.0)


def squashed(logits: keras.Model, temperature: float) -> keras.Model:
    """A model that gives logits -> one that gives probabilities, float32: a sigmoid of one unit, a softmax of more."""
    x = logits.output
    if temperature != 1:
        x = keras.layers.Rescaling(1 / temperature, dtype="float32", name="temperature")(x)
    squash = keras.layers.Activation(
        "sigmoid" if x.shape[-1] == 1 else "softmax", dtype="float32", name="probabilities"
    )
    return keras.Model(logits.input, squash(x), name="classifier")


def parts(bundle: Bundle) -> tuple[Backbone, Head]:
    """The backbone and head that a bundle was made of, sharing its weights."""
    named = bundle.made_from["backbone"]
    model = bundle.model
    body = next(layer for layer in model.layers if isinstance(layer, keras.Model) and layer.name != "head")
    top = model.get_layer("head")
    backbone = Backbone(named["name"], body, backbones.preprocessing(named["name"]), named["weights"] != "none")
    return backbone, Head(model.get_layer("pool"), top, top.output.shape[-1])


def save(folder: Path, bundle: Bundle) -> None:
    """Write a bundle into an existing folder; its bytes depend on its content alone."""
    path = folder / bundles.MODEL
    bundle.model.save(path)
    _make_reproducible(path)
    description = {
        "classes": list(bundle.layout.classes),
        "image_size": bundle.layout.image_size,
        "resize": bundle.layout.resize,
        "made_from": bundle.made_from,
    }
    bundles.write_account(folder, description)


def load(folder: Path) -> Bundle:
    """Load a bundle, Keras's safe mode on. Raises DataError where the folder holds none."""
    description = bundles.account(folder)
    try:
        model = keras.saving.load_model(folder / bundles.MODEL, compile=False, safe_mode=True)
    except Exception as error:  # whatever Keras trips over in a foreign archive
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{folder}: holds no classifier ({reason}); run `dvc repro`, or name another one") from error
    layout = Layout(tuple(description["classes"]), description["image_size"], description["resize"])
    return Bundle(model, layout, description["made_from"])


def _pictures(body: keras.Model) -> keras.KerasTensor:
    return keras.Input(body.input.shape[1:], dtype="uint8", name="pictures")


def _logits(head: Head, pooled: keras.KerasTensor) -> keras.KerasTensor:
    """What the head makes of the pooled vector in training."""
    if not isinstance(head.top, keras.Sequential):  # one of scikit-learn's classifiers, which is trained already
        return head.top(pooled)
    x = pooled
    for layer in head.top.layers:
        # Dropout layers have a generator, but for those of rate 0 in a bundle that was loaded.
        x = _Dropout(layer, head.rates[layer.name])(x) if hasattr(layer, "seed_generator") else layer(x)
    return x


def _is_end(body: keras.Model, cut: CutPoint) -> bool:
    return cut.tensor is body.output


def _make_reproducible(path: Path) -> None:
    """Rewrite a .keras archive so that its bytes depend on the model alone.

    Keras writes the date, zip writes the time of every member, and objects that are shared are numbered by their
    addresses in memory: the first two go, the third are numbered in the order of their appearance.
    """
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    metadata = json.loads(members["metadata.json"])
    members["metadata.json"] = json.dumps({"keras_version": metadata["keras_version"]}).encode()
    numbers: dict[int, int] = {}

    def renumbered(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return {
            key: numbers.setdefault(value, len(numbers)) if key == "shared_object_id" and value is not None else value
            for key, value in pairs
        }

    members["config.json"] = json.dumps(json.loads(members["config.json"], object_pairs_hook=renumbered)).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name in sorted(members):
            archive.writestr(zipfile.ZipInfo(name, ZIP_EPOCH), members[name])
