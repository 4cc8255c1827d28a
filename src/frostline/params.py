"""The typed, frozen schema of params.yaml.

Every key must be written in the file: no default hides in code, and an unknown key is refused. YAML is read as
version 1.2, as DVC reads it, so `1e-3` is a number and `none` a word.
"""

from __future__ import annotations

import reprlib
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from frostline import schedules
from frostline.errors import ParamsError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Split(_Section):
    """Shares of the images that go to each split; they add up to 1."""

    train: Annotated[float, Field(gt=0, lt=1)]
    val: Annotated[float, Field(gt=0, lt=1)]
    test: Annotated[float, Field(gt=0, lt=1)]

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if abs(self.train + self.val + self.test - 1) > 1e-6:
            raise ValueError(f"the shares must add up to 1, not {self.train + self.val + self.test:g}")
        return self


class Data(_Section):
    """What is learned from. `image_size`: side in pixels of the square every image is resized to.

    `min_side`: pictures with a shorter side, in pixels, are left out. `near_duplicates`: resized, recompressed or
    brightened copies are looked for and kept on one side of the split.
    """

    source: Annotated[str, Field(min_length=1)]
    image_size: Annotated[int, Field(ge=8, le=2048)]
    resize: Literal["stretch", "crop", "pad"]
    min_side: Positive
    train_per_class: Positive | None
    split: Split
    near_duplicates: bool
    on_problem: Literal["drop", "error"]


class Augment(_Section):
    """Ranges of the seeded variants; angles in degrees, shifts and zoom as shares of the side.

    `mode`: `stored` variants on the disk, `copies` of them, or `live` ones, drawn afresh for every batch. `mixup`,
    `cutmix`: alpha of the Beta distribution that says how much of two pictures is mixed in a batch, 0 for none.
    """

    mode: Literal["stored", "live"]
    copies: Count
    rotation: Annotated[float, Field(ge=0, le=180)]
    width_shift: Fraction
    height_shift: Fraction
    shear: Annotated[float, Field(ge=0, lt=90)]
    zoom: Fraction
    horizontal_flip: bool
    vertical_flip: bool
    brightness: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]] | None
    fill_mode: Literal["constant", "nearest", "reflect", "wrap"]
    mixup: Annotated[float, Field(ge=0)]
    cutmix: Annotated[float, Field(ge=0)]

    @model_validator(mode="before")
    @classmethod
    def _pairs(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("brightness"), list):
            return {**values, "brightness": tuple(values["brightness"])}
        return values

    @property
    def stored(self) -> dict[str, Any] | None:
        """What stored variants depend on; None where there are none."""
        has_none = self.mode == "live" or self.copies == 0
        return None if has_none else self.model_dump(exclude={"mode", "mixup", "cutmix"})

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.brightness and self.brightness[0] > self.brightness[1]:
            raise ValueError("brightness must be [lowest, highest]")
        return self


class Backbone(_Section):
    """`weights`: `imagenet`, `builtin` (frostnet), `none`, a file, a bundle's folder or a model of the registry
    (`models:/NAME@ALIAS`). `alpha`: the width of backbones that have one, null for their own. `until`: cut the body
    after this layer."""

    name: str
    weights: Annotated[str, Field(min_length=1)]
    alpha: Annotated[float, Field(gt=0)] | None
    until: str | None


class Head(_Section):
    """What stands on the backbone: pooling, hidden Dense layers each followed by dropout, one logit a class.

    `dropout`: one rate, or a list with one for each hidden layer; `batch_norm`: between a hidden layer and its
    activation; `l2`: penalty on the kernels of all Dense layers, as Keras's `L2` has it. `classifier`: `dense`, or
    one of scikit-learn's, with `classifier_args` for its constructor, trained on frozen features.
    """

    pooling: Literal["avg", "max", "flatten"]
    hidden: list[Positive]
    activation: Literal["relu", "gelu", "silu", "elu", "tanh"]
    dropout: Fraction | list[Fraction]
    batch_norm: bool
    l2: Annotated[float, Field(ge=0)]
    binary: bool
    classifier: Literal["dense", "logistic_regression", "linear_svm", "random_forest", "knn"]
    classifier_args: dict[str, int | float | str | bool | None]

    @model_validator(mode="after")
    def _a_rate_each(self) -> Self:
        if isinstance(self.dropout, list) and len(self.dropout) != max(1, len(self.hidden)):
            raise ValueError(
                f"head.dropout has {len(self.dropout)} rates for {len(self.hidden)} layers of head.hidden; give one "
                "rate, or one for each"
            )
        return self


