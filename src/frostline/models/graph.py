"""A functional Keras model as a graph: its nodes in order, what its tensors depend on, and quicker ways to run it."""

from __future__ import annotations

from dataclasses import dataclass
from inspect import signature
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from frostline.core import digest
from frostline.models import backend

FOLDS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D, keras.layers.Dense)


def nodes(model: keras.Model) -> list[Any]:
    """The graph's nodes, one for each call of an operation, in topological order."""
    own = {id(node) for nodes in model._nodes_by_depth.values() for node in nodes}
    return [node for operation in model.operations for node in operation._inbound_nodes if id(node) in own]


def tensor_keys(model: keras.Model, given: dict[int, str] | None = None) -> dict[int, str]:
    """Digest of all that each tensor depends on: the operations before it, their settings, weights and order.

    It is a Merkle tree: a tensor's key is made of its operation and the keys of what goes in. Names don't count,
    nor what is trainable, nor whether a part is wrapped in a model of its own; so the same prefix has the same key in
    whatever model it is met. given: keys of tensors by `id`, for the inputs; an input that is not given is known by
    its shape and dtype. Returns keys by `id` of the tensors, those inside nested models too.
    """
    keys = dict(given or {})
    for node in nodes(model):
        operation = node.operation
        if isinstance(operation, keras.layers.InputLayer):
            tensor = node.output_tensors[0]
            keys.setdefault(id(tensor), digest.of_value(["input", tensor.shape[1:], str(tensor.dtype)]))
            continue
        if isinstance(operation, keras.Model) and hasattr(operation, "operations"):
            fed = zip(operation.inputs, node.input_tensors, strict=True)
            inner = tensor_keys(operation, {id(inside): keys[id(outside)] for inside, outside in fed})
            keys |= inner
            made = [inner[id(tensor)] for tensor in operation.outputs]
        else:
            call = _call(node, keys)
            weights = [digest.of_array(value) for value in backend.values(getattr(operation, "weights", []))]
            base = digest.of_value([_settings(operation), weights, call])
            made = [digest.of_value([base, number]) for number in range(len(node.output_tensors))]
        keys |= {id(tensor): key for tensor, key in zip(node.output_tensors, made, strict=True)}
    return keys


def inference_twin(start: keras.KerasTensor, end: keras.KerasTensor) -> keras.Model:
    """A model of its own that computes from `start` to `end` what inference mode does, faster.

    A BatchNorm whose only input is a convolution (or Dense layer) without activation is folded into it (Jacob et al.,
    "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018, section
    3.2): w' = w * s and b' = (b - mean) * s + beta, where s = gamma / sqrt(variance + epsilon). The weights are copies,
    so the twin is right for as long as the original stands still. Equal to about 1e-6 of the values' size in float32.
    """
    model = keras.Model(start, end)
    folded = _folded_norms(model)
    replaced = {id(norm) for norm in folded.values()}
    by_id = {id(layer): layer for layer in model.layers}
    twins: dict[int, Any] = {}

    def clone(operation: Any) -> Any:
        if id(operation) in replaced or not isinstance(operation, keras.layers.Layer):
            return operation
        if id(operation) not in twins:
            config = operation.get_config()
            if id(operation) in folded:
                config["use_bias"] = True
            twins[id(operation)] = type(operation).from_config(config)
        return twins[id(operation)]

    def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
        return args[0] if id(operation) in replaced else operation(*args, **kwargs)

    twin = keras.models.clone_model(model, clone_function=clone, call_function=call)
    for key, layer in twins.items():
        original = by_id[key]
        values = _fold(original, folded[key]) if key in folded else backend.values(original.weights)
        layer.set_weights(values)
        if hasattr(layer, "finalize_state"):  # a Normalization layer computes with values of its own until then
            layer.finalize_state()
    twin.trainable = False
    return twin


class Fused(keras.layers.Layer):
    """A model that trains, with its frozen BatchNorm layers computed as part of the convolutions before them.

    BatchNorm that stands still is y = s * x + t with constants s and t for each channel. Behind a convolution, s is
    multiplied into the kernel for the time of the step, which is one small product instead of two passes over a large
    tensor, there and on the way back. The convolution's own kernel is what is trained, by the same gradient. Equal to
    the model itself to rounding. Norms that are `trainable` when this is made are left as they are; what the others
    hold by then is what they go on with.
    """

    def __init__(self, model: keras.Model) -> None:
        super().__init__()
        self.model = model
        found = _folded_norms(model)
        self.norms = {layer: norm for layer, norm in found.items() if not norm.trainable}
        self._still = {layer: _Still.of(norm) for layer, norm in self.norms.items()}
        self.built = True

    def compute_output_spec(self, x: keras.KerasTensor) -> keras.KerasTensor:
        output = self.model.outputs[0]
        return keras.KerasTensor((x.shape[0], *output.shape[1:]), output.dtype)

    def call(self, x: Any, training: bool | None = None) -> Any:
        taken_in = {id(norm) for norm in self.norms.values()}
        tensors = {id(self.model.inputs[0]): x}
        for node in nodes(self.model):
            operation = node.operation
            if isinstance(operation, keras.layers.InputLayer):
                continue
            args, kwargs = node.arguments.fill_in(tensors)
            if id(operation) in taken_in:
                out = args[0]
            elif id(operation) in self.norms:
                out = _scaled(operation, self._still[id(operation)], args[0])
            else:
                if "training" in signature(operation.call).parameters:
                    kwargs["training"] = training  # in place of that of the call which made the node
                out = operation(*args, **kwargs)
            made = zip(node.output_tensors, keras.tree.flatten(out), strict=True)
            tensors |= {id(tensor): value for tensor, value in made}
        return tensors[id(self.model.outputs[0])]


