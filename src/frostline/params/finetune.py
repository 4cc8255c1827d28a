"""The sections `head` and `finetune` of params.yaml, with Keras's callbacks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from frostline.errors import ParamsError
from frostline.params.schedules import Flat, NamedSchedule, ScheduleValue, schedule_of
from frostline.params.section import Count, Fraction, OwnFunction, Positive, Section, pairs


class HeadSection(Section):
    """The head on the backbone: pooling, hidden Dense layers each followed by dropout, one logit per class.

    `pooling`: `avg`, `max` or `flatten` of a feature map; of a transformer the class token (`cls`), the mean of the
    tokens of patches (`avg`), or both (`cls_avg`); `dropout`: one rate, or a list with one for each hidden layer;
    `features`: `all_depths` for the pooled activations of all depths of the backbone instead of the last one's;
    `batch_norm`: between a hidden layer and its activation; `layers`: instead of `hidden`, a function of one's own that
    makes the layers before the logits; `l2`: penalty on the kernels of all Dense layers, see Keras's `L2`;
    `classifier`: `dense`, or a classifier of scikit-learn, trained on frozen features, with `classifier_args` for its
    constructor.
    """

    pooling: Literal["avg", "max", "flatten", "cls", "cls_avg"]
    features: Literal["all_depths"] | None = None
    hidden: list[Positive]
    activation: Literal["relu", "gelu", "silu", "elu", "tanh"]
    dropout: Fraction | list[Fraction]
    batch_norm: bool
    l2: Annotated[float, Field(ge=0)]
    binary: bool
    layers: OwnFunction | None = None
    classifier: Literal["dense", "logistic_regression", "linear_svm", "random_forest", "knn"]
    classifier_args: dict[str, int | float | str | bool | None]

    @property
    def is_dense(self) -> bool:
        """Whether gradients train the head, and not scikit-learn."""
        return self.classifier == "dense"

    @model_validator(mode="after")
    def _a_rate_each(self) -> Self:
        if isinstance(self.dropout, list) and len(self.dropout) != max(1, len(self.hidden)):
            raise ValueError(
                f"head.dropout has {len(self.dropout)} rates for {len(self.hidden)} layers of head.hidden; give one "
                "rate, or one for each"
            )
        return self

    def require_fit(self, classes: int) -> None:
        """Raise ParamsError if the head is binary but there are not exactly 2 classes."""
        if self.binary and classes != 2:
            raise ParamsError(
                f"params.yaml: head.binary is true, but data.source has {classes} classes; set it to false"
            )


Monitor = Literal["val_loss", "val_accuracy"]


class EarlyStopping(Section):
    """Stop a phase after `patience` epochs without a better `monitor`, and restore the best weights.

    `min_delta`: an improvement must be more than this; `start_from_epoch`: epochs before this one don't count.
    """

    monitor: Monitor
    patience: Positive
    min_delta: Annotated[float, Field(ge=0)] = 0.0
    start_from_epoch: Count = 0


class _ReduceLROnPlateau(Section):
    """Keras's callback: multiply the learning rate by `factor` after `patience` epochs without a better `monitor`."""

    monitor: Monitor = "val_loss"
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    patience: Positive = 10
    min_delta: Annotated[float, Field(ge=0)] = 1e-4
    cooldown: Count = 0
    min_lr: Annotated[float, Field(ge=0)] = 0.0


class _LearningRateScheduler(Section):
    """Keras's callback, with a table instead of a function: first epoch (from 0) -> learning rate from then on."""

    schedule: Annotated[dict[Count, Annotated[float, Field(gt=0)]], Field(min_length=1)]


class _ModelCheckpoint(Section):
    """Keras's callback: keep the weights of the epoch with the best `monitor`, without stopping."""

    monitor: Monitor = "val_loss"


class _TensorBoard(Section):
    """Keras's callback: write the numbers of each epoch for TensorBoard, in a folder per training below `log_dir`."""

    log_dir: Annotated[str, Field(min_length=1)] = "logs"


class Callbacks(Section):
    """Keras's callbacks by their names, each with its arguments. Missing arguments have Keras's own defaults."""

    @model_validator(mode="before")
    @classmethod
    def _not_twice(cls, values: Any) -> Any:
        if isinstance(values, dict) and "EarlyStopping" in values:
            raise ValueError("EarlyStopping is finetune.early_stopping here; move its arguments there")
        if isinstance(values, dict) and "TerminateOnNaN" in values:
            raise ValueError("every training does what TerminateOnNaN does; remove it")
        return values

    ReduceLROnPlateau: _ReduceLROnPlateau | None = None
    LearningRateScheduler: _LearningRateScheduler | None = None
    ModelCheckpoint: _ModelCheckpoint | None = None
    TensorBoard: _TensorBoard | None = None


