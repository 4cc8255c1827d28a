"""The freeze line: which layers of a backbone are frozen, where the graph can be cut, and the proof that they stayed.

A freeze rule counts layers like a Python slice (`5` is `layers[:5]`, `-15` is `layers[:-15]`). A *cut point* is a
tensor that is the only live one at its place in the graph: the prefix is before it, the suffix behind it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from frostline.core import digest
from frostline.errors import InternalError
from frostline.models import backend, freeze_rules, keras_internals
from frostline.models.freeze_rules import Band, Freeze
from frostline.models.made_from import Audit

# The attributes with a layer's drop rate: of Dropout, and of ConvNeXt's StochasticDepth.
NOISE = ("rate", "drop_path_rate")


@dataclass(frozen=True)
class CutPoint:
    """A place where the graph can be cut.

    depth: number of layers before the cut, so `layers[:depth]` is the prefix; layer: name of the layer before it, or of
    an operation, such as a sum of ConvNeXt; tensor: the tensor that crosses the cut.
    """

    depth: int
    layer: str
    tensor: keras.KerasTensor


def depth(model: keras.Model, freeze: Freeze) -> int:
    """How many of `model.layers` stay frozen until the end of training, 0 to len(layers).

    freeze: `none`, `all`, an integer with the meaning of a slice, a share of the compute such as `60%` (the cut point
    nearest to it), the name of a layer or operation (frozen up to and including it), or any other rule that
    `freeze_rules.parse` reads. Raises ParamsError for a name that no layer has, and for a layer that `backbone.until`
    cut away.
    """
    line = freeze_rules.parse(freeze).line
    total = len(model.layers)
    if isinstance(line, int):
        return len(range(total)[:line])
    if line in {"none", "all"}:
        return total if line == "all" else 0
    if (share := freeze_rules.share(line)) is not None:
        shares = compute_below(model)
        depths = [0, *(cut.depth for cut in cut_points(model))] if share else [0]
        return min(reversed(depths), key=lambda depth: abs(shares[depth] - share))  # the deepest of several
    names = [operation.name for operation in model.operations]
    if line in names:
        before = model.operations[: names.index(line) + 1]
        return sum(isinstance(operation, keras.layers.Layer) for operation in before)
    if line in _cut_away(model):
        raise freeze_rules.behind_the_cut(line, names[-1])
    raise freeze_rules.unknown_layer(line, model.name, names)


def _cut_away(model: keras.Model) -> set[str]:
    """Names of the operations behind the output of a body that is part of a larger network."""
    operations: dict[str, Any] = {}
    ahead = [keras_internals.producer(model.output)]
    while ahead:
        after = keras_internals.consumers(ahead.pop())
        ahead += [operation for operation in after if operation.name not in operations]
        operations |= {operation.name: operation for operation in after}
    return set(operations)


def cut_points(model: keras.Model) -> list[CutPoint]:
    """All cut points of a functional model in topological order, one for each depth; the last one is its output.

    A tensor is a cut point when it is the only live one: produced, and still needed further on. It must have one row
    for each image, which windows of a Swin transformer have not.
    """
    nodes = keras_internals.nodes(model)
    rows = keras_internals.rows_per_image(model)
    last_use = {id(tensor): place for place, node in enumerate(nodes) for tensor in node.input_tensors}
    last_use[id(model.outputs[0])] = len(nodes)
    cuts: list[CutPoint] = []
    live: set[int] = set()
    layers = 0
    for place, node in enumerate(nodes):
        layers += isinstance(node.operation, keras.layers.Layer)
        live = {tensor for tensor in live | {id(t) for t in node.output_tensors} if last_use.get(tensor, -1) > place}
        if place > 0 and live == {id(node.output_tensors[0])} and rows[id(node.output_tensors[0])] == 1:
            if cuts and cuts[-1].depth == layers:
                cuts.pop()
            cuts.append(CutPoint(layers, node.operation.name, node.output_tensors[0]))
    return cuts


def deepest_cut(model: keras.Model, frozen: int) -> CutPoint | None:
    """The last cut point that has only frozen layers before it; None if there is no such cut point."""
    return next((cut for cut in reversed(cut_points(model)) if cut.depth <= frozen), None)


def frozen_share(model: keras.Model, rule: Freeze) -> float:
    """The share of the backbone's parameters that a freeze rule does not train, 0 to 1."""
    counts = [layer.count_params() for layer in model.layers]
    return float(sum(counts[: depth(model, rule)]) / max(1, sum(counts)))


def compute_below(model: keras.Model) -> NDArray[np.float64]:
    """The share of the backbone's multiply-adds in `layers[:depth]`, for each depth from 0 to len(layers)."""
    work = np.cumsum([0.0, *(multiply_adds(layer) for layer in model.layers)])
    shares: NDArray[np.float64] = work / max(work[-1], 1.0)
    return shares


