"""A functional Keras model as a graph: its nodes in order, digests of its tensors, and faster ways to run it."""

from __future__ import annotations

from dataclasses import dataclass
from inspect import signature
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from frostline.core import digest
from frostline.models import backend, keras_internals

FOLDS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D, keras.layers.Dense)


def tensor_keys(model: keras.Model, input_keys: dict[int, str] | None = None) -> dict[int, str]:
    """The key of each tensor: a digest of the operations before it, their settings, weights and order.

    It is a Merkle tree: the key of a tensor is a digest of its operation and the keys of the inputs. It does not depend
    on names, on what is trainable, or on whether a part is wrapped in a nested model, so the same prefix has the same
    key in every model. input_keys: the keys of inputs by `id` of the tensor; the key of any other input depends on its
    shape and dtype. Returns keys by `id` of the tensors, including those inside nested models.
    """
    keys = dict(input_keys or {})
    for node in keras_internals.nodes(model):
        operation = node.operation
        if isinstance(operation, keras.layers.InputLayer):
            tensor = node.output_tensors[0]
            keys.setdefault(id(tensor), digest.of_value(["input", tensor.shape[1:], str(tensor.dtype)]))
            continue
        if isinstance(operation, keras.Model) and hasattr(operation, "operations"):
            pairs = zip(operation.inputs, node.input_tensors, strict=True)
            inner = tensor_keys(operation, {id(inside): keys[id(outside)] for inside, outside in pairs})
            keys |= inner
            output_keys = [inner[id(tensor)] for tensor in operation.outputs]
        else:
            call = _call(node, keys)
            weights = [digest.of_array(value) for value in backend.values(getattr(operation, "weights", []))]
            base = digest.of_value([_settings(operation), weights, call])
            output_keys = [digest.of_value([base, number]) for number in range(len(node.output_tensors))]
        keys |= {id(tensor): key for tensor, key in zip(node.output_tensors, output_keys, strict=True)}
    return keys


def inference_twin(start: keras.KerasTensor, end: keras.KerasTensor) -> keras.Model:
    """A separate, faster model that computes the same as inference mode from `start` to `end`.

    A BatchNorm whose only input is a convolution (or Dense layer) without activation is folded into it (Jacob et al.,
    "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018, section
    3.2): w' = w * s and b' = (b - mean) * s + beta, where s = gamma / sqrt(variance + epsilon). The weights are copies,
    so the twin is valid as long as the original does not change. It is equal to about 1e-6 of the values' size in
    float32.
    """
    model = keras.Model(start, end)
    norms = _foldable_norms(model)
    norm_ids = {id(norm) for norm in norms.values()}
    by_id = {id(layer): layer for layer in model.layers}
    twins: dict[int, Any] = {}

    def clone(operation: Any) -> Any:
        if id(operation) in norm_ids or not isinstance(operation, keras.layers.Layer):
            return operation
        if id(operation) not in twins:
            config = operation.get_config()
            if id(operation) in norms:
                config["use_bias"] = True
            twins[id(operation)] = type(operation).from_config(config)
        return twins[id(operation)]

    def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
        return args[0] if id(operation) in norm_ids else operation(*args, **kwargs)

    twin = keras.models.clone_model(model, clone_function=clone, call_function=call)
    for key, layer in twins.items():
        original = by_id[key]
        values = _fold(original, norms[key]) if key in norms else backend.values(original.weights)
        layer.set_weights(values)
        if hasattr(layer, "finalize_state"):  # until then, a Normalization layer computes with other values
            layer.finalize_state()
    twin.trainable = False
    return twin


class Fused(keras.layers.Layer):
    """A model for training that computes its frozen BatchNorm layers as part of the convolutions before them.

    A frozen BatchNorm is y = s * x + t with constants s and t for each channel. If it follows a convolution, s is
    multiplied into the kernel in each step, which is one small product instead of two passes over a large tensor,
    forward and backward. The convolution's own kernel is trained, by the same gradient. The output is equal to that of
    the model to rounding. Norms that are `trainable` when this layer is created do not change; the others keep the
    values that they have then.
    """

    def __init__(self, model: keras.Model) -> None:
        super().__init__()
        self.model = model
        norms = _foldable_norms(model)
        self.norms = {layer: norm for layer, norm in norms.items() if not norm.trainable}
        self._frozen_norms = {layer: _FrozenNorm.of(norm) for layer, norm in self.norms.items()}
        self.built = True

    def compute_output_spec(self, x: keras.KerasTensor) -> keras.KerasTensor:
        output = self.model.outputs[0]
        return keras.KerasTensor((x.shape[0], *output.shape[1:]), output.dtype)

    def call(self, x: Any, training: bool | None = None) -> Any:
        norm_ids = {id(norm) for norm in self.norms.values()}
        tensors = {id(self.model.inputs[0]): x}
        for node in keras_internals.nodes(self.model):
            operation = node.operation
            if isinstance(operation, keras.layers.InputLayer):
                continue
            args, kwargs = node.arguments.fill_in(tensors)
            if id(operation) in norm_ids:
                out = args[0]
            elif id(operation) in self.norms:
                out = _call_with_norm(operation, self._frozen_norms[id(operation)], args[0])
            else:
                if "training" in signature(operation.call).parameters:
                    kwargs["training"] = training  # instead of the argument of the call that made the node
                out = operation(*args, **kwargs)
            outputs = zip(node.output_tensors, keras.tree.flatten(out), strict=True)
            tensors |= {id(tensor): value for tensor, value in outputs}
        return tensors[id(self.model.outputs[0])]