# The keys in which the ingredients of a soup may differ. All others belong to the head's phase too, and the weights of
# trainings that begin with different heads should not be averaged.
VARIED = tuple(f"finetune.{key}" for key in ("freeze", "train", "layer_decay", "batch_norm", "epochs", "learning_rate"))
SHARE = "share"

IngredientValue = int | float | str | list[int | str] | None


class FinetuneSection(Section):
    """The two phases of a training: first the head alone on frozen features, then all layers above the freeze line.

    `train`: instead of `freeze`, the first and the last layer or block that are trained; a number is that of a block;
    `devices`: how many share each batch, with JAX; the result does not depend on it beyond rounding;
    `soup`: the average of the weights of several trainings (ingredients), each with its `share` and with what it does
    not have in common with the others, by dotted keys: `finetune.freeze`, `train`, `layer_decay`, `batch_norm`,
    `epochs` (0 for the head alone) or `learning_rate`.
    """

    freeze: int | str | list[int | str] | None
    train: str | tuple[int | str, int | str] | None = None
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
    schedule: ScheduleValue
    early_stopping: EarlyStopping | None
    callbacks: Callbacks
    loss: Literal["cross_entropy", "focal"] | OwnFunction
    focal_gamma: Annotated[float, Field(ge=0)]
    class_weight: Literal["none", "balanced"]
    label_smoothing: Fraction
    ema_momentum: Fraction
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"]
    devices: Literal["auto"] | Positive = "auto"
    soup: Annotated[list[dict[str, IngredientValue]], Field(min_length=2)] | None = None

    @property
    def trainings(self) -> list[tuple[FinetuneSection, float]]:
        """The trainings whose weights are averaged, with shares that add up to 1; one with share 1 without a soup."""
        if self.soup is None:
            return [(self, 1.0)]
        shares = [float(ingredient[SHARE]) for ingredient in self.soup]  # type: ignore[arg-type]
        total = sum(shares)
        return [(self._as(ingredient), share / total) for ingredient, share in zip(self.soup, shares, strict=True)]

    def _as(self, ingredient: Mapping[str, IngredientValue]) -> FinetuneSection:
        """The training of an ingredient. Raises ValidationError for values that its keys can't have."""
        values = {key.removeprefix("finetune."): value for key, value in ingredient.items() if key != SHARE}
        return FinetuneSection.model_validate({**self.model_dump(exclude={"soup"}), **values})

    @field_validator("schedule", mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        """Turn the name of a Keras schedule into this schedule without arguments."""
        return {value: {}} if isinstance(value, str) and value in NamedSchedule.model_fields else value

    @model_validator(mode="before")
    @classmethod
    def _pair(cls, values: Any) -> Any:
        return pairs(values, "train")

    @model_validator(mode="after")
    def _some_training(self) -> Self:
        if (self.freeze is None) == (self.train is None):
            raise ValueError("finetune.freeze and finetune.train exclude each other; set one of them to null")
        if self.head_epochs + self.epochs == 0:
            raise ValueError("head_epochs and epochs are both 0, so nothing would be trained")
        if not isinstance(schedule_of(self.schedule), Flat) and self.callbacks.LearningRateScheduler:
            raise ValueError(
                "finetune.schedule and finetune.callbacks.LearningRateScheduler both set the learning rate; set the "
                "former to constant, or remove the latter"
            )
        checkpoint = self.callbacks.ModelCheckpoint
        if checkpoint and self.early_stopping and checkpoint.monitor != self.early_stopping.monitor:
            raise ValueError(
                "finetune.early_stopping.monitor and finetune.callbacks.ModelCheckpoint.monitor differ, so it is not "
                "clear which weights are the best; make them the same"
            )
        return self

    @model_validator(mode="after")
    def _good_ingredients(self) -> Self:
        for ingredient in self.soup or ():
            for key in ingredient:
                if key not in (SHARE, *VARIED):
                    raise ValueError(
                        f"{key} must be the same in all ingredients, which share the start and the head; remove it "
                        f"there (they may differ in {', '.join(VARIED)})"
                    )
            share = ingredient.get(SHARE)
            if not isinstance(share, int | float) or not 0 < share < math.inf:
                raise ValueError(f"every ingredient of finetune.soup needs a share above 0, not {share}; fix it")
            try:
                self._as(ingredient)
            except ValidationError as error:
                first = error.errors()[0]
                key = "".join(f"finetune.{part} of " for part in first["loc"][:1])
                why = first["msg"].removeprefix("Value error, ")
                raise ValueError(f"{key}an ingredient of finetune.soup: {why[0].lower()}{why[1:]}; fix it") from None
        return self
