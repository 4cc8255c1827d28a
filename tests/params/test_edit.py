import shutil

import pytest
from conftest import ROOT
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from frostline.errors import ParamsError
from frostline.params import edit
from frostline.params.schema import load


def test_only_the_values_change(tmp_path):
    path = tmp_path / "params.yaml"
    shutil.copy(ROOT / "params.yaml", path)
    before = path.read_text().splitlines()
    edit.change(
        path,
        {
            "finetune.freeze": "block_3_project_BN",
            "finetune.learning_rate": 2.5e-05,
            "augment.brightness": [0.5, 1.5],
            "head.dropout": 0.1234567890123,
            "finetune.batch_size": 8,
            "finetune.schedule": "constant",
        },
    )
    after = path.read_text().splitlines()
    assert len(after) == len(before)
    line_pairs = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert len(line_pairs) == 6
    for old, new in line_pairs:
        assert old.partition(":")[0] == new.partition(":")[0]
        assert old.partition("#")[2] == new.partition("#")[2]
    assert any(line.startswith("  batch_size: 8") for line in after)
    freeze = next(line for line in after if line.startswith("  freeze"))
    assert freeze.index("#") == next(line for line in before if line.startswith("  freeze")).index("#")
    params = load(path)
    assert params.finetune.freeze == "block_3_project_BN"
    assert params.finetune.learning_rate == 2.5e-05
    assert params.augment.brightness == (0.5, 1.5)
    assert params.head.dropout == 0.1234567890123


@pytest.mark.parametrize(
    "value",
    [1e-05, 1e22, 0.1, 5, -15, True, None, "yes", "null", "a b", "x: y", "ümlaut", "1e-3", [], [1, 2]],
    ids=repr,
)
def test_any_value_is_read_back_unchanged(tmp_path, value):
    path = tmp_path / "params.yaml"
    path.write_text("a:\n  b: 1   # why\n  c: [1, 2]\nd: {e: x}\r\n")
    edit.change(path, {"a.b": value, "d.e": value})
    values = YAML(typ="safe", pure=True).load(path)
    assert values == {"a": {"b": value, "c": [1, 2]}, "d": {"e": value}}
    assert type(values["a"]["b"]) is type(value)
    assert "# why" in path.read_text()


def test_a_missing_key_is_refused_and_nothing_changes(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("a: {b: 1}\n")
    with pytest.raises(ParamsError, match=r"a\.x is not in it"):
        edit.change(path, {"a.b": 2, "a.x": 1})
    assert path.read_text() == "a: {b: 1}\n"


@pytest.mark.parametrize(
    "text", ["a:\n  b:\n  c: 1\n", "a:\n  b:   # why\n  c: 1\n", "a: {b: , c: 1}\n", "a:\n  c: 1\n  b:"]
)
def test_an_empty_value_is_filled_in(tmp_path, text):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    edit.change(path, {"a.b": "x"})
    assert YAML(typ="safe", pure=True).load(path) == {"a": {"b": "x", "c": 1}}
    assert ("why" in text) == ("# why" in path.read_text())


@pytest.mark.parametrize(
    "text",
    [
        "a: {b: &l 1, c: *l}\n",
        "l: &l 1\na: {b: *l}\n",
        "a:\n  b:\n    - 1\n    - 2\n  c: 1\n",
        "a:\n  b: |\n    x\n  c: 1\n",
        "a:\n  b: 'x'#y\n",
    ],
)
def test_a_value_that_cannot_be_changed_alone_is_refused_or_right(tmp_path, text):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    try:
        expected = YAML(typ="safe", pure=True).load(path)
    except YAMLError:
        expected = None
    is_refused = False
    try:
        edit.change(path, {"a.b": 5})
    except ParamsError as error:
        is_refused = "write by hand a.b: 5" in str(error)
    if is_refused:
        assert path.read_text() == text
    else:
        expected["a"]["b"] = 5
        assert YAML(typ="safe", pure=True).load(path) == expected
