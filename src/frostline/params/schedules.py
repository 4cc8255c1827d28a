"""The section `finetune.schedule`: a word, or one of Keras's learning-rate schedules with its arguments.

Names and arguments are those of `keras.optimizers.schedules`. Lengths can be in epochs instead of steps: `decay_epochs`
instead of `decay_steps`, and so on; boundaries are `boundary_steps` or `boundary_epochs`. The initial rate is the
learning rate of the phase. A decay without a length ends with its phase.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_serializer, model_validator

from frostline.params.section import Section

Rate = Annotated[float, Field(ge=0)]
Length = Annotated[float, Field(gt=0)]
Rates = Annotated[tuple[Rate, ...], Field(strict=False)]  # YAML has lists


class Schedule(Section):
    """A learning rate over the steps of a phase. A length is in steps or in epochs, never in both."""

    @model_validator(mode="after")
    def _in_one_unit(self) -> Self:
        for in_steps in self.model_fields_set:
            in_epochs = in_steps.replace("_steps", "_epochs")
            if in_epochs != in_steps and in_epochs in self.model_fields_set:
                raise ValueError(f"{in_steps} and {in_epochs} have the same meaning; remove one")
        return self


class Flat(Schedule):
    """The learning rate of the phase, without a change."""


class Cosine(Schedule):
    """Keras's `CosineDecay`. A warm-up begins at `initial_learning_rate`."""

    decay_steps: Length | None = None
    decay_epochs: Length | None = None
    alpha: Rate = 0.0
    warmup_steps: Rate | None = None
    warmup_epochs: Rate | None = None
    initial_learning_rate: Rate = 0.0


class CosineRestarts(Schedule):
    """Keras's `CosineDecayRestarts`."""

    first_decay_steps: Length | None = None
    first_decay_epochs: Length | None = None
    t_mul: Rate = 2.0
    m_mul: Rate = 1.0
    alpha: Rate = 0.0

    @model_validator(mode="after")
    def _has_length(self) -> Self:
        if self.first_decay_steps is None and self.first_decay_epochs is None:
            raise ValueError("first_decay_epochs is missing; add it")
        return self


class Exponential(Schedule):
    """Keras's `ExponentialDecay`."""

    decay_rate: Rate
    decay_steps: Length | None = None
    decay_epochs: Length | None = None
    staircase: bool = False


class InverseTime(Schedule):
    """Keras's `InverseTimeDecay`."""

    decay_rate: Rate
    decay_steps: Length | None = None
    decay_epochs: Length | None = None
    staircase: bool = False


class Polynomial(Schedule):
    """Keras's `PolynomialDecay`."""

    decay_steps: Length | None = None
    decay_epochs: Length | None = None
    end_learning_rate: Rate = 0.0001
    power: Rate = 1.0
    cycle: bool = False


class Piecewise(Schedule):
    """Keras's `PiecewiseConstantDecay`: absolute learning rates, each until a boundary, the last one until the end."""

    boundary_steps: Rates | None = None
    boundary_epochs: Rates | None = None
    values: Rates

    @model_validator(mode="after")
    def _a_value_more(self) -> Self:
        boundaries = self.boundary_steps if self.boundary_epochs is None else self.boundary_epochs
        if boundaries is None:
            raise ValueError("boundary_epochs is missing; add it")
        if len(self.values) != len(boundaries) + 1:
            raise ValueError("values must be one more than the boundaries; add or remove one")
        return self


class NamedSchedule(Section):
    """A mapping with one key, Keras's name of a schedule, and the schedule's arguments."""

    Constant: Flat | None = None
    CosineDecay: Cosine | None = None
    CosineDecayRestarts: CosineRestarts | None = None
    ExponentialDecay: Exponential | None = None
    InverseTimeDecay: InverseTime | None = None
    PolynomialDecay: Polynomial | None = None
    PiecewiseConstantDecay: Piecewise | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if len(self.model_fields_set) != 1:
            raise ValueError(
                f"names {len(self.model_fields_set)} schedules; name one, like {{CosineDecay: {{warmup_epochs: 2}}}}"
            )
        return self

    @property
    def schedule(self) -> Schedule:
        """The schedule."""
        (name,) = self.model_fields_set
        schedule: Schedule = getattr(self, name)
        return schedule

    @model_serializer
    def _as_written(self) -> dict[str, Any]:
        (name,) = self.model_fields_set
        return {name: self.schedule.model_dump(mode="json", exclude_unset=True)}


# The tags appear in the keys of pydantic's errors; `messages` removes them.
ScheduleValue = Annotated[
    Annotated[Literal["constant", "cosine"], Tag("str")] | Annotated[NamedSchedule, Tag("{}")],
    Discriminator(lambda value: "str" if isinstance(value, str) else "{}"),
]


def schedule_of(value: Literal["constant", "cosine"] | NamedSchedule) -> Schedule:
    """The schedule for a value of `finetune.schedule`."""
    if isinstance(value, NamedSchedule):
        return value.schedule
    return Cosine() if value == "cosine" else Flat()
