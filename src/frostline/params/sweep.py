"""The section `sweep` of params.yaml: what `frostline sweep` searches, and how."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from frostline.params.section import Positive, Section


class Range(Section):
    """Numbers from `low` to `high`, both included, with a uniform distribution, of their logarithms if `log`.

    `step`: of a grid that begins at `low`; without a step, the numbers are integers if both ends are integers.
    """

    low: int | float
    high: int | float
    log: bool = False
    step: Annotated[int | float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low >= self.high:
            raise ValueError("low must be less than high")
        if self.log and self.low <= 0:
            raise ValueError("low must be more than 0 if log is true")
        if self.log and self.step is not None:
            raise ValueError("step and log exclude each other")
        return self


class Auto(Section):
    """`auto`: this number of freeze depths, from `none` to `all`, spread evenly by the compute of trained layers."""

    auto: Annotated[int, Field(ge=2, le=64)]


class Blocks(Section):
    """`auto`: each block of the backbone by itself, for `finetune.train`."""

    blocks: Literal["auto"]


Choices = Annotated[list[int | float | str | bool | None], Field(min_length=1)]


class SweepSection(Section):
    """The search of `frostline sweep`.

    `space`: dotted keys of params.yaml, each with a range or a list of values; `prior`: where the first points come
    from, the sampler alone or what frozen features are worth (see `frostline.choice`); `timeout`: seconds after which
    no new trial begins; `storage`: `auto` (SQLite, opened by one process), `journal` (a file, opened by several
    processes of this machine) or the URL of a database or of Optuna's proxy (several machines); `patience`: seconds for
    which a worker waits for a database that is not available; `soup`: average the weights of the best trials where that
    is better on the validation split.
    """

    trials: Positive
    timeout: Annotated[float, Field(gt=0)] | None
    sampler: Literal["tpe", "random", "grid", "gp"]
    prior: Literal["none", "choose"] = "none"
    pruner: Literal["halving", "median", "hyperband", "none"]
    metric: Literal["val_accuracy", "val_loss"]
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    storage: Annotated[str, Field(min_length=1)]
    patience: Annotated[float, Field(ge=0)]
    soup: Literal["none", "greedy"] = "none"
    space: Annotated[dict[str, Auto | Blocks | Range | Choices], Field(min_length=1)]
