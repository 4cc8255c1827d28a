"""Read a checkpoint in torch's legacy format, without torch and without running code that the file names.

`torch.save` wrote this format before torch 1.6 (`_legacy_save` in torch/serialization.py): the pickles of a magic
number, of the format's version and of the writer's byte order; the pickle of a state dict, in which each tensor names
its storage; the pickle of the storages' keys; then each storage as the number of its elements in 8 bytes and the
elements. A pickle can name any function of Python and call it; this reader knows four names and refuses all others.
"""

from __future__ import annotations

import io
import math
import pickle
from collections import OrderedDict
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001
LARGEST = 2**28  # bytes of a file
STORAGES = {("torch", "FloatStorage"): "<f4", ("torch", "LongStorage"): "<i8"}

# The instructions of pickles of protocol 2 that a state dict needs. BUILD sets the attribute with torch's metadata.
OPCODES = (
    *(pickle.PROTO, pickle.STOP, pickle.MARK, pickle.GLOBAL, pickle.REDUCE, pickle.BUILD, pickle.BINPERSID),
    *(pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE, pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG1),
    *(pickle.BINUNICODE, pickle.EMPTY_TUPLE, pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3),
    *(pickle.EMPTY_LIST, pickle.APPEND, pickle.APPENDS, pickle.EMPTY_DICT, pickle.SETITEM, pickle.SETITEMS),
    *(pickle.BINPUT, pickle.LONG_BINPUT, pickle.BINGET, pickle.LONG_BINGET),
)


class _Place(NamedTuple):
    """Where the numbers of a tensor are: the key of a storage, then the offset and the strides in elements."""

    storage: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read(data: bytes) -> dict[str, NDArray[Any]]:
    """The tensors of a state dict by name, as float32 or int64 arrays in C order.

    data: the bytes of the file, at most LARGEST. Raises ValueError, one short reason, for a file in another format, for
    a truncated one, and for a pickle that names anything that is not a part of a state dict.
    """
    if len(data) > LARGEST:
        raise ValueError(f"it has more than {LARGEST // 2**20} MB")
    file = io.BytesIO(data)
    try:
        magic, version, writer = (_Unpickler(file).load() for _ in range(3))
        if (magic, version) != (MAGIC, VERSION) or not writer["little_endian"]:
            raise ValueError("it is not in torch's legacy format")
        unpickler = _Unpickler(file)
        places: dict[str, _Place] = unpickler.load()
        keys: list[str] = _Unpickler(file).load()
        storages = {key: _storage(file, *unpickler.storages[key]) for key in keys}
        if file.read(1):
            raise ValueError("it goes on behind its last storage")
        return {name: _tensor(storages[place.storage], place) for name, place in places.items()}
    except ValueError:
        raise
    except Exception as error:  # a damaged pickle raises errors of many kinds
        raise ValueError(f"it is damaged: {type(error).__name__}") from error


class _Unpickler(pickle._Unpickler):
    """An unpickler that knows only what `torch.save` writes. It is Python's version in Python: the one in C would
    reserve gigabytes for a memo of that length.

    storages: the dtype and the number of elements of each storage that a tensor named, by its key.
    """

    dispatch: ClassVar[dict[int, Any]] = {code[0]: pickle._Unpickler.dispatch[code[0]] for code in OPCODES}

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.storages: dict[str, tuple[str, int]] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            # A function of its own for each name, so that a pickle that changes it changes nothing else.
            return lambda storage, offset, shape, strides, *_: _Place(storage, offset, shape, strides)
        if (module, name) in STORAGES:
            return STORAGES[module, name]
        raise ValueError(f"it names {module}.{name}, which is no part of a state dict")

    def persistent_load(self, pid: Any) -> str:
        kind, dtype, key, _, count, view = pid
        if kind != "storage" or view is not None or dtype not in STORAGES.values():
            raise ValueError("it names a storage of another kind")
        self.storages[key] = (dtype, count)
        return str(key)


def _storage(file: io.BytesIO, dtype: str, count: int) -> NDArray[Any]:
    size = np.dtype(dtype).itemsize * count
    is_as_long = int.from_bytes(file.read(8), "little") == count
    data = file.read(size) if size >= 0 else b""
    if not is_as_long or len(data) != size:
        raise ValueError("it is truncated, or a storage has another length than it says")
    return np.frombuffer(data, dtype)


def _tensor(storage: NDArray[Any], place: _Place) -> NDArray[Any]:
    _, offset, shape, strides = place
    last = offset + sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True))
    if min((offset, *shape, *strides)) < 0 or last >= len(storage) or math.prod(shape) > len(storage):
        raise ValueError("a tensor reaches beyond its storage")
    steps = [stride * storage.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, steps, writeable=False).copy(order="C")
