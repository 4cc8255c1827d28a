"""The freeze line: which layers of a backbone stand still, where the graph can be cut, and the proof that they did.

A freeze rule counts layers as Python slices do (`5` is `layers[:5]`, `-15` is `layers[:-15]`). A *cut point* is a
tensor that is the only live one at its place in the graph: before it lies the prefix, behind it the suffix.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from frostline.core import digest, suggest
from frostline.errors import InternalError, ParamsError
from frostline.models import backend, graph
from frostline.models.made_from import Audit

Freeze = int | str | list[int | str]

# What may be said beside a line, or instead of one.
WORDS = ("gradual", "discriminative")

# What layers call the rate of what they drop: Dropout, and ConvNeXt's StochasticDepth.
NOISE = ("rate", "drop_path_rate")


@dataclass(frozen=True)
class CutPoint:
    """A place to cut.

    depth: layers before the cut, so `layers[:depth]` is the prefix; layer: name of the layer before it, or of the
    operation, as of ConvNeXt's sums; tensor: what crosses it.
    """

    depth: int
    layer: str
    tensor: keras.KerasTensor


@dataclass(frozen=True)
class FreezeRule:
    """What `finetune.freeze` says. line: `none`, `all`, a number or a layer's name; is_gradual: what is above the line
    thaws block by block from the top (Howard & Ruder, "Universal Language Model Fine-tuning for Text Classification",
    ACL 2018, section 3.3); is_discriminative: each block learns slower than the one above it (section 3.2)."""

    line: int | str
    is_gradual: bool
    is_discriminative: bool


def parse(freeze: Freeze) -> FreezeRule:
    """The rule that params.yaml describes: a line, `gradual`, `discriminative`, or a list of several of these; without
    a line, nothing stays frozen. Raises ParamsError for a list with two lines."""
    given = freeze if isinstance(freeze, list) else [freeze]
    lines = [one for one in given if one not in WORDS]
    if len(lines) > 1:
        raise ParamsError(
            f"params.yaml: finetune.freeze {freeze!r} names {len(lines)} lines; give one of them, with "
            f"{' and '.join(WORDS)} as you like"
        )
    return FreezeRule(lines[0] if lines else "none", WORDS[0] in given, WORDS[1] in given)


def depth(model: keras.Model, freeze: Freeze) -> int:
    """How many of `model.layers` the rule leaves frozen in the end, 0 to len(layers).

    freeze: `none`, `all`, an integer with a slice's meaning, a layer's or operation's name (frozen up to and including
    it), or what else `parse` reads. Raises ParamsError for a name that no layer has, and for one that `backbone.until`
    cut away.
    """
    freeze = parse(freeze).line
    total = len(model.layers)
    if isinstance(freeze, int):
        return len(range(total)[:freeze])
    if freeze in {"none", "all"}:
        return total if freeze == "all" else 0
    names = [operation.name for operation in model.operations]
    if freeze in names:
        before = model.operations[: names.index(freeze) + 1]
        return sum(isinstance(operation, keras.layers.Layer) for operation in before)
    if freeze in _cut_away(model):
        raise ParamsError(
            f"params.yaml: finetune.freeze {freeze!r} lies behind {names[-1]!r}, where backbone.until cuts; name a "
            "layer up to that one in finetune.freeze, or a deeper one in backbone.until"
        )
    raise ParamsError(
        f"params.yaml: finetune.freeze {freeze!r} is not a layer of {model.name}; use none, all, a number, "
        f"gradual, discriminative or a layer's name ({suggest.hint(freeze, names, cutoff=0.0)})"
    )


def _cut_away(model: keras.Model) -> set[str]:
    """Names of the operations behind the output of a body that was cut out of a larger network."""
    found: dict[str, Any] = {}
    ahead = [model.output._keras_history.operation]
    while ahead:
        after = [node.operation for node in ahead.pop()._outbound_nodes]
        ahead += [operation for operation in after if operation.name not in found]
        found |= {operation.name: operation for operation in after}
    return set(found)


def cut_points(model: keras.Model) -> list[CutPoint]:
    """All cut points of a functional model in topological order; the last one is its output.

    A tensor is a cut point when it is the only live one: produced, and still needed further on.
    """
    nodes = graph.nodes(model)
    last_use = {id(tensor): place for place, node in enumerate(nodes) for tensor in node.input_tensors}
    last_use[id(model.outputs[0])] = len(nodes)
    cuts = []
    live: set[int] = set()
    layers = 0
    for place, node in enumerate(nodes):
        layers += isinstance(node.operation, keras.layers.Layer)
        live = {tensor for tensor in live | {id(t) for t in node.output_tensors} if last_use.get(tensor, -1) > place}
        if place > 0 and live == {id(node.output_tensors[0])}:
            cuts.append(CutPoint(layers, node.operation.name, node.output_tensors[0]))
    return cuts


def deepest_cut(model: keras.Model, frozen: int) -> CutPoint | None:
    """The last cut point with nothing but frozen layers before it; None where not even the first layer is frozen."""
    return next((cut for cut in reversed(cut_points(model)) if cut.depth <= frozen), None)


def frozen_share(model: keras.Model, rule: Freeze) -> float:
    """Which share of the backbone's parameters a freeze rule leaves untrained, 0 to 1."""
    counts = [layer.count_params() for layer in model.layers]
    return float(sum(counts[: depth(model, rule)]) / max(1, sum(counts)))


