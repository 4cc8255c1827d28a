"""The reader of torch's legacy checkpoints, on files that are written here as `torch.save` wrote them."""

import contextlib
import io
import os
import pickle
import struct
from collections import OrderedDict

import numpy as np
import pytest

from frostline.models import torch_checkpoint


class Named:
    """Is pickled as the name of something that need not exist here."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class Call:
    """Is pickled as a call of a named function."""

    def __init__(self, function, *args):
        self.function, self.args = function, args


class Writer(pickle._Pickler):
    """A pickler in Python, which can write names that it can't import."""

    def save(self, value, **options):
        if isinstance(value, Named):
            self.write(f"c{value.module}\n{value.name}\n".encode())
        elif isinstance(value, Call):
            self.save(value.function)
            self.save(value.args)
            self.write(pickle.REDUCE)
        else:
            super().save(value, **options)

    def persistent_id(self, value):
        return value[1] if isinstance(value, tuple) and value[:1] == ("storage of",) else None


FLOAT, LONG = Named("torch", "FloatStorage"), Named("torch", "LongStorage")


def pickled(value):
    file = io.BytesIO()
    Writer(file, 2).dump(value)
    return file.getvalue()


def tensor(key, count, offset=0, shape=(2, 3), strides=(3, 1), kind=FLOAT):
    storage = ("storage of", ("storage", kind, key, "cpu", count, None))
    rebuild = Named("torch._utils", "_rebuild_tensor_v2")
    return Call(rebuild, storage, offset, shape, strides, False, OrderedDict())


def checkpoint(state, storages, little_endian=True, version=torch_checkpoint.VERSION):
    """The bytes of a file. storages: arrays by key."""
    head = [torch_checkpoint.MAGIC, version, {"protocol_version": version, "little_endian": little_endian}]
    data = b"".join(map(pickled, [*head, OrderedDict(state), list(storages)]))
    return data + b"".join(struct.pack("<q", len(array)) + array.tobytes() for array in storages.values())


SIX = np.arange(6, dtype="<f4")
GOOD = checkpoint({"a": tensor("1", 6)}, {"1": SIX})


def test_tensors_have_their_offsets_and_strides():
    state = {
        "rows": tensor("1", 6),
        "columns": tensor("1", 6, strides=(1, 2)),
        "end": tensor("1", 6, offset=4, shape=(2,), strides=(1,)),
        "count": tensor("2", 1, shape=(), strides=(), kind=LONG),
    }
    tensors = torch_checkpoint.read(checkpoint(state, {"1": SIX, "2": np.array([2**40], "<i8")}))
    assert list(tensors) == list(state)
    np.testing.assert_array_equal(tensors["rows"], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(tensors["columns"], [[0, 2, 4], [1, 3, 5]])
    np.testing.assert_array_equal(tensors["end"], [4, 5])
    assert tensors["count"] == 2**40
    assert {array.dtype for array in tensors.values()} == {np.dtype("float32"), np.dtype("int64")}
    assert all(array.flags.c_contiguous and array.flags.writeable for array in tensors.values())


@pytest.mark.parametrize(
    ("module", "name"),
    [("os", "system"), ("builtins", "eval"), ("torch", "HalfStorage"), ("collections", "Counter"), ("torch", "load")],
)
def test_a_pickle_that_names_anything_else_is_refused_before_it_is_called(module, name, tmp_path):
    trace = tmp_path / "trace"
    for value in (Named(module, name), Call(Named(module, name), f"touch {trace}")):
        for data in (checkpoint({"a": value}, {}), pickled(value)):
            with pytest.raises(ValueError, match=rf"it names {module}\.{name}, which is no part of a state dict"):
                torch_checkpoint.read(data)
    assert not trace.exists()


def test_a_pickle_that_python_itself_wrote_is_refused():
    class Evil:
        def __reduce__(self):
            return os.getcwd, ()

    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(ValueError, match=r"it names (posix|nt)\.getcwd|it is damaged"):
            torch_checkpoint.read(pickle.dumps(Evil(), protocol))


def test_every_truncated_file_is_refused():
    assert torch_checkpoint.read(GOOD)["a"].shape == (2, 3)
    for length in range(len(GOOD)):
        with pytest.raises(ValueError, match=r"it (is|names)"):
            torch_checkpoint.read(GOOD[:length])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (GOOD + b"x", "goes on behind its last storage"),
        (checkpoint({}, {}, version=1002), "not in torch's legacy format"),
        (checkpoint({}, {}, little_endian=False), "not in torch's legacy format"),
        (pickled("text") * 5, "not in torch's legacy format"),
        (b"\x80\x02X\xff\xff\xff\x7fa.", "it is"),  # a text of 2 GB
        (b"\x80\x02Nr\xff\xff\xff\x7f.", "it is"),  # a memo of 2,147,483,647 places
        (
            b"\x80\x05\x96\x00\x00\x00\x00\x08\x00\x00\x00a.",
            "damaged",
        ),  # 32 GB of bytes, an instruction that torch lacks
        (checkpoint({"a": tensor("2", 6)}, {"1": SIX}), "damaged"),
        (checkpoint({"a": tensor("1", 7)}, {"1": SIX}), "truncated, or a storage has another length"),
        (checkpoint({"a": tensor("1", 10**15)}, {"1": SIX}), "truncated, or a storage has another length"),
        (checkpoint({"a": tensor("1", -6)}, {"1": SIX}), "truncated, or a storage has another length"),
        (checkpoint({"a": tensor("1", 6, offset=1)}, {"1": SIX}), "reaches beyond its storage"),
        (checkpoint({"a": tensor("1", 6, offset=-1)}, {"1": SIX}), "reaches beyond its storage"),
        (checkpoint({"a": tensor("1", 6, shape=(7,), strides=(1,))}, {"1": SIX}), "reaches beyond its storage"),
        (checkpoint({"a": tensor("1", 6, shape=(2,), strides=(-1,))}, {"1": SIX}), "reaches beyond its storage"),
        (checkpoint({"a": tensor("1", 6, shape=(10**9, 10**9), strides=(0, 0))}, {"1": SIX}), "reaches beyond"),
        (checkpoint({"a": tensor("1", 6, strides=(1,))}, {"1": SIX}), "zip"),
    ],
)
def test_what_does_not_fit_is_refused(data, reason):
    with pytest.raises(ValueError, match=reason) as error:
        torch_checkpoint.read(data)
    assert "\n" not in str(error.value)


def test_a_file_that_is_too_large_is_refused_before_it_is_opened(monkeypatch):
    monkeypatch.setattr(torch_checkpoint, "LARGEST", len(GOOD) - 1)
    with pytest.raises(ValueError, match="more than"):
        torch_checkpoint.read(GOOD)


def test_a_changed_byte_gives_a_refusal_or_other_numbers():
    for place in range(len(GOOD)):
        for value in (0, 255, GOOD[place] ^ 1, GOOD[place] ^ 128):
            with contextlib.suppress(ValueError):
                torch_checkpoint.read(GOOD[:place] + bytes([value]) + GOOD[place + 1 :])