@dataclass(frozen=True)
class _Still:
    """A BatchNorm that stands still, scale * (x - mean) + beta, as arrays over its channels: no part of the step."""

    scale: NDArray[np.float32]
    mean: NDArray[np.float32]
    beta: NDArray[np.float32]

    @classmethod
    def of(cls, norm: Any) -> _Still:
        scale = keras.ops.rsqrt(norm.moving_variance + norm.epsilon)
        scale = np.asarray(scale * norm.gamma if norm.scale else scale)
        mean = np.asarray(norm.moving_mean)
        return cls(scale, mean, np.asarray(norm.beta) if norm.center else np.zeros_like(mean))

    def shift(self, layer: Any) -> Any:
        """What is added behind the scaled layer. Its bias may be trained, so what depends on it is."""
        if layer.use_bias:
            return (layer.bias - self.mean) * self.scale + self.beta
        return self.beta - self.mean * self.scale


def _scaled(layer: Any, norm: _Still, x: Any) -> Any:
    """What a layer and the frozen BatchNorm behind it make of x."""
    ops = keras.ops
    dtype = layer.compute_dtype
    x, scale, shift = (ops.cast(value, dtype) for value in (x, norm.scale, norm.shift(layer)))
    if isinstance(layer, keras.layers.Dense):
        return backend.add_bias(ops.matmul(x, ops.cast(layer.kernel, dtype) * scale), shift)
    how = {name: getattr(layer, name) for name in ("strides", "padding", "dilation_rate", "data_format")}
    if isinstance(layer, keras.layers.SeparableConv2D):
        pointwise = ops.cast(layer.pointwise_kernel, dtype) * scale
        return backend.add_bias(ops.separable_conv(x, ops.cast(layer.depthwise_kernel, dtype), pointwise, **how), shift)
    kernel = ops.cast(layer.kernel, dtype)
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        return backend.add_bias(ops.depthwise_conv(x, kernel * ops.reshape(scale, kernel.shape[-2:]), **how), shift)
    return backend.add_bias(ops.conv(x, kernel * scale, **how), shift)


def _folded_norms(model: keras.Model) -> dict[int, Any]:
    """The BatchNorm layer that each layer can take in, by the layer's id."""
    readers: dict[int, list[Any]] = {}
    calls: dict[int, int] = {}
    for node in nodes(model):
        calls[id(node.operation)] = calls.get(id(node.operation), 0) + 1
        for tensor in node.input_tensors:
            readers.setdefault(id(tensor), []).append(node.operation)
    pairs = {}
    for node in nodes(model):
        layer = node.operation
        after = readers.get(id(node.output_tensors[0]), [])
        if (
            type(layer) in FOLDS
            and layer.activation is keras.activations.linear
            and len(after) == 1
            and type(after[0]) is keras.layers.BatchNormalization
            and after[0].axis in (-1, len(node.output_tensors[0].shape) - 1)
            and calls[id(layer)] == calls[id(after[0])] == 1
            and getattr(layer, "data_format", "channels_last") == "channels_last"
            and node.output_tensors[0] is not model.outputs[0]
        ):
            pairs[id(layer)] = after[0]
    return pairs


def _fold(layer: Any, norm: Any) -> list[np.ndarray]:
    """The weights of a layer that has taken in the BatchNorm behind it; computed in float64, given in float32."""
    mean, variance = (np.asarray(value, np.float64) for value in (norm.moving_mean, norm.moving_variance))
    scale = 1 / np.sqrt(variance + norm.epsilon)
    if norm.scale:
        scale = scale * np.asarray(norm.gamma, np.float64)
    shift = np.asarray(norm.beta, np.float64) if norm.center else 0.0
    *others, kernel, bias = (*layer.weights, None) if not layer.use_bias else layer.weights
    before = np.asarray(bias, np.float64) if bias is not None else 0.0
    scaled = np.asarray(kernel, np.float64)
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        scaled = scaled * scale.reshape(scaled.shape[-2:])
    else:
        scaled = scaled * scale
    values = [*(np.asarray(weight) for weight in others), scaled, (before - mean) * scale + shift]
    return [value.astype(np.float32) for value in values]


def _call(node: Any, keys: dict[int, str]) -> Any:
    """What an operation was called with: tensors by their keys."""
    given = {name: value for name, value in node.arguments.kwargs.items() if value is not None}
    return keras.tree.map_structure(
        lambda value: keys[id(value)] if isinstance(value, keras.KerasTensor) else repr(value),
        [node.arguments.args, given],
    )


def _settings(operation: Any) -> Any:
    """An operation's class and configuration, without its names and without what only training reads."""
    serialized = keras.saving.serialize_keras_object(operation)
    return _without(serialized, {"name", "trainable", "build_config", "shared_object_id", "registered_name"})


def _without(part: Any, keys: set[str]) -> Any:
    if isinstance(part, dict):
        return {key: _without(value, keys) for key, value in part.items() if key not in keys}
    if isinstance(part, (list, tuple)):
        return [_without(value, keys) for value in part]
    return part if isinstance(part, (str, int, float, bool, type(None))) else repr(part)