def spread(model: keras.Model, count: int) -> list[int | str]:
    """`count` freeze rules from `none` to `all`, spread evenly by the compute of their trained layers.

    Of the cut points near an even place, it takes the one with the smallest tensor, which is the fastest to store and
    read; of several, the deepest one. It returns fewer rules if the model has fewer cut points.
    """
    cuts = cut_points(model)
    shares = compute_below(model)
    inner = {cut.depth: shares[cut.depth] for cut in cuts if cut.depth < len(model.layers)}
    size = {cut.depth: int(np.prod(cut.tensor.shape[1:])) for cut in cuts}
    depths: list[int] = []
    for share in np.linspace(0, 1, count)[1:-1]:
        near = [depth for depth in inner if abs(inner[depth] - share) <= 0.25 / (count - 1) and depth not in depths]
        if not near:
            near = sorted(inner.keys() - set(depths), key=lambda depth: abs(inner[depth] - share))[:1]
        depths += [min(near, key=lambda depth: (size[depth], -depth))] if near else []
    names = {cut.depth: cut.layer for cut in cuts}
    return ["none", *(names[depth] for depth in sorted(depths)), "all"]


def freeze(model: keras.Model, band: Band, train_batch_norm: bool) -> None:
    """Train the layers of a band and freeze all others. BatchNorm layers train only if `train_batch_norm` is true.

    A BatchNorm layer with `trainable = False` also runs in inference mode, which `base(x, training=False)` does not
    ensure: `fit` overrides that argument. Models must be compiled after this call, otherwise it has no effect.
    """
    for place, layer in enumerate(model.layers):
        is_norm = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = place in band.places and (train_batch_norm or not is_norm)


@contextmanager
def without_noise(model: keras.Model, band: Band) -> Iterator[None]:
    """Switch off Dropout and drop-connect in the layers outside of a band inside this block.

    Freezing does not switch them off. Their rates are restored afterwards, so that the saved model has them.
    """
    frozen = [layer for place, layer in enumerate(model.layers) if place not in band.places]
    inside = list(keras_internals.all_layers(frozen))
    noisy = [(layer, key) for layer in inside for key in NOISE if getattr(layer, key, 0)]
    rates = [getattr(layer, key) for layer, key in noisy]
    for layer, key in noisy:
        setattr(layer, key, 0.0)
    try:
        yield
    finally:
        for (layer, key), rate in zip(noisy, rates, strict=True):
            setattr(layer, key, rate)


def fingerprint(model: keras.Model) -> dict[str, str]:
    """The digest of every weight that must not change, by the weight's path."""
    weights = _frozen_weights(model)
    return {w.path: digest.of_array(value) for w, value in zip(weights, backend.values(weights), strict=True)}


def audit(body: keras.Model, whole: keras.Model, band: Band, before: dict[str, str]) -> Audit:
    """Check that training changed no frozen weight, and count the frozen layers and parameters.

    body: the backbone; whole: backbone and head; band: the trained layers; before: `fingerprint(body)` from before
    training. Raises InternalError if a frozen weight differs in a single bit.
    """
    after = fingerprint(body)
    changed_paths = sorted(path for path, value in before.items() if after.get(path) != value)
    if changed_paths:
        raise InternalError(
            f"{len(changed_paths)} of {len(before)} frozen weights changed in training, the first is {changed_paths[0]}"
        )
    norms = [layer for layer in body.layers if isinstance(layer, keras.layers.BatchNormalization)]
    trainable = sum(int(np.prod(weight.shape)) for weight in whole.trainable_weights)
    return Audit(
        layers=len(body.layers),
        frozen_layers=band.frozen,
        frozen_parameters=int(whole.count_params()) - trainable,
        trainable_parameters=trainable,
        batch_norm_layers=len(norms),
        batch_norm_training=sum(layer.trainable for layer in norms),
        frozen_weights_unchanged=len(before),
    )


def multiply_adds(layer: keras.layers.Layer) -> float:
    """The number of multiply-adds of a layer's kernels for one image; 0 for a layer without kernels."""
    kernels = [weight for weight in layer.weights if "kernel" in weight.name]
    shape = layer.output.shape if kernels else ()
    places = np.prod(shape[1:-1]) if len(shape) > 2 else 1.0
    return float(sum(places * np.prod(kernel.shape) for kernel in kernels))


def _frozen_weights(model: keras.Model) -> list[keras.Variable]:
    """The weights of frozen layers. The moving statistics of a BatchNorm layer that trains are not included."""
    return [weight for layer in model.layers if not layer.trainable for weight in layer.weights]