def spread(model: keras.Model, count: int) -> list[int | str]:
    """`count` freeze rules from `none` to `all`, spread evenly by the compute that they leave to be trained.

    Of the cut points near an even place the one with the smallest tensor is taken, quickest to store and to read; of
    several the deepest.
    Fewer where the model has fewer cut points.
    """
    cuts = cut_points(model)
    work = np.cumsum([_multiplications(layer) for layer in model.layers], dtype=float)
    inner = {cut.depth: work[cut.depth - 1] / work[-1] for cut in cuts if cut.depth < len(model.layers)}
    size = {cut.depth: int(np.prod(cut.tensor.shape[1:])) for cut in cuts}
    chosen: list[int] = []
    for share in np.linspace(0, 1, count)[1:-1]:
        near = [depth for depth in inner if abs(inner[depth] - share) <= 0.25 / (count - 1) and depth not in chosen]
        if not near:
            near = sorted(inner.keys() - set(chosen), key=lambda depth: abs(inner[depth] - share))[:1]
        chosen += [min(near, key=lambda depth: (size[depth], -depth))] if near else []
    names = {cut.depth: cut.layer for cut in cuts}
    return ["none", *(names[depth] for depth in sorted(chosen)), "all"]


def freeze(model: keras.Model, frozen: int, train_batch_norm: bool) -> None:
    """Set what is trained: nothing in `layers[:frozen]`; above it everything, BatchNorm only where that is asked for.

    A BatchNorm layer with `trainable = False` also runs in inference mode, which `base(x, training=False)` does not
    ensure: `fit` overrides that argument. Models must be compiled after this call, or it has no effect.
    """
    for place, layer in enumerate(model.layers):
        is_norm = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = place >= frozen and (train_batch_norm or not is_norm)


@contextmanager
def without_noise(model: keras.Model, frozen: int) -> Iterator[None]:
    """Keep Dropout and drop-connect below the line from acting while the block trains.

    Freezing does not silence them. Their rates are put back afterwards, so that the saved model is as it was.
    """
    noisy = [(layer, key) for layer in model.layers[:frozen] for key in NOISE if getattr(layer, key, 0)]
    rates = [getattr(layer, key) for layer, key in noisy]
    for layer, key in noisy:
        setattr(layer, key, 0.0)
    try:
        yield
    finally:
        for (layer, key), rate in zip(noisy, rates, strict=True):
            setattr(layer, key, rate)


def fingerprint(model: keras.Model) -> dict[str, str]:
    """Digest of every weight that must not change, by its path."""
    weights = _frozen_weights(model)
    return {w.path: digest.of_array(value) for w, value in zip(weights, backend.values(weights), strict=True)}


def audit(body: keras.Model, whole: keras.Model, frozen: int, before: dict[str, str]) -> Audit:
    """Prove that training moved no frozen weight, and count what stood still.

    body: the backbone; whole: backbone and head; before: `fingerprint(body)` from before training.
    Raises InternalError where a frozen weight differs in a single bit.
    """
    after = fingerprint(body)
    moved = sorted(path for path, value in before.items() if after.get(path) != value)
    if moved:
        raise InternalError(
            f"{len(moved)} of {len(before)} frozen weights changed in training, the first is {moved[0]}"
        )
    norms = [layer for layer in body.layers if isinstance(layer, keras.layers.BatchNormalization)]
    trainable = sum(int(np.prod(weight.shape)) for weight in whole.trainable_weights)
    return Audit(
        layers=len(body.layers),
        frozen_layers=frozen,
        frozen_parameters=int(whole.count_params()) - trainable,
        trainable_parameters=trainable,
        batch_norm_layers=len(norms),
        batch_norm_training=sum(layer.trainable for layer in norms),
        frozen_weights_unchanged=len(before),
    )


def _multiplications(layer: keras.layers.Layer) -> float:
    """Multiply-adds of a layer with kernels, for one image; 0 for others."""
    kernels = [weight for weight in layer.weights if "kernel" in weight.name]
    shape = layer.output.shape if kernels else ()
    places = np.prod(shape[1:-1]) if len(shape) > 2 else 1.0
    return float(sum(places * np.prod(kernel.shape) for kernel in kernels))


def _frozen_weights(model: keras.Model) -> list[keras.Variable]:
    """The weights of layers that are switched off; a training BatchNorm's moving statistics are not among them."""
    return [weight for layer in model.layers if not layer.trainable for weight in layer.weights]
