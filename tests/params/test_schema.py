"""A mistake in params.yaml is one line that names the key and the fix."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from ruamel.yaml import YAML

from frostline.errors import ParamsError
from frostline.params.schema import Params, load

REPOSITORY = Path(__file__).parents[2]
DELETE = object()


@pytest.fixture
def refusal(tmp_path: Path) -> Callable[[str | bytes], str]:
    """A function from the text of a params.yaml to its error message, always one line that begins with the file."""

    def message(text: str | bytes) -> str:
        path = tmp_path / "params.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(ParamsError) as error:
            load(path)
        line = str(error.value)
        assert line.startswith(f"{path}: ")
        assert "\n" not in line
        assert len(line) < 400
        return line.removeprefix(f"{path}: ")

    return message


def with_key(dotted: str, value: Any) -> str:
    """The repository's own params.yaml with one key changed, added or deleted."""
    yaml = YAML(typ="safe", pure=True)
    values = yaml.load(REPOSITORY / "params.yaml")
    *sections, last = dotted.split(".")
    section = values
    for name in sections:
        section[name] = section[name] or {"train": 0.8, "val": 0.1, "test": 0.1}  # data.split is null in the file
        section = section[name]
    if value is DELETE:
        del section[last]
    else:
        section[last] = value
    out = io.StringIO()
    yaml.dump(values, out)
    return out.getvalue()


def load_with(tmp_path: Path, dotted: str, value: Any) -> Params:
    path = tmp_path / "params.yaml"
    path.write_text(with_key(dotted, value))
    return load(path)


@pytest.mark.parametrize(
    "path", [REPOSITORY / "params.yaml", *sorted(REPOSITORY.glob("recipes/*.yaml"))], ids=lambda path: path.name
)
def test_every_params_file_of_the_repository_is_valid(path: Path) -> None:
    assert load(path).seed >= 0


@pytest.mark.parametrize(
    ("dotted", "value", "message"),
    [
        ("sed", 1, "sed is not a key; did you mean seed?"),
        ("Seed", 1, "Seed is not a key; did you mean seed?"),
        ("int", 1, "int is not a key"),  # pydantic uses such names for the branches of a union
        ("xyzzy", 1, "xyzzy is not a key; remove it"),
        ("data.split.vla", 0.1, "data.split.vla is not a key; did you mean val?"),
        ("a\nb", 1, "a b is not a key"),
        ("finetune.early_stopping", {"monitr": "val_loss", "patience": 2}, "early_stopping.monitr is not a key; did "),
        ("finetune.early_stopping", {"monitr": "val_loss", "patience": 2}, "you mean monitor?"),
        ("finetune.early_stopping", {"monitor": "val_loss"}, "finetune.early_stopping.patience is missing; add it"),
        ("finetune.callbacks", {"TerminateOnNaN": {}}, "every training does what TerminateOnNaN does; remove it"),
        ("finetune.schedule", "cosin", "finetune.schedule: input should be 'constant' or 'cosine', not 'cosin'"),
        ("finetune.schedule", {"CosineDcay": {}}, "schedule.CosineDcay is not a key; did you mean CosineDecay?"),
        ("finetune.schedule", {"CosineDecay": {"warmup_epoch": 2}}, "did you mean warmup_epochs?"),
        (
            "finetune.schedule",
            {"CosineDecay": {"warmup_epochs": 2, "warmup_steps": 9}},
            "have the same meaning; remove one",
        ),
        ("finetune.schedule", {"ExponentialDecay": {}}, "schedule.ExponentialDecay.decay_rate is missing; add it"),
        ("finetune.schedule", {"ExponentialDecay": {"decay_rate": "fast"}}, "decay_rate: input should be a valid numb"),
        ("finetune.schedule", {"ExponentialDecay": {"decay_rate": 0.5, "staircase": 1}}, "should be a valid boolean"),
        ("finetune.schedule", {"PolynomialDecay": {"decay_epochs": 0}}, "decay_epochs: input should be greater than 0"),
        ("finetune.schedule", {"CosineDecayRestarts": {}}, "CosineDecayRestarts: first_decay_epochs is missing; add i"),
        ("finetune.schedule", {"PiecewiseConstantDecay": {"values": [0.1]}}, "boundary_epochs is missing; add it"),
        (
            "finetune.schedule",
            {"PiecewiseConstantDecay": {"boundary_epochs": [1], "values": [0.1]}},
            "values must be one more than the boundaries",
        ),
        ("finetune.schedule", {"CosineDecay": {}, "PolynomialDecay": {}}, "finetune.schedule: names 2 schedules; name"),
        ("finetune.early_stopping", 5, "finetune.early_stopping: should be a section of keys, not 5"),
        ("seed", DELETE, "seed is missing; add it"),
        ("data.resize", DELETE, "data.resize is missing; add it"),
        ("seed", True, "seed: input should be a valid integer, not True"),
        ("seed", "x" * 5000, "seed: input should be a valid integer"),
        ("seed", -1, "seed: input should be greater than or equal to 0, not -1"),
        ("seed", {"a": 1}, "seed: input should be a valid integer"),
        ("data", 5, "data: should be a section of keys, not 5"),
        ("data.source", "", "data.source: "),
        ("data.image_size", 4, "data.image_size: input should be greater than or equal to 8, not 4"),
        ("data.resize", "squash", "data.resize: input should be 'stretch', 'crop' or 'pad', not 'squash'"),
        ("data.split.test", 0.9, "data.split: the shares must add up to 1"),
        ("augment.rotation", float("nan"), "augment.rotation: input should be a finite number, not nan"),
        ("augment.brightness", [2, 1], "augment: brightness must be [lowest, highest]"),
        ("augment.brightness", [1, 1, 1], "augment.brightness: "),
        ("head.hidden", [0], "head.hidden.0: input should be greater than or equal to 1, not 0"),
        ("finetune.freeze", [1.5], "finetune.freeze: input should be a valid integer or a valid string, not [1.5]"),
        (
            "finetune.freeze",
            True,
            "finetune.freeze: input should be a valid integer or a valid string or a valid list, not True",
        ),
        ("finetune.learning_rate", float("inf"), "finetune.learning_rate: input should be a finite number, not inf"),
        ("finetune.learning_rate", 0, "finetune.learning_rate: input should be greater than 0, not 0"),
        ("evaluate.bootstrap", 1, "evaluate.bootstrap: "),
    ],
)
def test_the_message_for_a_wrong_key_has_the_fix(
    refusal: Callable[[str | bytes], str], dotted: str, value: Any, message: str
) -> None:
    assert message in refusal(with_key(dotted, value))