@dataclass(frozen=True)
class _FrozenNorm:
    """A frozen BatchNorm, scale * (x - mean) + beta, as constant arrays over its channels."""

    scale: NDArray[np.float32]
    mean: NDArray[np.float32]
    beta: NDArray[np.float32]

    @classmethod
    def of(cls, norm: Any) -> _FrozenNorm:
        scale = keras.ops.rsqrt(norm.moving_variance + norm.epsilon)
        scale = np.asarray(scale * norm.gamma if norm.scale else scale)
        mean = np.asarray(norm.moving_mean)
        return cls(scale, mean, np.asarray(norm.beta) if norm.center else np.zeros_like(mean))

    def shift(self, layer: Any) -> Any:
        """The term to add after the layer with the scaled kernel. It depends on the layer's bias, which may train."""
        if layer.use_bias:
            return (layer.bias - self.mean) * self.scale + self.beta
        return self.beta - self.mean * self.scale


def _call_with_norm(layer: Any, norm: _FrozenNorm, x: Any) -> Any:
    """The output of a layer and the frozen BatchNorm behind it for the input x."""
    ops = keras.ops
    dtype = layer.compute_dtype
    x, scale, shift = (ops.cast(value, dtype) for value in (x, norm.scale, norm.shift(layer)))
    if isinstance(layer, keras.layers.Dense):
        return backend.add_bias(ops.matmul(x, ops.cast(layer.kernel, dtype) * scale), shift)
    options = {name: getattr(layer, name) for name in ("strides", "padding", "dilation_rate", "data_format")}
    if isinstance(layer, keras.layers.SeparableConv2D):
        pointwise = ops.cast(layer.pointwise_kernel, dtype) * scale
        depthwise = ops.cast(layer.depthwise_kernel, dtype)
        return backend.add_bias(ops.separable_conv(x, depthwise, pointwise, **options), shift)
    kernel = ops.cast(layer.kernel, dtype)
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        return backend.add_bias(ops.depthwise_conv(x, kernel * ops.reshape(scale, kernel.shape[-2:]), **options), shift)
    return backend.add_bias(ops.conv(x, kernel * scale, **options), shift)


def _foldable_norms(model: keras.Model) -> dict[int, Any]:
    """The BatchNorm layer that can be folded into each layer, by the layer's id."""
    readers: dict[int, list[Any]] = {}
    calls: dict[int, int] = {}
    for node in keras_internals.nodes(model):
        calls[id(node.operation)] = calls.get(id(node.operation), 0) + 1
        for tensor in node.input_tensors:
            readers.setdefault(id(tensor), []).append(node.operation)
    pairs = {}
    for node in keras_internals.nodes(model):
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
    """The weights of a layer with the BatchNorm behind it folded in, computed in float64, as float32."""
    mean, variance = (np.asarray(value, np.float64) for value in (norm.moving_mean, norm.moving_variance))
    scale = 1 / np.sqrt(variance + norm.epsilon)
    if norm.scale:
        scale = scale * np.asarray(norm.gamma, np.float64)
    shift = np.asarray(norm.beta, np.float64) if norm.center else 0.0
    *others, kernel, bias = (*layer.weights, None) if not layer.use_bias else layer.weights
    before = np.asarray(bias, np.float64) if bias is not None else 0.0
    new_kernel = np.asarray(kernel, np.float64)
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        new_kernel = new_kernel * scale.reshape(new_kernel.shape[-2:])
    else:
        new_kernel = new_kernel * scale
    values = [*(np.asarray(weight) for weight in others), new_kernel, (before - mean) * scale + shift]
    return [value.astype(np.float32) for value in values]


def _call(node: Any, keys: dict[int, str]) -> Any:
    """The arguments of an operation's call, with the keys of tensors instead of the tensors."""
    kwargs = {name: value for name, value in node.arguments.kwargs.items() if value is not None}
    return keras.tree.map_structure(lambda value: _key_of_argument(value, keys), [node.arguments.args, kwargs])


def _key_of_argument(value: Any, keys: dict[int, str]) -> str:
    if isinstance(value, keras.KerasTensor):
        return keys[id(value)]
    is_constant = isinstance(value, np.ndarray) or keras.ops.is_tensor(value)
    return digest.of_array(np.asarray(value)) if is_constant else repr(value)


def _settings(operation: Any) -> Any:
    """An operation's class and configuration, without names and without settings that only training uses."""
    serialized = keras.saving.serialize_keras_object(operation)
    return _drop_keys(serialized, {"name", "trainable", "build_config", "shared_object_id", "registered_name"})


def _drop_keys(part: Any, keys: set[str]) -> Any:
    if isinstance(part, dict):
        return {key: _drop_keys(value, keys) for key, value in part.items() if key not in keys}
    if isinstance(part, (list, tuple)):
        return [_drop_keys(value, keys) for value in part]
    return part if isinstance(part, (str, int, float, bool, type(None))) else repr(part)
