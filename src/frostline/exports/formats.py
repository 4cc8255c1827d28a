"""The formats: how each is written and run. A format is a row of `FORMATS`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from frostline.data.images import Pixels
from frostline.exports import onnx_operations, quantizing
from frostline.exports.graph import FILE, OCTETS, PIXELS, Graph, GraphInput, Outputs
from frostline.models import backend

Runs = Callable[[Any], Outputs]  # one image, uint8 (height, width, 3), or the bytes of its file, to arrays by name


@dataclass(frozen=True)
class Format:
    """A format of files.

    file: the name of the file or folder; extra: of pip, with which its packages are installed; runtime: the package
    that runs it; takes: what its graph may take, by name; write: a graph to a new file; load: a file to a function that
    runs it, as its users would; quantize: a graph, its file and calibration images to a new file in 8 bits; notes: what
    its users must know, by what it takes.
    """

    file: str
    extra: str | None
    runtime: str
    takes: Mapping[str, GraphInput]
    write: Callable[[Graph, Path], None]
    load: Callable[[Path], Runs]
    quantize: Callable[[Graph, Path, Path, Pixels], None] | None = None
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def version(self) -> str:
        """The runtime and its version."""
        return f"{self.runtime} {metadata.version(self.runtime)}"

    @property
    def install(self) -> str:
        """How its packages are installed."""
        return f"pip install 'frostline[{self.extra}]'" if self.extra else "install it"


@contextmanager
def quiet() -> Iterator[None]:
    """Without the lines that converters print about themselves."""
    with backend.quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _write_saved_model(graph: Graph, path: Path) -> None:
    import tensorflow as tf

    tf.saved_model.save(graph.module, str(path), signatures=graph.serve)


def _load_saved_model(path: Path) -> Runs:
    import tensorflow as tf

    serve = tf.saved_model.load(str(path)).signatures["serving_default"]
    (name,) = serve.structured_input_signature[1]

    def run(given: Any) -> Outputs:
        return {key: value.numpy() for key, value in serve(**{name: tf.constant(given)}).items()}

    return run


def _load_onnx(path: Path) -> Runs:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads would slow down others
    with suppress(ImportError):  # only a file that takes bytes needs it
        import onnxruntime_extensions

        options.register_custom_ops_library(onnxruntime_extensions.get_library_path())
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name, names = session.get_inputs()[0].name, [each.name for each in session.get_outputs()]

    def run(given: Any) -> Outputs:
        array = np.frombuffer(given, np.uint8) if isinstance(given, bytes) else given
        return dict(zip(names, session.run(None, {name: array}), strict=True))

    return run


def _write_litert(graph: Graph, path: Path) -> None:
    import tensorflow as tf

    with TemporaryDirectory() as scratch:
        saved_model = Path(scratch, "saved_model")
        _write_saved_model(graph, saved_model)
        converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model))
        path.write_bytes(converter.convert())


def _load_litert(path: Path) -> Runs:
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(str(path)).get_signature_runner("serving_default")
    return lambda given: dict(runner(image=given))


def _write_openvino(graph: Graph, path: Path) -> None:
    import openvino

    with TemporaryDirectory() as scratch:
        onnx = Path(scratch, "classifier.onnx")
        onnx_operations.write(graph, onnx)
        openvino.save_model(openvino.convert_model(onnx), path, compress_to_fp16=False)


def _load_openvino(path: Path) -> Runs:
    import openvino

    # By default OpenVINO computes with bfloat16 on processors that can, which changes pixels and probabilities.
    network = openvino.Core().read_model(path)
    names = [each.any_name for each in network.outputs]
    model = openvino.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda given: dict(zip(names, model([given]).values(), strict=True))


def _quantize_onnx(graph: Graph, source: Path, path: Path, images: Pixels) -> None:
    quantizing.onnx(source, path, images)


def _quantize_litert(graph: Graph, source: Path, path: Path, images: Pixels) -> None:
    quantizing.litert(graph, path, images)


def _named(*intakes: GraphInput) -> Mapping[str, GraphInput]:
    return {each.name: each for each in intakes}


FORMATS: Mapping[str, Format] = {
    "saved_model": Format(
        "saved_model", None, "tensorflow", _named(PIXELS, FILE), _write_saved_model, _load_saved_model
    ),
    "onnx": Format(
        "classifier.onnx",
        "onnx",
        "onnxruntime",
        _named(PIXELS, OCTETS),
        onnx_operations.write,
        _load_onnx,
        _quantize_onnx,
        {
            "bytes": "It needs the operations of onnxruntime-extensions. Their decoder gives other pixels than Pillow "
            "where a JPEG has halved colours. Grey and CMYK JPEGs, PNGs with transparency or grey of 16 bits, files "
            "that are cut off, and other formats are refused (`Reshape`). Damage inside of a file is not noticed, and "
            "can end the process: give it only files you trust."
        },
    ),
    "litert": Format(
        "classifier.tflite",
        "litert",
        "ai-edge-litert",
        _named(PIXELS),
        _write_litert,
        _load_litert,
        _quantize_litert,
        {"image": "`get_signature_runner()` resizes the input; `resize_tensor_input` does so by hand."},
    ),
    "openvino": Format(
        "classifier.xml",
        "openvino",
        "openvino",
        _named(PIXELS),
        _write_openvino,
        _load_openvino,
        None,
        {
            "image": 'Compile it with `{"INFERENCE_PRECISION_HINT": "f32"}`: on processors with bfloat16 OpenVINO uses '
            "that by default, which changes pixels and probabilities."
        },
    ),
}
