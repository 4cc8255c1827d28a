"""A body whose output is what all of its depths see: `head.features: all_depths`.

Evci et al., "Head2Toe: Utilizing Intermediate Representations for Better Transfer Learning", ICML 2022: a linear head
on the pooled activations of all blocks together is often better than one on the last block, and costs no more
extraction. Here the head trains on all of them, without the paper's selection of features.
"""

from __future__ import annotations

import keras

from frostline.models import freezing, heads, vision_transformer
from frostline.models.freezing import CutPoint

DEPTHS = 18  # about; the places are spread evenly by compute, see `freezing.spread`


def depths(body: keras.Model) -> list[CutPoint]:
    """The cut points that stand for the depths of a body, from the bottom up; the last one is its end.

    A feature map or tokens cross each of them. Before the first kernel there are only pixels, in whatever shape.
    """
    cuts = freezing.cut_points(body)
    names = set(freezing.spread(body, DEPTHS))
    first = next((place for place, layer in enumerate(body.layers) if freezing.multiply_adds(layer)), 0)
    inner = [cut for cut in cuts[:-1] if cut.layer in names and len(cut.tensor.shape) in (3, 4) and cut.depth > first]
    return [*inner, cuts[-1]]


def average(body: keras.Model, tensor: keras.KerasTensor) -> keras.layers.Layer:
    """The layer that averages a tensor inside of a body over its places: -> vector. Leading tokens are left out."""
    leading = vision_transformer.leading_tokens(keras.Model(body.input, tensor))
    return heads.pool(tuple(tensor.shape[1:]), "avg", leading)


def extended(body: keras.Model) -> keras.Model:
    """The body with a new output: the pooled activations of its depths side by side, (n, sum of their widths).

    Those of each depth are normalised for each image (mean 0, variance 1), because their sizes differ by orders of
    magnitude. The body's layers are shared, and the new ones have no weights.
    """
    vectors = []
    for number, tensor in enumerate((cut.tensor for cut in depths(body)), 1):
        pool = average(body, tensor)
        pool.name = f"depth{number}_pool"
        norm = keras.layers.LayerNormalization(center=False, scale=False, name=f"depth{number}_norm")
        vectors.append(norm(pool(tensor)))
    return keras.Model(body.input, keras.layers.Concatenate(name="all_depths")(vectors), name=body.name)