def test_nothing_to_train_is_refused(refusal: Callable[[str | bytes], str]) -> None:
    text = with_key("finetune.epochs", 0).replace("head_epochs: 13", "head_epochs: 0")
    assert "head_epochs and epochs are both 0" in refusal(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "should be a section of keys"),
        ("- 1\n", "should be a section of keys"),
        ("hello", "should be a section of keys"),
        ("seed:\t7\n\tdata: 1\n", "line 1: "),
        ("seed: 7\nseed: 8\n", 'line 2: found duplicate key "seed"'),
        ("seed: 7\nseed: |\n  two\n  lines\n", "found duplicate key"),
        ("seed: [1\n", "line "),
        ("seed: *nowhere\n", "line 1: found undefined alias"),
        ("seed: !!python/object:os.system 7\n", "line 1: could not determine a constructor"),
        ("seed: 7\n---\nseed: 8\n", "fix that line"),
        ("seed: 2024-13-45\n", "month must be in 1..12"),
        (b"# caf\xe9\nseed: 7\n", "UTF-8"),
        (b"seed: 7\0\n", "special characters are not allowed"),
        ("[" * 1500, "nested too deeply"),
        ("1: 2\n", "keys should be strings"),
        ("a: &a [*a]\n", "a is not a key"),
    ],
)
def test_broken_yaml_is_reported_in_one_line(
    refusal: Callable[[str | bytes], str], text: str | bytes, message: str
) -> None:
    assert message in refusal(text)


def test_a_missing_file_and_a_folder_are_reported(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"none\.yaml: not found; run from the project's folder"):
        load(tmp_path / "none.yaml")
    with pytest.raises(ParamsError, match="can't be read"):
        load(tmp_path)


def test_numbers_are_read_as_yaml_1_2(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    for number in ("1e-3", "1E-3", "0.001"):
        path.write_text(with_key("finetune.learning_rate", "HERE").replace("HERE", number))
        assert load(path).finetune.learning_rate == 1e-3


def test_a_byte_order_mark_is_not_part_of_the_first_key(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + (REPOSITORY / "params.yaml").read_bytes())
    assert load(path) == load(REPOSITORY / "params.yaml")


@pytest.mark.parametrize("freeze", ["none", "all", 5, -15, "block4_out"])
def test_freeze_accepts_words_numbers_and_names(tmp_path: Path, freeze: int | str) -> None:
    assert load_with(tmp_path, "finetune.freeze", freeze).finetune.freeze == freeze


def test_integers_are_valid_floats_and_lists_valid_pairs(tmp_path: Path) -> None:
    assert load_with(tmp_path, "augment.rotation", 20).augment.rotation == 20
    assert load_with(tmp_path, "augment.brightness", [1, 2]).augment.brightness == (1, 2)
    assert load_with(tmp_path, "augment.brightness", None).augment.brightness is None


def test_params_are_frozen() -> None:
    params = load(REPOSITORY / "params.yaml")
    with pytest.raises(ValidationError):
        params.seed = 8


@pytest.mark.parametrize(
    ("value", "dumped_value"),
    [
        ("cosine", "cosine"),
        ("PolynomialDecay", {"PolynomialDecay": {}}),
        ({"PolynomialDecay": {"power": 2.0, "cycle": False}}, {"PolynomialDecay": {"power": 2.0, "cycle": False}}),
        (
            {"PiecewiseConstantDecay": {"boundary_epochs": [1], "values": [0.1, 0.2]}},
            {"PiecewiseConstantDecay": {"boundary_epochs": [1], "values": [0.1, 0.2]}},
        ),
    ],
)
def test_a_schedule_is_dumped_as_in_the_file(tmp_path: Path, value: Any, dumped_value: Any) -> None:
    params = load_with(tmp_path, "finetune.schedule", value)
    assert params.model_dump()["finetune"]["schedule"] == dumped_value
    assert Params.model_validate(params.model_dump()) == params
