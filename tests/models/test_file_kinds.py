"""Files and folders that hold no weights for a body are named for what they are, each with the fix, in one line."""

import io
import json
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from conftest import ROOT

from frostline.errors import WeightsError
from frostline.models import backbones, file_kinds


def archive(*names):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name in names:
            file.writestr(name, b"content")
    return buffer.getvalue()


def field(number, content):
    return bytes([number << 3 | 2, len(content)]) + content


def onnx_model():
    import onnx
    from onnx import helper

    node = helper.make_node("Relu", ["x"], ["y"])
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"]
    return helper.make_model(helper.make_graph([node], "g", ends[:1], ends[1:])).SerializeToString()


def frozen_graph():
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        tf.compat.v1.placeholder(tf.float32, [None, 3], name="input")
    return graph.as_graph_def().SerializeToString()


def tflite_model():
    import tensorflow as tf

    function = tf.function(lambda x: x + 1.0).get_concrete_function(tf.TensorSpec([1], tf.float32))
    return tf.lite.TFLiteConverter.from_concrete_functions([function]).convert()


FILES = {
    "weights.h5": (lambda: b"", "is empty; copy it again"),
    "pointer.safetensors": (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0", r"run `git lfs pull`"),
    "model.onnx": (onnx_model, "is an ONNX model"),
    "graph.pb": (frozen_graph, "is a frozen graph of TensorFlow's"),
    "saved_model.pb": (lambda: b"\x08\x01" + field(2, field(1, b"\x12\x05serve")), "graph of a SavedModel without"),
    "model.tflite": (tflite_model, "is a TFLite model"),
    "model.gguf": (lambda: b"GGUF" + bytes(60), "is a GGUF file"),
    "old.pth": (
        lambda: pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2),
        r"pickle of torch's.*safetensors.torch.save_f",
    ),
    "model.pt": (lambda: archive("model/data.pkl", "model/version"), r"pickle of torch's in a zip.*torch.save_file"),
    "model.bin": (lambda: pickle.dumps({"a": 1}), "is a pickle, which can run programs"),
    "photo.h5": (lambda: b"\xff\xd8\xff\xe0" + bytes(60), "is an image; name a file of weights"),
    "page.h5": (lambda: b"\n<!DOCTYPE html><html>Not found", "is a web page, not the file; download it again"),
    "model.tar.gz": (lambda: b"\x1f\x8b\x08" + bytes(60), "is an archive; unpack it"),
    "array.npy": (lambda: b"\x93NUMPY\x01\x00", "is one array of NumPy's"),
    "model.json": (
        lambda: b'{"format": "layers-model", "modelTopology": {}}',
        "of a TensorFlow.js model; export it as K",
    ),
    "tm_tfjs.zip": (
        lambda: archive("model.json", "weights.bin", "metadata.json"),
        "archive with a TensorFlow.js model",
    ),
    "tm_lite.zip": (lambda: archive("model_unquant.tflite", "labels.txt"), "archive with a TFLite model"),
    "tm_saved.zip": (
        lambda: archive("model.savedmodel/saved_model.pb", "labels.txt"),
        "archive of a SavedModel; unpack",
    ),
    "photos.zip": (lambda: archive("a/1.jpg"), "is an archive without one file of Keras weights"),
    "two.zip": (lambda: archive("a.h5", "b.h5"), "is an archive without one file of Keras weights"),
    "notes.txt": (lambda: b"what I did on Tuesday", r"is of a kind that is not known; name a \.weights\.h5"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_kind_is_named(name, tmp_path):
    make, message = FILES[name]
    path = tmp_path / name
    path.write_bytes(make())
    with pytest.raises(WeightsError, match=message) as error:
        backbones.check("MobileNetV2", str(path), 96)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_what_another_reader_can_say_better_is_left_to_it(tmp_path):
    for name, content in (("a.keras", b"garbage"), ("a.h5", b"garbage"), ("b.keras", b"PK\x03\x04garbage")):
        (tmp_path / name).write_bytes(content)
        assert file_kinds.find(tmp_path / name).kind == "damaged"
        with pytest.raises(WeightsError, match="does not hold the weights of frostnet"):
            backbones.build("frostnet", str(tmp_path / name), 32)
    np.savez(tmp_path / "a.npz", a=np.zeros(3))
    with pytest.raises(
        WeightsError, match=r"does not hold the weights of MobileNetV2 .*NumPy's, which only frostnet has"
    ):
        backbones.build("MobileNetV2", str(tmp_path / "a.npz"), 32)


FOLDERS = {
    "nothing": ([], "is a folder without a bundle, a SavedModel or a file of weights"),
    "two files": (["a.h5", "b.keras"], r"is a folder with 2 files of weights, such as a\.h5; name one"),
    "a pickle": (["config.json", "pytorch_model.bin"], r"is a folder with pytorch_model\.bin, a pickle"),
    "one above": (
        ["model.savedmodel/saved_model.pb", "labels.txt"],
        r"above a SavedModel; name model\.savedmodel in it",
    ),
    "a graph alone": (["saved_model.pb"], "is a SavedModel without variables/"),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_a_folder_of_another_kind_is_named(case, tmp_path):
    names, message = FOLDERS[case]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(WeightsError, match=message) as error:
        backbones.check("MobileNetV2", str(tmp_path), 96)
    assert "\n" not in str(error.value)


@pytest.mark.process
def test_the_check_needs_no_keras(tmp_path):
    text = json.dumps({"conv_stem.weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "a.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))
    code = (
        "import sys\nfrom frostline.errors import WeightsError\nfrom frostline.models import backbones\n"
        f"try: backbones.check('EfficientNetB0', {str(tmp_path / 'a.safetensors')!r}, 96)\n"
        "except WeightsError as error: print('config.json' in str(error))\n"
        "print([name for name in sys.modules if name in ('keras', 'tensorflow', 'torch')])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT / "src")
    assert result.stdout.split("\n")[:2] == ["True", "[]"], result.stderr
