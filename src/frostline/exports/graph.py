"""The graph of an export: from an image of any size, or the bytes of its file, to the classifier's answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from frostline.data.shards import Layout
from frostline.exports import decoding, resizing
from frostline.models import account

if TYPE_CHECKING:
    import tensorflow as tf

    from frostline.data.images import Resize

Outputs = dict[str, Any]  # of the graph: tensors by name; of a runtime: arrays by name


@dataclass(frozen=True)
class GraphInput:
    """What a graph takes: the name, the dtype and the shape of its input, and how an image is made of it."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    read: Callable[[Any, Layout], Any]


PIXELS = GraphInput("image", "uint8", (None, None, 3), lambda image, layout: image)
FILE = GraphInput("bytes", "string", (), decoding.own)
OCTETS = GraphInput("bytes", "uint8", (None,), decoding.foreign)


@dataclass(frozen=True)
class Graph:
    """What is exported.

    module: holds the variables, and `serve`, a function of TensorFlow with an input signature; it gives the answers for
    one image, without a batch axis: label int32 (), probabilities float32 (classes,) and, if the classifier has them,
    set bool (classes,), unknown bool () and unknown_score float32 ().
    """

    module: Any
    layout: Layout

    @property
    def serve(self) -> Any:
        """The traced function."""
        return self.module.serve.get_concrete_function()


def of_bundle(folder: Path, intake: GraphInput) -> Graph:
    """The graph of a bundle."""
    import tensorflow as tf

    module = tf.Module()
    layout = account.read(folder).layout
    answer, module.kept = _network(folder)
    signature = tf.TensorSpec(intake.shape, intake.dtype, name=intake.name)

    def serve(given: Any) -> Outputs:
        return answered(answer, layout, intake.read(given, layout))

    module.serve = tf.function(serve, input_signature=[signature])
    return Graph(module, layout)


def answered(answer: Callable[[Any], Outputs], layout: Layout, image: tf.Tensor) -> Outputs:
    """The answers for an upright image, uint8 (height, width, 3)."""
    import tensorflow as tf

    with tf.name_scope("resizing"):
        pixels = resizing.resize(image, layout.image_size, cast("Resize", layout.resize))[None]
    with tf.name_scope("network"):
        found = {name: tf.squeeze(value, 0) for name, value in answer(pixels).items()}
    return {"label": tf.argmax(found["probabilities"], output_type=tf.int32), **found}


def _network(folder: Path) -> tuple[Callable[[Any], Outputs], list[Any]]:
    """A bundle's network, from uint8 (n, size, size, 3) to its answers for a batch; and its variables."""
    from frostline.models import answers

    try:
        model = answers.load(folder)
    except Exception as error:  # Keras raises many kinds of errors for other archives
        raise account.unusable(folder, account.first_line(error)) from error

    def answer(images: Any) -> Outputs:
        return dict(model(images, training=False))

    return answer, [each.value for each in model.variables]
