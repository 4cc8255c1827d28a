"""What a file or folder of weights is, known by its content: one that can be loaded, or one that is named and refused.

Only the beginning of a file and the directory of an archive are read, so it is quick and needs no Keras.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

# What `weights.load` can read.
Loadable = Literal["bundle", "hdf5", "keras", "npz", "safetensors", "saved_model", "damaged"]

BUNDLE, GRAPH, VARIABLES = "bundle.json", "saved_model.pb", "variables/variables.index"
HEAD = 4096  # bytes that are read of a file
SUFFIXES = {".h5", ".hdf5", ".keras", ".npz", ".safetensors"}

PICKLE = (
    "convert it where torch is: `state = torch.load(FILE, weights_only=True)`, then "
    "`safetensors.torch.save_file(state, 'model.safetensors')`"
)
KERAS = "name the Keras model that it was made from"
UNPACK = "unpack it and name the file of weights in it"
AGAIN = "download it again"


class ForeignFileError(ValueError):
    """A file that no reader of weights knows. The text says what it is and the fix, without the name of the file."""


class Found(NamedTuple):
    """kind: what it is; path: the file or folder to read, also inside the folder that was named."""

    kind: Loadable
    path: Path


class _Sign(NamedTuple):
    """A pattern of a file's first bytes, and what is said of a file that has it."""

    pattern: re.Pattern[bytes]
    words: str
    fix: str


def _sign(pattern: bytes, words: str, fix: str) -> _Sign:
    return _Sign(re.compile(pattern, re.DOTALL), words, fix)


# The first that matches counts. The formats of protobuf have no mark; what is asked for are the fields they begin with.
SIGNS = (
    _sign(rb"\Z", "is empty", "copy it again"),
    _sign(rb"version https://git-lfs", "is a pointer of Git LFS, not the file", "run `git lfs pull`"),
    _sign(rb".{4}TFL3", "is a TFLite model, whose weights are joined or rounded", KERAS),
    _sign(rb"GGUF", "is a GGUF file of a language model", "name a file of an image classifier"),
    _sign(rb"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20", "is a pickle of torch's, which can run programs", PICKLE),
    _sign(
        rb"\x80[\x02-\x05]", "is a pickle, which can run programs", "save the weights as .safetensors or .weights.h5"
    ),
    _sign(rb"\xff\xd8\xff|\x89PNG|GIF8|RIFF.{4}WEBP|BM.{4}\x00{4}", "is an image", "name a file of weights"),
    _sign(rb"\x1f\x8b|7z\xbc\xaf|Rar!|BZh|\xfd7zXZ|.{257}ustar", "is an archive", UNPACK),
    _sign(rb"\s*<(!doctype|html|\?xml)", "is a web page, not the file", AGAIN),
    _sign(rb"\s*<(!DOCTYPE|HTML)", "is a web page, not the file", AGAIN),
    _sign(rb"\x93NUMPY", "is one array of NumPy's", KERAS),
    _sign(
        rb'\s*\{.*"(modelTopology|weightsManifest)"',
        "is the description of a TensorFlow.js model",
        "export it as Keras, or convert it with `tensorflowjs_converter --output_format keras`",
    ),
    _sign(rb"\x08\x01\x12.{0,8}\x0a", "is the graph of a SavedModel without its weights", "name its folder"),
    _sign(rb"\x08[\x02-\x14][\x12\x3a\x42]", "is an ONNX model, whose weights have lost their layers", KERAS),
    _sign(
        rb"\x0a.{1,3}\x0a[\x01-\x7f][\x20-\x7e]+\x12[\x01-\x7f](Placeholder|Const|Variable)",
        "is a frozen graph of TensorFlow's, which has no layers",
        KERAS,
    ),
)


def find(path: Path) -> Found:
    """What there is to load at a path: a file, or in a folder its bundle, SavedModel, or one file of weights.

    Raises ForeignFileError for anything else, and OSError if it can't be read.
    """
    return _in_folder(path) if path.is_dir() else Found(_of_file(path), path)


def _of_file(path: Path) -> Loadable:
    with path.open("rb") as file:
        head = file.read(HEAD)
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return "hdf5"
    if head.startswith(b"PK\x03\x04"):
        return _of_archive(path)
    if head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= path.stat().st_size - 8:
        return "safetensors"
    for sign in SIGNS:
        if sign.pattern.match(head):
            raise ForeignFileError(f"{sign.words}; {sign.fix}")
    if path.suffix in SUFFIXES:
        return "damaged"  # its reader says how
    raise ForeignFileError(
        "is of a kind that is not known; name a .weights.h5, .keras, .h5 or .safetensors, or the folder of a SavedModel"
    )


def _of_archive(path: Path) -> Loadable:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        return "damaged"
    if "model.weights.h5" in names or len([name for name in names if is_hdf5(name)]) == 1:
        return "keras"
    if names and all(name.endswith(".npy") for name in names):
        return "npz"
    raise ForeignFileError(_foreign_archive(names))


def is_hdf5(name: str) -> bool:
    """Whether a member of an archive is a file of HDF5 by its name, and not a note of macOS beside it."""
    return name.endswith((".h5", ".hdf5")) and not name.startswith("__MACOSX/")


def _foreign_archive(names: Sequence[str]) -> str:
    ends = {name.rpartition("/")[2] for name in names}
    if "data.pkl" in ends:
        return f"is a pickle of torch's in a zip archive, which can run programs; {PICKLE}"
    if GRAPH in ends:
        return f"is an archive of a SavedModel; unpack it and name the folder that holds {GRAPH}"
    if any(name.endswith(".tflite") for name in ends):
        return f"is an archive with a TFLite model, whose weights are joined or rounded; {KERAS}"
    if "model.json" in ends:
        return "is an archive with a TensorFlow.js model; export it as Keras (Teachable Machine: Tensorflow, Keras)"
    return f"is an archive without one file of Keras weights; {UNPACK}"


def _in_folder(folder: Path) -> Found:
    if (folder / BUNDLE).is_file():
        return Found("bundle", folder)
    if (folder / GRAPH).is_file():
        if not (folder / VARIABLES).is_file():
            raise ForeignFileError(f"is a SavedModel without variables/, so without weights; {KERAS}")
        return Found("saved_model", folder)
    files = sorted(file for file in folder.iterdir() if file.suffix in SUFFIXES - {".npz"} and file.is_file())
    if len(files) == 1:
        kind = _of_file(files[0])
        return Found(kind, folder if kind == "safetensors" else files[0])
    if files:
        raise ForeignFileError(f"is a folder with {len(files)} files of weights, such as {files[0].name}; name one")
    inner = [each.parent.name for each in sorted(folder.glob(f"*/{GRAPH}"))]
    if inner:
        raise ForeignFileError(f"is the folder above a SavedModel; name {inner[0]} in it")
    pickles = [file.name for file in sorted(folder.iterdir()) if file.suffix in {".bin", ".pt", ".pth", ".ckpt"}]
    if pickles:
        raise ForeignFileError(f"is a folder with {pickles[0]}, a pickle, which can run programs; {PICKLE}")
    raise ForeignFileError("is a folder without a bundle, a SavedModel or a file of weights; fix backbone.weights")