Monitor = Literal["val_loss", "val_accuracy"]


class EarlyStopping(_Section):
    """Stop a phase after `patience` epochs without a better `monitor`; the best weights are restored.

    `min_delta`: an improvement must be more than this; `start_from_epoch`: epochs before that don't count.
    """

    monitor: Monitor
    patience: Positive
    min_delta: Annotated[float, Field(ge=0)] = 0.0
    start_from_epoch: Count = 0


class _ReduceLROnPlateau(_Section):
    """Keras's callback: the learning rate times `factor` after `patience` epochs without a better `monitor`."""

    monitor: Monitor = "val_loss"
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    patience: Positive = 10
    min_delta: Annotated[float, Field(ge=0)] = 1e-4
    cooldown: Count = 0
    min_lr: Annotated[float, Field(ge=0)] = 0.0


class _LearningRateScheduler(_Section):
    """Keras's callback, with a table instead of a function: the learning rate from each epoch (from 0) on."""

    schedule: Annotated[dict[Count, Annotated[float, Field(gt=0)]], Field(min_length=1)]


class _ModelCheckpoint(_Section):
    """Keras's callback: keep the weights of the epoch with the best `monitor`, without stopping."""

    monitor: Monitor = "val_loss"
    save_best_only: Literal[True] = True


class _TensorBoard(_Section):
    """Keras's callback: the epochs' numbers for TensorBoard, in a folder for each training below `log_dir`."""

    log_dir: Annotated[str, Field(min_length=1)] = "logs"


class _TerminateOnNaN(_Section):
    """Keras's callback; a training always ends where its loss is no number."""


class Callbacks(_Section):
    """Keras's callbacks by their names, each with its arguments; what is left out has Keras's own default."""

    ReduceLROnPlateau: _ReduceLROnPlateau | None = None
    LearningRateScheduler: _LearningRateScheduler | None = None
    ModelCheckpoint: _ModelCheckpoint | None = None
    TensorBoard: _TensorBoard | None = None
    TerminateOnNaN: _TerminateOnNaN | None = None


class Finetune(_Section):
    """Two phases: the head alone on frozen features, then everything above the freeze line."""

    freeze: int | str | list[int | str]
    layer_decay: Annotated[float, Field(gt=0, le=1)]
    batch_norm: Literal["auto", "freeze", "train"]
    head_epochs: Count
    head_learning_rate: Annotated[float, Field(gt=0)]
    epochs: Count
    batch_size: Positive
    optimizer: Literal["adam", "adamw", "sgd"]
    learning_rate: Annotated[float, Field(gt=0)]
    momentum: Fraction
    weight_decay: Annotated[float, Field(ge=0)]
    schedule: str | dict[str, dict[str, Any]]
    early_stopping: EarlyStopping | None
    callbacks: Callbacks
    loss: Literal["cross_entropy", "focal"]
    focal_gamma: Annotated[float, Field(ge=0)]
    class_weight: Literal["none", "balanced"]
    label_smoothing: Fraction
    ema_momentum: Fraction
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"]

    @model_validator(mode="after")
    def _some_training(self) -> Self:
        if self.head_epochs + self.epochs == 0:
            raise ValueError("head_epochs and epochs are both 0, so nothing would be trained")
        if schedules.parse(self.schedule).name != "Constant" and self.callbacks.LearningRateScheduler:
            raise ValueError(
                "finetune.schedule and finetune.callbacks.LearningRateScheduler both set the learning rate; set the "
                "former to constant, or remove the latter"
            )
        best = self.callbacks.ModelCheckpoint
        if best and self.early_stopping and best.monitor != self.early_stopping.monitor:
            raise ValueError(
                "finetune.early_stopping.monitor and finetune.callbacks.ModelCheckpoint.monitor differ, so it is not "
                "said which weights are the best; make them the same"
            )
        return self


