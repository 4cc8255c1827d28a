"""What a classifier was made from, as recorded in its bundle: settings, weights, data, and facts about the training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import TypeAdapter

from frostline.models import recorded

MOST_NAMES = 5  # layers that a message lists


@dataclass(frozen=True)
class LoadedWeights:
    """The layers of a body that a file of weights set.

    layers: number of layers that were set; of: number of all layers with weights; missing: names of layers that are not
    in the file; mismatched: names of layers that have other shapes there. Both keep their initial weights.
    preprocessing: what the weights need at the input of the body, a name of `preprocessing.WAYS`; None for what the
    backbone's row says.
    """

    layers: int
    of: int
    missing: list[str]
    mismatched: list[str]
    preprocessing: str | None = None

    def among(self, names: Sequence[str]) -> LoadedWeights:
        """The same for a body that has only these layers."""
        missing, mismatched = (
            [name for name in each if name in set(names)] for each in (self.missing, self.mismatched)
        )
        return LoadedWeights(
            len(names) - len(missing) - len(mismatched), len(names), missing, mismatched, self.preprocessing
        )

    def __str__(self) -> str:
        parts = [f"weights: {self.layers} of {self.of} layers loaded"]
        for reason, names in (("not in the file", self.missing), ("of another shape", self.mismatched)):
            if names:
                more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
                parts.append(f"{len(names)} {reason}: {', '.join(names[:MOST_NAMES])}{more}")
        if self.preprocessing:
            parts.append(f"preprocessing: {self.preprocessing}")
        return "; ".join(parts)


@dataclass(frozen=True)
class BackboneOrigin:
    """The section `backbone` of params.yaml, and the weights it led to.

    weights_sha256: of the file or bundle that `weights` names, None for a keyword; loaded: the layers that it set, None
    if the weights are not from a file.
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

    learning_rate: as a share of the schedule's, 0 if the group is frozen; thawed: the epoch of fine-tuning (from 1) in
    which its training begins, 0 for never.
    """

    name: str
    layers: int
    parameters: int
    learning_rate: float
    thawed: int


@dataclass(frozen=True)
class SourceDigests:
    """Digests of the training images and the validation images."""

    train: str
    val: str


@dataclass(frozen=True)
class MadeFrom:
    """All that a classifier was made from.

    head, finetune, augment: sections of params.yaml at that time, with `finetune.precision` resolved; copies: number of
    stored variants of each training image; keras: its version; temperature: None if it is not calibrated.
    """

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
        """`dense`, or the name of the scikit-learn classifier that is the head."""
        return str(self.head.get("classifier", "dense"))

    @property
    def is_dense(self) -> bool:
        """Whether gradients train the head."""
        return self.classifier == "dense"

    @property
    def ingredients(self) -> int:
        """The number of trainings whose weights were averaged; 0 if the weights are those of one training."""
        return len(self.finetune.get("soup") or ())

    @property
    def is_calibrated(self) -> bool:
        """Whether the classifier has a fitted temperature."""
        return self.temperature is not None

    def recorded(self) -> dict[str, Any]:
        """The values for bundle.json, without `loaded`, its `preprocessing` and `temperature` where they are None."""
        values = asdict(self)
        loaded = values["backbone"]["loaded"]
        if loaded is None:
            del values["backbone"]["loaded"]
        elif loaded["preprocessing"] is None:
            del loaded["preprocessing"]
        if values["temperature"] is None:
            del values["temperature"]
        return {**values, "groups": list(values["groups"])}


def read(values: Any) -> MadeFrom:
    """Check the values of bundle.json. Raises ValueError, one line that names the first wrong value."""
    return recorded.checked(_SCHEMA, values, "made_from")


_SCHEMA = TypeAdapter(MadeFrom)
