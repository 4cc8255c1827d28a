"""The vision transformers of KerasHub, read into `vision_transformer`.

KerasHub's encoders are single layers, so a graph of theirs has two to five cut points; and the blocks inside can't be
saved one by one, because the configurations of ViT's and DeiT's have keys that their constructors refuse (0.32). So
their weights are copied into a graph of plain Keras layers, which loads without KerasHub. A bias that a block of theirs
lacks is 0 here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frostline.models import vision_transformer
from frostline.models.vision_transformer import ACTIVATIONS, Design

Array = NDArray[np.float32]
LayerArrays = list[Array]


@dataclass(frozen=True)
class _Parts:
    """A transformer of KerasHub in parts that all families have.

    convolution: the layer that makes tokens of patches; tokens: (leading, width), with their positions; positions: of
    the patches, None if they are rotary; blocks: the arrays of each block, by the second part of the layers' names;
    norms: those outside of blocks, by name; antialias: whether positions are resampled with it.
    """

    design: Design
    convolution: Any
    tokens: Array
    positions: Array | None
    blocks: list[dict[str, LayerArrays]]
    norms: dict[str, LayerArrays]
    antialias: bool = False

    def arrays(self, size: int) -> dict[str, LayerArrays]:
        """The weights for images of `size` pixels a side, by the names of `vision_transformer.build`."""
        side, width = size // self.design.patch, self.design.width
        if self.positions is None:
            positions = np.zeros((side * side, width), np.float32)
        else:
            positions = vision_transformer.resampled(self.positions, side, self.antialias)
        blocks = {
            f"block{number}_{name}": arrays
            for number, block in enumerate(self.blocks, 1)
            for name, arrays in block.items()
        }
        kernel, bias = self.convolution.kernel, self.convolution.bias
        embedding = vision_transformer.embedding(np.asarray(kernel), bias, self.tokens, positions)
        return {"embedding": embedding, **blocks, **self.norms}


def read(body: Any, size: int) -> tuple[Design, dict[str, LayerArrays]] | None:
    """The design of a backbone of KerasHub, and its weights for images of `size` pixels a side by layer.

    None if it is not one of READERS. Raises ValueError for an activation that is not known.
    """
    reader = READERS.get(type(body).__name__)
    if reader is None:
        return None
    parts = reader(body)
    if parts.design.activation not in ACTIVATIONS:
        raise ValueError(f"its activation {parts.design.activation!r} is not known")
    return parts.design, parts.arrays(size)


def _vit(body: Any) -> _Parts:
    patches, encoder = body.get_layer("vit_patching_and_embedding"), body.get_layer("vit_encoder")
    positions = np.asarray(patches.position_embedding.embeddings)
    leading = int(patches.use_class_token)
    tokens = np.reshape(patches.class_token, (1, -1)) + positions[:1] if leading else positions[:0]
    blocks = [
        _block(
            (block.layer_norm_1, block.layer_norm_2),
            _of_attention(block.mha),
            (_of_dense(block.mlp.dense_1), _of_dense(block.mlp.dense_2)),
        )
        for block in encoder.encoder_layers
    ]
    design = _design(
        body,
        body.patch_size[0],
        body.mlp_dim,
        leading=leading,
        epsilon=body.layer_norm_epsilon,
        dropout=body.dropout_rate,
    )
    norms = {"norm": _of_norm(encoder.layer_norm)}
    return _Parts(design, patches.patch_embedding, tokens, positions[leading:], blocks, norms)


def _deit(body: Any) -> _Parts:
    patches, encoder = body.get_layer("deit_patching_and_embedding"), body.get_layer("deit_encoder")
    positions = np.asarray(patches.position_embedding)[0]
    tokens = np.concatenate([np.asarray(patches.class_token)[0], np.asarray(patches.distillation_token)[0]])
    blocks = [
        _block(
            (block.layer_norm_1, block.layer_norm_2),
            _of_attention(block.mha),
            (_of_dense(block.mlp.dense), _of_dense(block.output_layer.dense)),
        )
        for block in encoder.encoder_layers
    ]
    design = _design(
        body,
        patches.patch_size[0],
        body.intermediate_dim,
        leading=2,
        epsilon=body.layer_norm_epsilon,
        dropout=body.dropout_rate,
    )
    norms = {"norm": _of_norm(encoder.layer_norm)}
    return _Parts(design, patches.patch_embedding, tokens + positions[:2], positions[2:], blocks, norms)


def _dinov2(body: Any) -> _Parts:
    patches = body.embeddings
    positions = np.asarray(patches.position_embeddings)[0]
    tokens = [np.asarray(patches.cls_token)[0] + positions[:1]]
    if body.num_register_tokens:
        tokens.append(np.asarray(patches.register_tokens)[0])
    blocks = [
        _block(
            (block.norm1, block.norm2),
            _of_attention(block.attention.attention),
            (_of_dense(block.mlp.weights_in), _of_dense(block.mlp.weights_out))
            if body.use_swiglu_ffn
            else (_of_dense(block.mlp.fc1), _of_dense(block.mlp.fc2)),
            (block.layer_scale1, block.layer_scale2),
        )
        for block in body.encoder.layers
    ]
    design = _design(
        body,
        body.patch_size,
        blocks[0]["project"][0].shape[0],
        leading=1 + body.num_register_tokens,
        activation="silu" if body.use_swiglu_ffn else "gelu",
        gated=body.use_swiglu_ffn,
        scaled=True,
        dropout=body.dropout_rate,
        drop_path=body.drop_path_rate,
    )
    return _Parts(
        design,
        patches.patch_embeddings.projection,
        np.concatenate(tokens),
        positions[1:],
        blocks,
        {"norm": _of_norm(body.layernorm)},
        body.antialias_in_interpolation,
    )


def _dinov3(body: Any) -> _Parts:
    patches = body.embeddings
    tokens = [np.asarray(patches.cls_token)[0]]
    if body.num_register_tokens:
        tokens.append(np.asarray(patches.register_tokens)[0])
    blocks = [
        _block(
            (block.norm1, block.norm2),
            _fused(*(getattr(block.attention, f"{each}_dense") for each in ("query", "key", "value", "output"))),
            (
                _side_by_side(block.mlp.gate_proj, block.mlp.up_proj)
                if body.use_gated_mlp
                else _of_dense(block.mlp.up_proj),
                _of_dense(block.mlp.down_proj),
            ),
            (block.layer_scale1, block.layer_scale2),
        )
        for block in body.encoder.layers
    ]
    design = _design(
        body,
        body.patch_size,
        body.intermediate_dim,
        leading=1 + body.num_register_tokens,
        activation=_name(body.hidden_activation),
        gated=body.use_gated_mlp,
        epsilon=body.layernorm.epsilon,
        scaled=True,
        rope_theta=body.rope_theta,
        drop_path=body.drop_path_rate,
    )
    conv = patches.patch_embeddings.projection
    norms = {"norm": _of_norm(body.layernorm)}
    return _Parts(design, conv, np.concatenate(tokens), None, blocks, norms)


def _siglip(body: Any) -> _Parts:
    blocks = [
        _block(
            (block.layer_norm1, block.layer_norm2),
            _of_attention(block.self_attn),
            (_of_dense(block.mlp.fc1), _of_dense(block.mlp.fc2)),
        )
        for block in body.encoder_layers
    ]
    design = _design(
        body,
        body.patch_size,
        body.intermediate_dim,
        leading=0,
        activation=_name(body.intermediate_activation),
        epsilon=body.layer_norm_epsilon,
    )
    positions = np.asarray(body.embedding.position_embedding.embeddings)
    norms = {"norm": _of_norm(body.post_layer_norm)}
    return _Parts(design, body.embedding.patch_embedding, positions[:0], positions, blocks, norms)


def _clip(body: Any) -> _Parts:
    # A body without weights has the number 0 for all positions; a preset sets the numbers.
    numbers = np.asarray(body.embedding.position_ids)[0]
    positions = np.asarray(body.embedding.position_embedding.embeddings)[numbers]
    blocks = [
        _block(
            (block.layer_norm_1, block.layer_norm_2),
            _of_attention(block.attention),
            (_of_dense(block.dense_1), _of_dense(block.dense_2)),
        )
        for block in body.encoder_layers
    ]
    design = _design(
        body,
        body.patch_size,
        body.intermediate_dim,
        activation=_name(body.intermediate_activation),
        epsilon=body.layer_norm.epsilon,
        first_norm=True,
    )
    tokens = np.asarray(body.embedding.class_embedding)[None] + positions[:1]
    norms = {"first_norm": _of_norm(body.pre_layer_norm), "norm": _of_norm(body.layer_norm)}
    return _Parts(design, body.embedding.patch_embedding, tokens, positions[1:], blocks, norms)


# By the class of KerasHub's backbone, or of the vision encoder in it.
READERS = {
    "ViTBackbone": _vit,
    "DeiTBackbone": _deit,
    "DINOV2Backbone": _dinov2,
    "DINOV3Backbone": _dinov3,
    "SigLIPVisionEncoder": _siglip,
    "CLIPVisionEncoder": _clip,
}


def _design(body: Any, patch: int, hidden: int, **others: Any) -> Design:
    return Design(patch, body.hidden_dim, body.num_layers, body.num_heads, hidden, **others)


def _block(
    norms: tuple[Any, Any],
    attention: tuple[LayerArrays, LayerArrays],
    feed_forward: tuple[LayerArrays, LayerArrays],
    scales: tuple[Any, ...] = (),
) -> dict[str, LayerArrays]:
    named = dict(zip(("qkv", "projection"), attention, strict=True))
    named |= zip(("expand", "project"), feed_forward, strict=True)
    named |= {f"norm{number}": _of_norm(norm) for number, norm in enumerate(norms, 1)}
    return named | {f"scale{number}": [np.asarray(scale.lambda1)] for number, scale in enumerate(scales, 1)}


def _of_attention(layer: Any) -> tuple[LayerArrays, LayerArrays]:
    """The arrays of Keras's MultiHeadAttention, for one product of queries, keys and values, and for its output."""
    return _fused(layer.query_dense, layer.key_dense, layer.value_dense, layer.output_dense)


def _fused(query: Any, key: Any, value: Any, output: Any) -> tuple[LayerArrays, LayerArrays]:
    width = query.kernel.shape[0]
    inputs = [_matrix(layer, width, -1) for layer in (query, key, value)]
    return [np.concatenate(each, axis=-1) for each in zip(*inputs, strict=True)], _matrix(output, -1, width)


def _side_by_side(*layers: Any) -> LayerArrays:
    return [np.concatenate(each, axis=-1) for each in zip(*map(_of_dense, layers), strict=True)]


def _of_dense(layer: Any) -> LayerArrays:
    return _matrix(layer, *layer.kernel.shape)


def _matrix(layer: Any, rows: int, columns: int) -> LayerArrays:
    kernel = np.reshape(layer.kernel, (rows, columns))
    bias = np.zeros(kernel.shape[1], np.float32) if layer.bias is None else np.reshape(layer.bias, -1)
    return [kernel, bias]


def _of_norm(layer: Any) -> LayerArrays:
    return [np.asarray(layer.gamma), np.asarray(layer.beta)]


def _name(activation: Any) -> str:
    return str(activation if isinstance(activation, str) else activation.__name__)
