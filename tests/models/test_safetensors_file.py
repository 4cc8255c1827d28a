"""Files of safetensors: what they hold, and files that were made to do harm."""

import json

import numpy as np
import pytest

from frostline.models import safetensors_file


def write(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def entry(dtype, shape, start, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def test_floats_of_every_length_are_read_as_float32(tmp_path):
    numbers = np.array([[1.5, -2.0, 0.25], [0.0, 3.0, -0.5]])
    upper_halves = (numbers.astype("<f4").view("<u4") >> 16).astype("<u2")
    parts = [numbers.astype("<f8"), numbers.astype("<f4"), numbers.astype("<f2"), upper_halves, np.array([7], "<i8")]
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for dtype, part in zip(("F64", "F32", "F16", "BF16", "I64"), parts, strict=True):
        shape = [1] if dtype == "I64" else [2, 3]
        header[dtype] = entry(dtype, shape, len(data), len(data) + part.nbytes)
        data += part.tobytes()
    header["nothing"] = entry("F32", [0, 4], len(data), len(data))
    tensors = safetensors_file.read(write(tmp_path / "a.safetensors", header, data))
    assert set(tensors) == {"F64", "F32", "F16", "BF16", "nothing"}
    assert tensors.pop("nothing").shape == (0, 4)
    for array in tensors.values():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, numbers)


A = entry("F32", [2], 0, 8)
HOSTILE = {
    "a header longer than the file": (b"\xff" * 7 + b"\x7f", "does not fit"),
    "a header of all numbers": ((2**63).to_bytes(8, "little") + b"{}", "does not fit"),
    "no JSON": (b"{{{{", "header is damaged"),
    "deep JSON": (b"[" * 200_000, "header is damaged"),
    "a list": (b"[]", "not an object"),
    "a name that is there twice": (b'{"a": {}, "a": {}}', "twice"),
    "no entry": ({"a": 3}, "type of a is None"),
    "a type of its own": ({"a": entry("F4", [2], 0, 8)}, "type of a is 'F4'"),
    "a negative side": ({"a": entry("F32", [-2], 0, 8)}, "shape or place of a"),
    "a side that is true": ({"a": entry("F32", [True], 0, 4)}, "shape or place of a"),
    "three offsets": ({"a": {**A, "data_offsets": [0, 8, 9]}}, "shape or place of a"),
    "many sides": ({"a": entry("F32", [1] * 9, 0, 4)}, "shape or place of a"),
    "a shape of terabytes": ({"a": entry("F32", [2**40], 0, 8)}, "another length"),
    "an end before the start": ({"a": entry("F32", [0], 8, 0)}, "another length"),
    "an overlap": ({"a": A, "b": entry("F32", [2], 4, 12)}, "overlap"),
    "the same bytes twice": ({"a": A, "b": A}, "overlap"),
    "a hole": ({"a": A, "b": entry("F32", [1], 12, 16)}, "overlap, or there is a hole"),
    "an end behind the file": ({"a": entry("F32", [200], 0, 800)}, "truncated"),
    "an end before that of the file": ({"a": entry("F32", [1], 0, 4)}, "goes on"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_refused_in_one_line(case, tmp_path):
    content, message = HOSTILE[case]
    path = tmp_path / "a.safetensors"
    if case.startswith("a header"):
        path.write_bytes(content)
    else:
        write(path, content, bytes(16 if "hole" in case else 12 if "overlap" in case else 8))
    with pytest.raises(ValueError, match=message) as error:
        safetensors_file.read(path)
    assert "\n" not in str(error.value)


def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path):
    path = write(tmp_path / "a.safetensors", {"a": entry("F32", [4], 0, 16)}, bytes(16))
    whole = path.read_bytes()
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        with pytest.raises(ValueError, match=r"truncated|header is damaged"):
            safetensors_file.places(path)
