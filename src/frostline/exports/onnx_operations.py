"""A graph as ONNX: what tf2onnx and ONNX lack, and a check of the result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from frostline.errors import UserError
from frostline.exports.graph import Graph

OPSET = 18
EXTENSIONS = "com.microsoft.extensions"  # the domain of the operations of onnxruntime-extensions


def write(graph: Graph, path: Path) -> None:
    """Write a graph as ONNX. Raises ImportError if tf2onnx is not installed, UserError if ONNX can't express it."""
    import onnx
    import tf2onnx

    _add_complement()
    _add_decoder()
    serve = graph.module.serve
    others = [onnx.helper.make_opsetid(EXTENSIONS, 1)]
    model, _ = tf2onnx.convert.from_function(
        serve, input_signature=serve.input_signature, opset=OPSET, extra_opset=others
    )
    onnx.save(model, path)
    check(path)


def check(path: Path) -> None:
    """Raise UserError if a file of ONNX has operations that ONNX does not know. tf2onnx only warns of them."""
    import onnx

    try:
        onnx.checker.check_model(str(path))
    except onnx.checker.ValidationError as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"--format: onnx can't express this network ({reason}); use saved_model or litert") from error


def _add_complement() -> None:
    """Teach tf2onnx `Erfc`, with which TensorFlow computes the exact GELU: erfc(x) = 1 - erf(x)."""
    from tf2onnx import utils
    from tf2onnx.handler import tf_op

    class Complement:
        @classmethod
        def version_9(cls, ctx: Any, node: Any, **kwargs: Any) -> None:
            dtype, shape = ctx.get_dtype(node.output[0]), ctx.get_shape(node.output[0])
            given, outputs = node.input[0], node.output
            ctx.remove_node(node.name)
            erf = ctx.make_node("Erf", [given], dtypes=[dtype], shapes=[shape])
            one = ctx.make_const(utils.make_name("one"), np.array(1, utils.map_onnx_to_numpy_type(dtype)))
            ctx.make_node("Sub", [one.output[0], erf.output[0]], outputs=outputs, dtypes=[dtype], shapes=[shape])

    tf_op("Erfc")(Complement)


def _add_decoder() -> None:
    """Let tf2onnx put the image decoder of onnxruntime-extensions where the graph calls a Python function."""
    from tf2onnx.handler import tf_op

    class Decoder:
        @classmethod
        def version_9(cls, ctx: Any, node: Any, **kwargs: Any) -> None:
            for name in list(node.attr):
                del node.attr[name]
            node.type, node.domain = "DecodeImage", EXTENSIONS

    tf_op("PyFunc")(Decoder)
