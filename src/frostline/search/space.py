"""The search space: which keys of params.yaml a sweep varies, and over what.

Values are kept as they would stand in params.yaml, so a trial is params.yaml with some keys changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from frostline.core import suggest
from frostline.errors import ParamsError
from frostline.models import backbones
from frostline.params.schema import Params
from frostline.params.sweep import Auto, Blocks, Range

FREEZE, TRAIN, RATE = "finetune.freeze", "finetune.train", "finetune.learning_rate"
BODY = "backbone.name"

# Keys that change what the validation loss means.
IN_LOSS = {"finetune.label_smoothing", "finetune.loss", "finetune.focal_gamma", "head.l2"}

SEARCHABLE = ("augment", "finetune", "head")

Value = int | float | str | bool | None


@dataclass(frozen=True)
class Choice:
    """A list of values. is_ordered: whether neighbours in the list are alike, as numbers and freeze depths are."""

    key: str
    values: tuple[Value, ...]
    is_ordered: bool


@dataclass(frozen=True)
class Interval:
    """A number from low to high, both included. step: of a grid that begins at low, or None; is_whole: integer."""

    key: str
    low: float
    high: float
    log: bool
    step: float | None
    is_whole: bool

    @property
    def ends(self) -> tuple[float, float]:
        """The lowest and the highest value, as samplers give them."""
        return (int(self.low), int(self.high)) if self.is_whole else (float(self.low), float(self.high))


Dimension = Choice | Interval


Automatic = Callable[[Auto | Blocks], Sequence[int | str]]


def dimensions(params: Params, automatic: Automatic) -> list[Dimension]:
    """The space of params.yaml. automatic: gives the values that `{auto: n}` and `{blocks: auto}` stand for.

    Raises ParamsError for a key that can't be searched, and for a value that the key can't have.
    """
    for key in params.sweep.space:
        section, *rest = key.split(".")
        if key != BODY and (not rest or section not in SEARCHABLE):
            raise ParamsError(
                f"params.yaml: sweep.space.{key} can't be searched: it needs a key of {', '.join(SEARCHABLE)}, or "
                f"{BODY}; for others use `dvc exp run --queue -S ...`"
            )
    loss_keys = sorted(IN_LOSS & params.sweep.space.keys())
    if params.sweep.metric == "val_loss" and loss_keys:
        raise ParamsError(
            f"params.yaml: sweep.metric val_loss can't compare values of {loss_keys[0]}, which is part of the loss; "
            "set it to val_accuracy"
        )
    space = [_dimension(params, key, spec, automatic) for key, spec in params.sweep.space.items()]
    for dimension in space:
        for value in dimension.values if isinstance(dimension, Choice) else dimension.ends:
            with_values(params, {dimension.key: value})
    return space


def changes(params: Params, values: Mapping[str, Any]) -> dict[str, Any]:
    """All keys that change with a point of the space. Another body has its usual weights, and is not cut.

    Raises ParamsError for a body that is not known.
    """
    found: dict[str, Any] = dict(values)
    name = values.get(BODY)
    if name is not None and name != params.backbone.name:
        found |= {f"backbone.{key}": value for key, value in backbones.usual(str(name)).model_dump().items()}
    return found


def with_values(params: Params, values: Mapping[str, Any]) -> Params:
    """params.yaml with some keys changed. Raises ParamsError for an unknown key or a value that the key can't have."""
    changed = params.model_dump()
    for key, value in changes(params, values).items():
        *sections, name = key.split(".")
        part: Any = changed
        for section in sections:
            part = part.get(section) if isinstance(part, dict) else None
        if not isinstance(part, dict) or name not in part:
            keys = [f"{section}.{name}" for section in SEARCHABLE for name in changed[section]]
            raise ParamsError(
                f"params.yaml: sweep.space.{key} is not a key; {suggest.hint(key, keys, otherwise='remove it')}"
            )
        part[name] = value
    try:
        return Params.model_validate(changed)
    except ValidationError as error:
        first = error.errors()[0]
        values_text = ", ".join(f"{key} = {value!r}" for key, value in values.items())
        why = first["msg"][0].lower() + first["msg"][1:]
        raise ParamsError(f"params.yaml: sweep.space: {values_text} can't be: {why}; fix it") from None


def _dimension(
    params: Params, key: str, spec: Auto | Blocks | Range | Sequence[Value], automatic: Automatic
) -> Dimension:
    if isinstance(spec, Auto | Blocks):
        wanted, form = (FREEZE, "{auto: n}") if isinstance(spec, Auto) else (TRAIN, "{blocks: auto}")
        if key != wanted:
            raise ParamsError(f"params.yaml: sweep.space.{key}: {form} is for {wanted} alone; give a range or a list")
        return Choice(key, tuple(automatic(spec)), is_ordered=True)
    if isinstance(spec, Range):
        numbers = [number for number in (spec.low, spec.high, spec.step) if number is not None]
        is_whole = all(isinstance(number, int) for number in numbers) and not _takes(params, key, spec.low + 0.5)
        return Interval(key, spec.low, spec.high, spec.log, spec.step, is_whole)
    is_numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in spec)
    return Choice(key, tuple(dict.fromkeys(spec)), is_ordered=is_numeric or key in (FREEZE, TRAIN))


def _takes(params: Params, key: str, value: Value) -> bool:
    try:
        with_values(params, {key: value})
    except ParamsError:
        return False
    return True
