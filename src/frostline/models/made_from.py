"""What a classifier was made from, as its bundle records it: settings, weights, data, and what came of the training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

NAMED = 5  # layers that a line names, at most


@dataclass(frozen=True)
class LoadedWeights:
    """What a file of weights gave a body.

    layers: so many of its layers with weights were set, of so many; missing: not in the file; mismatched: there with
    other shapes. Both keep the weights that they began with.
    """

    layers: int
    of: int
    missing: list[str]
    mismatched: list[str]

    def among(self, names: Sequence[str]) -> LoadedWeights:
        """The same of a body that has only those layers."""
        missing, mismatched = (
            [name for name in each if name in set(names)] for each in (self.missing, self.mismatched)
        )
        return LoadedWeights(len(names) - len(missing) - len(mismatched), len(names), missing, mismatched)

    def __str__(self) -> str:
        parts = [f"weights: {self.layers} of {self.of} layers loaded"]
        for what, names in (("not in the file", self.missing), ("of another shape", self.mismatched)):
            if names:
                more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
                parts.append(f"{len(names)} {what}: {', '.join(names[:NAMED])}{more}")
        return "; ".join(parts)


@dataclass(frozen=True)
class BackboneOrigin:
    """The section `backbone` of params.yaml, and what it led to.

    weights_sha256: of the file or bundle that `weights` names, None for a keyword; loaded: what it gave, None where the
    weights came from no file.
    """

    name: str
    weights: str
    alpha: float | None = None
    until: str | None = None
    weights_sha256: str | None = None
    loaded: LoadedWeights | None = None


@dataclass(frozen=True)
class Audit:
    """Counts of layers and parameters (scalars) on both sides of the freeze line, of backbone and head together."""

    layers: int
    frozen_layers: int
    frozen_parameters: int
    trainable_parameters: int
    batch_norm_layers: int
    batch_norm_training: int
    frozen_weights_unchanged: int


@dataclass(frozen=True)
class LayerGroup:
    """A block of a backbone, or the head, in the last epochs of a training.

    learning_rate: of the schedule's height, 0 where it is frozen; thawed: the epoch of fine-tuning (from 1) from which
    it is trained, 0 for never.
    """

    name: str
    layers: int
    parameters: int
    learning_rate: float
    thawed: int


@dataclass(frozen=True)
class SourceDigests:
    """Digests of the images that were trained on and validated on."""

    train: str
    val: str


@dataclass(frozen=True)
class MadeFrom:
    """All of it. head, finetune, augment: those sections of params.yaml, as they were read then, `finetune.precision`
    resolved; copies: stored variants of each training image; keras: its version; temperature: None for none."""

    seed: int
    backbone: BackboneOrigin
    head: Mapping[str, Any]
    finetune: Mapping[str, Any]
    cache_dtype: str
    augment: Mapping[str, Any]
    copies: int
    audit: Audit
    data: SourceDigests
    keras: str
    groups: tuple[LayerGroup, ...] = ()
    temperature: float | None = None

    @property
    def classifier(self) -> str:
        """`dense`, or which of scikit-learn's classifiers the head is."""
        return str(self.head.get("classifier", "dense"))

    @property
    def is_dense(self) -> bool:
        """Whether the head is one that gradients train."""
        return self.classifier == "dense"

    @property
    def is_calibrated(self) -> bool:
        """Whether a temperature was fitted."""
        return self.temperature is not None

    def recorded(self) -> dict[str, Any]:
        """The values for bundle.json; what there is none of is left out."""
        values = asdict(self)
        if values["backbone"]["loaded"] is None:
            del values["backbone"]["loaded"]
        if values["temperature"] is None:
            del values["temperature"]
        return {**values, "groups": list(values["groups"])}


def read(values: Any) -> MadeFrom:
    """What bundle.json holds. Raises ValueError, one line that names the value, where it is not that."""
    try:
        return _SCHEMA.validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, ("made_from", *first["loc"])))
        raise ValueError(f"{place}: {first['msg'][0].lower()}{first['msg'][1:]}") from None


_SCHEMA = TypeAdapter(MadeFrom)
