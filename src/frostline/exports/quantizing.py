"""INT8: the network of an export in 8 bits. Its resizing, and what follows the network, stay as they are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frostline.data.images import Pixels
from frostline.data.shards import Shards
from frostline.exports.graph import Graph

CALIBRATION = 200  # images of the training split, whose activations give the ranges
WEIGHTED = ("Conv", "Gemm", "MatMul")  # operations of ONNX that have stored weights
IN_8_BITS = (*WEIGHTED, "Add", "Mul", "Concat", "MaxPool", "AveragePool", "GlobalAveragePool", "Clip", "Relu")
# What stays float, by the names of tensors and nodes: the resizing, and what follows the logits. In 8 bits there
# would be 256 probabilities, and distances that no threshold fits.
IN_FLOAT = re.compile(
    r"(^|/)((resizing|probabilities|answer)(_\d+)?/|(subtract|concatenate)(_\d+)?/|StatefulPartitioned)"
)


def calibration(training: Shards, seed: int) -> Pixels:
    """Some prepared images of the training split, chosen by a seed: uint8 (n, size, size, 3)."""
    count = min(CALIBRATION, len(training))
    rows = np.random.default_rng(seed).choice(len(training), count, replace=False)
    return training.take(np.sort(rows).astype(np.int64))


def litert(graph: Graph, path: Path, images: Pixels) -> None:
    """Write a graph for LiteRT, with integers in all of the network. images: see `calibration`."""
    import tensorflow as tf

    def given() -> Iterator[dict[str, NDArray[Any]]]:
        for image in images:
            yield {"image": image}

    with TemporaryDirectory() as folder:
        tf.saved_model.save(graph.module, folder, signatures=graph.serve)
        plain = tf.lite.Interpreter(model_content=tf.lite.TFLiteConverter.from_saved_model(folder).convert())
        names = [each["name"] for each in plain.get_tensor_details()]
        kept = [name for name in names if IN_FLOAT.search(name)]
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = given
        options = tf.lite.experimental.QuantizationDebugOptions(denylisted_nodes=kept)
        selective = tf.lite.experimental.QuantizationDebugger(
            converter=converter, debug_dataset=given, debug_options=options
        )
        path.write_bytes(selective.get_nondebug_quantized_model())


def onnx(source: Path, path: Path, images: Pixels) -> None:
    """Write a file of ONNX that takes images again, with the network in 8 bits. images: see `calibration`.

    Weights have a scale for each output channel (QDQ, by ONNX Runtime's static quantization). Before that, what scales
    and shifts a convolution's result is put into its weights: in 8 bits of its own it costs most of the accuracy.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rest = iter(images)

        def get_next(self) -> dict[str, Pixels] | None:
            image = next(self.rest, None)
            return None if image is None else {"image": image}

    with TemporaryDirectory() as folder:
        folded = Path(folder, path.name)
        quant_pre_process(str(source), str(folded), skip_symbolic_shape=True)
        quantize_static(
            folded,
            path,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(IN_8_BITS),
            nodes_to_quantize=_network(onnx.load(folded)),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )


def _network(model: Any) -> list[str]:
    """The names of the nodes to quantise: the first with stored weights and all that depend on it, up to the logits."""
    stored = {each.name for each in model.graph.initializer}
    reached: set[str] = set()
    names = []
    for node in model.graph.node:  # in topological order
        is_weighted = node.op_type in WEIGHTED and len(node.input) > 1 and node.input[1] in stored
        if not is_weighted and not reached & set(node.input):
            continue
        reached |= set(node.output)
        is_scaling = node.op_type in ("Mul", "Add") and bool(stored & set(node.input))  # a norm that was not folded
        if not is_scaling and not IN_FLOAT.search(node.name):
            names.append(node.name)
    return names
