"""Read a file of tensors in the format safetensors, without the package of that name and without running anything.

The file is the length of a header in 8 bytes, the header (JSON: each tensor's name, type, shape and place), and the
numbers (https://github.com/huggingface/safetensors, "Format"). All that the header says is checked before a number is
read: the places follow each other without a hole or an overlap and end with the file, so no array is larger than it.
"""

from __future__ import annotations

import json
import math
import mmap
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

HEADER = 2**26  # most bytes of a header; that of the largest network of the table has 0.2 MB
DIMENSIONS = 8  # most sides of a tensor
BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64"), 8),
}
FLOATS = {"F16": "<f2", "BF16": "<u2", "F32": "<f4", "F64": "<f8"}  # the types of weights


class TensorPlace(NamedTuple):
    """Where the numbers of a tensor are: the first byte behind the header, and the byte behind the last one."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def read(path: Path) -> dict[str, NDArray[np.float32]]:
    """The tensors of 16-, 32- and 64-bit floats by name, as float32 arrays. Others, such as counters, are left out.

    Raises ValueError, one short reason, for a file that is damaged or in another format, and OSError.
    """
    places, begin = _header(path)
    if not any(place.end for place in places.values()):
        return {}
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return {
            name: _floats(data[begin + place.start : begin + place.end], place)
            for name, place in places.items()
            if place.dtype in FLOATS
        }


def places(path: Path) -> dict[str, TensorPlace]:
    """What the header says of each tensor. It reads the header alone. Raises the errors of `read`."""
    return _header(path)[0]


def _header(path: Path) -> tuple[dict[str, TensorPlace], int]:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(HEADER, size - 8):
            raise ValueError("it is truncated, or not a safetensors file: its header does not fit into it")
        text = file.read(length)
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=_without_doubles)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its header is damaged: {error}") from None
    if not isinstance(header, dict):
        raise ValueError("its header is damaged: it is not an object")
    header.pop("__metadata__", None)
    found = {name: _place(name, entry) for name, entry in header.items()}
    _require_tiled(found, size - 8 - length)
    return found, 8 + length


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a name is there twice")
    return values


def _place(name: str, entry: Any) -> TensorPlace:
    entry = entry if isinstance(entry, dict) else {}
    dtype, shape, offsets = (entry.get(key) for key in ("dtype", "shape", "data_offsets"))
    if dtype not in BYTES:
        raise ValueError(f"the type of {name} is {dtype!r}, which is not known")
    if not _is_naturals(shape) or len(shape) > DIMENSIONS or not _is_naturals(offsets) or len(offsets) != 2:
        raise ValueError(f"shape or place of {name} are damaged")
    start, end = offsets
    if end - start != math.prod(shape) * BYTES[dtype]:
        raise ValueError(f"{name} has another length than its shape says")
    return TensorPlace(dtype, tuple(shape), start, end)


def _is_naturals(values: Any) -> bool:
    return isinstance(values, list) and all(type(each) is int and each >= 0 for each in values)


def _require_tiled(places: dict[str, TensorPlace], size: int) -> None:
    """The tensors must fill the rest of the file: no hole, no overlap, nothing behind the last one."""
    end = 0
    for place in sorted(places.values(), key=lambda place: (place.start, place.end)):
        if place.start != end:
            raise ValueError("it is damaged: two tensors overlap, or there is a hole between them")
        end = place.end
    if end != size:
        raise ValueError(f"it is truncated, or goes on: its tensors have {end:,} bytes, and there are {size:,}")


def _floats(data: bytes, place: TensorPlace) -> NDArray[np.float32]:
    numbers = np.frombuffer(data, FLOATS[place.dtype])
    if place.dtype == "BF16":  # the upper half of a float32
        numbers = (numbers.astype(np.uint32) << 16).view(np.float32)
    return numbers.astype(np.float32).reshape(place.shape)
