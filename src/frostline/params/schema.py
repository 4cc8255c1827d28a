"""The typed, frozen schema of params.yaml.

Every key must be in the file, except those that are null by default, and an unknown key is refused. The file is read as
YAML 1.2, like in DVC, so `1e-3` is a number and `none` is a string.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from frostline.core import plain_yaml
from frostline.errors import ParamsError
from frostline.params import messages
from frostline.params.evaluate import EvaluateSection
from frostline.params.finetune import FinetuneSection, HeadSection
from frostline.params.section import Count, Fraction, OwnFunction, Positive, Section, pairs
from frostline.params.sweep import SweepSection


class SplitSection(Section):
    """The shares of the images that go to each split. They add up to 1.

    `calibration`: of images that neither training nor a sweep sees, for `evaluate.sets` and `evaluate.unknown`; with 0
    the validation images serve for these, which is less strict if training or a sweep chose by them.
    """

    train: Annotated[float, Field(gt=0, lt=1)]
    val: Annotated[float, Field(gt=0, lt=1)]
    test: Annotated[float, Field(gt=0, lt=1)]
    calibration: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @model_validator(mode="after")
    def _whole(self) -> Self:
        total = self.train + self.val + self.test + self.calibration
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the shares must add up to 1, not {total:g}")
        return self


class DataSection(Section):
    """The images to learn from.

    `split`: the shares of the splits that the source lacks, null for those of a card, or else 0.8, 0.1 and 0.1;
    `image_size`: side in pixels of the square to which images are resized; `min_side`: images with a shorter side, in
    pixels, are left out; `splits`: the folder of each split, if the names do not say it; `class_level`: 1 if the top
    folders are the classes, 2 if their subfolders are, null to find it out; `range`: the values that are black and
    white in grey images with more than 8 bits, `dtype` for all values of their type, null to measure it;
    `near_duplicates`: whether to find near-copies (resized, recompressed or brightened images) and put them into one
    split; `codec`: how shards keep the images, `raw` pixels or each image coded; `jpeg` and `webp` change pixels a
    little when they are written, and all later stages see the changed pixels.
    """

    source: Annotated[str, Field(min_length=1)]
    image_size: Annotated[int, Field(ge=8, le=2048)]
    resize: Literal["stretch", "crop", "pad"]
    min_side: Positive
    train_per_class: Positive | None
    split: SplitSection | None = None
    splits: Mapping[Literal["train", "val", "test"], str] | None = None
    class_level: Literal[1, 2] | None = None
    range: Literal["dtype"] | tuple[float, float] | None = None
    near_duplicates: bool
    codec: Literal["raw", "jpeg", "webp", "webp_lossless"] = "raw"
    on_problem: Literal["drop", "error"]

    @model_validator(mode="before")
    @classmethod
    def _pair(cls, values: Any) -> Any:
        return pairs(values, "range")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if isinstance(self.range, tuple) and self.range[0] >= self.range[1]:
            raise ValueError("range must be [value of black, value of white], the lower one first")
        return self


class AugmentSection(Section):
    """Ranges of the seeded variants: angles in degrees, shifts and zoom as shares of the side.

    `mode`: `stored` variants on disk, `copies` of them, or `live` ones, drawn for each batch; `mixup`, `cutmix`: alpha
    of the Beta distribution of the share in which two images of a batch are mixed, 0 for no mixing; `function`: of
    one's own, which changes each stored variant further.
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
    function: OwnFunction | None = None
    mixup: Annotated[float, Field(ge=0)]
    cutmix: Annotated[float, Field(ge=0)]

    @model_validator(mode="before")
    @classmethod
    def _pair(cls, values: Any) -> Any:
        return pairs(values, "brightness")

    @property
    def stored(self) -> dict[str, Any] | None:
        """The settings that stored variants depend on; None if there are no stored variants."""
        has_none = self.mode == "live" or self.copies == 0
        return None if has_none else self.model_dump(exclude={"mode", "mixup", "cutmix"})

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.brightness and self.brightness[0] > self.brightness[1]:
            raise ValueError("brightness must be [lowest, highest]")
        if self.function and self.mode == "live":
            raise ValueError(
                "augment.function changes stored variants; set augment.mode to stored, or function to null"
            )
        return self