class Cache(_Section):
    """The store of frozen activations, in gigabytes (10^9 bytes): `disk_gb` bounds its folder, `memory_gb` how much
    of it and of the pictures stays in memory while a training reads them."""

    mode: Literal["auto", "always", "never"]
    disk_gb: Annotated[float, Field(gt=0)]
    memory_gb: Annotated[float, Field(gt=0)]
    dtype: Literal["float16", "float32"]


class Evaluate(_Section):
    """`top_k`: k of the top-k accuracy; `bootstrap`: resamples behind the 95% intervals; `calibrate`: what `finetune`
    fits on the validation split and puts into the bundle."""

    top_k: Positive
    bootstrap: Annotated[int, Field(ge=100)]
    calibrate: Literal["none", "temperature"]


class Range(_Section):
    """Numbers from `low` to `high`, both included; drawn evenly, or evenly in their logarithm. step: of a grid from
    `low` on; without one, integers are drawn where both ends are integers."""

    low: int | float
    high: int | float
    log: bool = False
    step: Annotated[int | float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low >= self.high:
            raise ValueError("low must be less than high")
        if self.log and self.low <= 0:
            raise ValueError("low must be more than 0 where log is true")
        if self.log and self.step is not None:
            raise ValueError("step and log exclude each other")
        return self


class Auto(_Section):
    """So many freeze depths, from nothing to everything frozen, spread by the compute that they leave to train."""

    auto: Annotated[int, Field(ge=2, le=64)]


Choices = Annotated[list[int | float | str | bool | None], Field(min_length=1)]


class Sweep(_Section):
    """What `frostline sweep` searches: dotted keys of params.yaml, each with a range or the values to choose from.

    timeout: seconds after which no new work is begun. storage: `auto` (SQLite, one worker), `journal` (a file, several
    workers on this machine) or a database's URL (several machines).
    """

    trials: Positive
    timeout: Annotated[float, Field(gt=0)] | None
    sampler: Literal["tpe", "random", "grid", "gp"]
    pruner: Literal["halving", "median", "hyperband", "none"]
    metric: Literal["val_accuracy", "val_loss"]
    direction: Literal["maximize", "minimize"]
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    storage: Annotated[str, Field(min_length=1)]
    space: Annotated[dict[str, Auto | Range | Choices], Field(min_length=1)]

    @model_validator(mode="after")
    def _towards_better(self) -> Self:
        if (self.metric == "val_accuracy") != (self.direction == "maximize"):
            raise ValueError(f"{self.metric} can't be {self.direction}d; set direction to the other one")
        return self


class Tracking(_Section):
    """`uri`: `auto` (mlflow.db at the project root), `none`, or an MLflow tracking URI."""

    uri: Annotated[str, Field(min_length=1)]
    experiment: Annotated[str, Field(min_length=1)]


class Gate(_Section):
    """What a challenger must show: with `confidence` no more than `margin` worse than the champion in `metric`."""

    metric: Literal["accuracy", "macro_f1", "log_loss"]
    margin: Annotated[float, Field(ge=0)]
    confidence: Annotated[float, Field(ge=0.5, lt=1)]


class Registry(_Section):
    """`name`: of the registered model in MLflow."""

    name: Annotated[str, Field(min_length=1, pattern=r"^[^/:@]+$")]
    gate: Gate


class Params(_Section):
    """The whole of params.yaml.

    Raises ParamsError, beside pydantic's own errors, for sections that don't go together.
    """

    seed: Annotated[int, Field(ge=0, lt=2**32)]
    data: Data
    augment: Augment
    backbone: Backbone
    head: Head
    finetune: Finetune
    cache: Cache
    evaluate: Evaluate
    sweep: Sweep
    tracking: Tracking
    registry: Registry

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        if self.augment.mode == "live" and not self.finetune.epochs:
            raise ParamsError(
                "params.yaml: augment.mode is live, but finetune.epochs is 0, and the head is trained on the originals "
                "alone; set augment.mode to stored, or finetune.epochs to more than 0"
            )
        if self.head.classifier != "dense":
            self._require_shallow()
        if self.augment.cutmix and self.finetune.freeze == "all":
            raise ParamsError(
                "params.yaml: augment.cutmix needs feature maps to cut from, but with finetune.freeze all there are "
                "none behind the line; set augment.cutmix to 0 (augment.mixup works), or freeze less"
            )
        return self

    def _require_shallow(self) -> None:
        kind = f"head.classifier {self.head.classifier}"
        for is_wrong, key, mend in (
            (self.finetune.freeze != "all", f"finetune.freeze {self.finetune.freeze}", "set the latter to all"),
            (self.head.binary, "head.binary true", "set the latter to false"),
            (bool(self.head.hidden), f"head.hidden {self.head.hidden}", "set the latter to []"),
            (self.augment.mode == "live", "augment.mode live", "set the latter to stored"),
        ):
            if is_wrong:
                raise ParamsError(
                    f"params.yaml: {kind} is trained on stored features of a frozen backbone and can't go with {key}; "
                    f"{mend}, or the former to dense"
                )


def load(path: Path) -> Params:
    """Read and check params.yaml.

    Raises ParamsError, one line naming the key and the mend, for a file that is missing or can't be read, broken YAML,
    and missing, unknown or ill-typed keys.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        values = YAML(typ="safe", pure=True).load(path)
    except FileNotFoundError:
        raise ParamsError(f"{path}: not found; run from the project's folder") from None
    except OSError as error:
        raise ParamsError(f"{path}: can't be read ({error.strerror}); it must be a readable file") from error
    except (YAMLError, ValueError, RecursionError) as error:  # a date like 2024-13-45 is a mere ValueError
        raise ParamsError(f"{path}: {_broken(error)}") from error
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        raise ParamsError(f"{path}: {_one_line(_explain(error))}") from None


def _one_line(text: str) -> str:
    """A key or a value that spans lines must not break the message."""
    return " ".join(text.split())


def _broken(error: Exception) -> str:
    """Where a file is no YAML, and why, in one line."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    if mark:
        return f"line {mark.line + 1}: {_one_line(problem)}; mend that line"
    return f"not YAML in UTF-8 ({_one_line(problem)}); mend it"


def _explain(error: ValidationError) -> str:
    """The first problem in one line, with how many more there are."""
    problems = error.errors()
    # An unknown key first: a misspelt key is also a missing one, and only the former says what to mend.
    first = min(problems, key=lambda p: p["type"] not in {"extra_forbidden", "invalid_key"})
    location = _location(first)
    key = ".".join(location)
    more = len({tuple(_location(problem)) for problem in problems}) - 1
    if location[:2] == ["sweep", "space"] and len(location) == 3:
        said = [problem["msg"] for problem in problems if problem["type"] == "value_error"]
        why = (
            said[0].removeprefix("Value error, ")
            if said
            else ("must be {low: 1.0e-5, high: 1.0e-2, log: true}, a list of values, or for finetune.freeze {auto: 8}")
        )
        text = f"{key}: {why}"
    elif first["type"] == "extra_forbidden":
        near = get_close_matches(location[-1], _keys(location[:-1]), n=1)
        text = f"{key} is not a key; " + (f"did you mean {near[0]}?" if near else "remove it")
    elif first["type"] == "missing":
        text = f"{key} is missing; add it"
    else:
        messages = [problem["msg"] for problem in problems if _location(problem) == location]
        message = " or ".join(messages).removeprefix("Value error, ").replace(" or Input should be ", " or ")
        if first["type"] == "model_type":
            message = "should be a section of keys"
        got = f", not {reprlib.repr(first['input'])}" if not isinstance(first["input"], dict) else ""
        text = f"{key or 'the file'}: {message[0].lower()}{message[1:]}{got}"
    return text + (f" (and {more} more)" if more else "")


def _location(problem: ErrorDetails) -> list[str]:
    """Where a problem is, as a person writes it: pydantic adds the tried type where a key may have several."""
    location = [str(part) for part in problem["loc"]]
    if location[:2] == ["sweep", "space"]:
        return location[:3]
    is_branch = problem["type"] != "extra_forbidden" and location[-1:] in (["int"], ["str"])
    return location[:-1] if is_branch else location


def _keys(path: list[str]) -> list[str]:
    """The known keys of the section at `path`."""
    section: type[BaseModel] = Params
    for name in path:
        annotation = section.model_fields[name].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return list(EarlyStopping.model_fields)
        section = annotation
    return list(section.model_fields)
