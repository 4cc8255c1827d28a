"""Digests depend only on the content."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
import pytest

from frostline.core import digest


def test_a_file_has_the_digest_that_sha256sum_prints(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"frost")
    assert digest.of_file(tmp_path / "f") == hashlib.sha256(b"frost").hexdigest()


def test_the_digest_of_a_folder_depends_on_names_and_bytes(tmp_path: Path) -> None:
    def folder_digest(name: str, files: dict[str, str]) -> str:
        for path, text in files.items():
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / path).write_text(text)
        return digest.of_folder(tmp_path / name)

    base = folder_digest("base", {"a": "1", "b/c": "2"})
    assert folder_digest("same", {"b/c": "2", "a": "1"}) == base
    assert (
        len({base, folder_digest("bytes", {"a": "1", "b/c": "3"}), folder_digest("name", {"a": "1", "b/d": "2"})}) == 3
    )


def test_the_digest_of_an_array_depends_on_dtype_shape_and_elements() -> None:
    base = np.arange(6, dtype=np.uint8)
    others = [base.astype(np.int8), base.reshape(2, 3), base.reshape(3, 2), base[::-1]]
    assert len({digest.of_array(array) for array in [base, *others]}) == 5
    assert digest.of_array(np.asfortranarray(base.reshape(2, 3))) == digest.of_array(base.reshape(2, 3))


def test_the_digest_of_a_value_does_not_depend_on_the_order_of_keys() -> None:
    assert digest.of_value({"a": 1, "b": [2, None]}) == digest.of_value({"b": (2, None), "a": 1})
    assert digest.of_value({"a": 1}) != digest.of_value({"a": "1"})
    with pytest.raises(ValueError, match="JSON"):
        digest.of_value(math.nan)


def test_an_iterator_counts_as_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digest, "AT_ONCE", 3)
    for count in (0, 1, 3, 7):
        items = [[f"\u00e9{number}", number] for number in range(count)]
        assert digest.of_value(iter(items)) == digest.of_value(items)
        assert digest.of_value([("a", "b"), iter(items), 8, map(str, [])]) == digest.of_value(
            [("a", "b"), items, 8, []]
        )