class BackboneSection(Section):
    """The backbone and its weights.

    `name`: of `frostline backbones`, `hub/` with a preset of KerasHub or the folder of one, or a function of one's own;
    `weights`: `imagenet`, `preset` (KerasHub), `builtin` (frostnet), `none`, a file, a folder (a bundle, a SavedModel,
    or with one file of weights) or a model of the registry (`models:/NAME@ALIAS`); `alpha`: the width of backbones that
    have one, null for the default; `until`: cut the body after this layer.
    """

    name: str
    weights: Annotated[str, Field(min_length=1)]
    alpha: Annotated[float, Field(gt=0)] | None
    until: str | None


class CacheSection(Section):
    """The activation store, with limits in gigabytes (10^9 bytes).

    `disk_gb`: limit of its folder; `memory_gb`: limit of the features and images that a training keeps in memory.
    """

    mode: Literal["auto", "always", "never"]
    disk_gb: Annotated[float, Field(gt=0)]
    memory_gb: Annotated[float, Field(gt=0)]
    dtype: Literal["float16", "float32"]


class TrackingSection(Section):
    """Where runs are recorded. `uri`: `auto` (mlflow.db at the project root), `none`, or an MLflow tracking URI."""

    uri: Annotated[str, Field(min_length=1)]
    experiment: Annotated[str, Field(min_length=1)]


class GateSection(Section):
    """The gate: a challenger must be, with `confidence`, at most `margin` worse than the champion in `metric`."""

    metric: Literal["accuracy", "macro_f1", "log_loss"]
    margin: Annotated[float, Field(ge=0)]
    confidence: Annotated[float, Field(ge=0.5, lt=1)]


class RegistrySection(Section):
    """The model registry. `name`: of the registered model in MLflow."""

    name: Annotated[str, Field(min_length=1, pattern=r"^[^/:@]+$")]
    gate: GateSection


class Params(Section):
    """The whole of params.yaml.

    Raises ParamsError for sections that don't go together, in addition to pydantic's own errors.
    """

    seed: Annotated[int, Field(ge=0, lt=2**32)]
    data: DataSection
    augment: AugmentSection
    backbone: BackboneSection
    head: HeadSection
    finetune: FinetuneSection
    cache: CacheSection
    evaluate: EvaluateSection
    sweep: SweepSection
    tracking: TrackingSection
    registry: RegistrySection

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        if self.augment.mode == "live" and not self.finetune.epochs:
            raise ParamsError(
                "params.yaml: augment.mode is live, but finetune.epochs is 0, and the head is trained only on the "
                "originals; set augment.mode to stored, or finetune.epochs to more than 0"
            )
        if not self.head.is_dense:
            self._require_shallow()
        if self.augment.cutmix and self.finetune.freeze in ("all", ["all"]):
            raise ParamsError(
                "params.yaml: augment.cutmix needs feature maps to cut from, but with finetune.freeze all there are "
                "none behind the line; set augment.cutmix to 0 (augment.mixup works), or freeze less"
            )
        return self

    def _require_shallow(self) -> None:
        kind = f"head.classifier {self.head.classifier}"
        for is_wrong, key, fix in (
            (self.finetune.freeze != "all", f"finetune.freeze {self.finetune.freeze}", "set the latter to all"),
            (self.head.binary, "head.binary true", "set the latter to false"),
            (bool(self.head.hidden), f"head.hidden {self.head.hidden}", "set the latter to []"),
            (bool(self.head.layers), f"head.layers {self.head.layers}", "set the latter to null"),
            (self.augment.mode == "live", "augment.mode live", "set the latter to stored"),
            (bool(self.finetune.soup), "finetune.soup", "set the latter to null"),
            (self.sweep.soup != "none", "sweep.soup greedy", "set the latter to none"),
        ):
            if is_wrong:
                raise ParamsError(
                    f"params.yaml: {kind} is trained on stored features of a frozen backbone and can't go with {key}; "
                    f"{fix}, or the former to dense"
                )


def load(path: Path) -> Params:
    """Read and check params.yaml.

    Raises ParamsError, one line with the key and the fix, if the file is missing, can't be read or is not valid YAML,
    and if a key is missing, unknown or has the wrong type.
    """
    from ruamel.yaml.error import YAMLError

    try:
        values = plain_yaml.read(path)
    except FileNotFoundError:
        raise ParamsError(f"{path}: not found; run from the project's folder") from None
    except OSError as error:
        raise ParamsError(f"{path}: can't be read ({error.strerror}); it must be a readable file") from error
    except (YAMLError, ValueError) as error:  # a date like 2024-13-45 raises a plain ValueError
        raise ParamsError(f"{path}: {messages.yaml_problem(error)}") from error
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        raise ParamsError(f"{path}: {messages.one_line(messages.explain(error, Params))}") from None
