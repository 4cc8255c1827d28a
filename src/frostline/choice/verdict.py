"""What the probes say: which of the four scenarios of transfer learning this is, and which settings follow from it.

The scenarios are those of Stanford's CS231n notes: few or many images, like or unlike those of the pretraining. Here
both are measured. Images are *like* those of the pretraining if the last depth is the best one or not clearly worse,
and if the pretrained body tells the classes much better than pixels and a random body do. The limits are choices, see
LIMITS.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from frostline.choice.bodies import Candidate
from frostline.choice.probes import Probe
from frostline.params.finetune import FinetuneSection


class _Limits(NamedTuple):
    """few: images a class, below which nothing of the body is trained; many: from there on everything may be; gain: the
    share of the floor's mistakes that the pretrained body must avoid; clearly: in standard errors."""

    few: int = 20
    many: int = 1000
    gain: float = 0.5
    clearly: float = 2.0


LIMITS = _Limits()

# Of the compute of a body, what stays frozen where the upper part is trained.
FROZEN_SHARE = {"like": 0.5, "unlike": 0.3}

# The learning rate of Adam for a fine-tuning of so many steps. With a horizon of T steps the best constant rate falls
# as 1 / sqrt(T) (Nemirovski et al., "Robust Stochastic Approximation Approach to Stochastic Programming", SIAM Journal
# on Optimization 2009), but a larger rate than some bound ruins the weights however short the training is. SGD with
# momentum takes larger ones. All of them are choices.
RATE, STEPS, OF_SGD = 2e-4, 700, 30
EPOCHS = 8  # of fine-tuning
RATES = (1e-4, 3e-4)  # the lowest and the highest that is recommended for Adam
# Steps of a head that is trained alone, at least. In a step Adam moves a weight by no more than about the rate, so in
# the epochs of a recipe for thousands of images the head of 50 hardly moves. On stored features a step costs little.
HEAD_STEPS = 1000


@dataclass(frozen=True)
class DepthProbe:
    """What a depth is worth. layer, share: see `depths.Depth`; ridge, nearest: cross-validated accuracies."""

    layer: str
    share: float
    ridge: Probe
    nearest: Probe


@dataclass(frozen=True)
class BodyProbe:
    """A body and its depths, from the bottom up."""

    candidate: Candidate
    depths: Sequence[DepthProbe]

    @property
    def best(self) -> DepthProbe:
        """The depth with the highest accuracy of ridge regression; the deepest of several."""
        return max(reversed(self.depths), key=lambda depth: depth.ridge.accuracy)

    @property
    def last(self) -> DepthProbe:
        """The end of the body."""
        return self.depths[-1]

    @property
    def nearest(self) -> float:
        """The highest accuracy of the nearest neighbours."""
        return max(depth.nearest.accuracy for depth in self.depths)


@dataclass(frozen=True)
class Situation:
    """What the bodies were measured on. images: of train and validation; classes: their number; train: images that are
    trained on; floors: name and accuracy of what a pretrained body must beat."""

    images: int
    classes: int
    train: int
    floors: Sequence[tuple[str, float]]

    @property
    def per_class(self) -> float:
        """The training images of a class."""
        return self.train / self.classes


class FineTuning(NamedTuple):
    """Where a fine-tuning is believed to do well. frozen: the share of the body's compute below the freeze line;
    learning_rate: of the second phase. A scenario whose recommended training is a head alone has one too."""

    frozen: float
    learning_rate: float


@dataclass(frozen=True)
class Verdict:
    """scenario: such as `few, like`; body: the recommended one; settings: values by dotted keys of params.yaml; space:
    the range of learning rates for `sweep.space`; reasons: sentences with the numbers behind it."""

    scenario: str
    body: BodyProbe
    settings: dict[str, Any]
    space: dict[str, dict[str, Any]]
    reasons: list[str]
    fine_tuning: FineTuning


def of(bodies: Sequence[BodyProbe], situation: Situation, current: FinetuneSection) -> Verdict:
    """The verdict. current: the settings of training that stay as they are, such as the optimizer."""
    ranked = sorted(bodies, key=lambda each: -each.best.ridge.accuracy)
    top = ranked[0]
    within = [each for each in ranked if _is_near(each.best.ridge, top.best.ridge)]
    body = min(within, key=lambda each: each.candidate.multiply_adds or float("inf"))
    floor_name, floor = max(situation.floors, key=lambda each: each[1])
    gain = (body.best.ridge.accuracy - floor) / max(1 - floor, 1e-9)
    drop = body.best.ridge.accuracy - body.last.ridge.accuracy
    peaks_at_end = drop <= LIMITS.clearly * body.best.ridge.error
    likeness = "like" if peaks_at_end and gain >= LIMITS.gain else "unlike"
    per_class = situation.per_class
    amount = "few" if per_class < LIMITS.few else "many" if per_class >= LIMITS.many else "some"
    tuning = _fine_tuning(amount, likeness, situation.train, current)
    settings = _settings(body, amount, likeness, tuning, math.ceil(situation.train / current.batch_size))
    reasons = [
        f"{body.candidate.name} tells {_percent(body.best.ridge)} of the images at {body.best.layer}"
        + _against(body, ranked, within),
        f"pretraining avoids {max(gain, 0):.0%} of the mistakes of {floor_name} ({floor:.3f})",
        f"the last depth is {'as good as the best' if peaks_at_end else f'{drop:.3f} worse than the best one'}",
        f"{per_class:.0f} training images a class",
    ]
    opinion = max(bodies, key=lambda each: each.nearest)
    if opinion is not body:
        reasons.append(
            f"nearest neighbours prefer {opinion.candidate.name} ({opinion.nearest:.3f} to {body.nearest:.3f})"
        )
    rate = settings.get("finetune.learning_rate")
    key = "finetune.learning_rate" if rate else "finetune.head_learning_rate"
    middle = float(rate or settings["finetune.head_learning_rate"])
    space = {key: {"low": float(f"{middle / 10:.3g}"), "high": float(f"{middle * 10:.3g}"), "log": True}}
    return Verdict(f"{amount}, {likeness}", body, settings, space, reasons, tuning)


def _is_near(probe: Probe, best: Probe) -> bool:
    """Whether an accuracy is within a standard error of the best one (Breiman et al., "Classification and Regression
    Trees", 1984, section 3.4.3)."""
    return best.accuracy - probe.accuracy <= best.error_of_difference(probe)


def _fine_tuning(amount: str, likeness: str, train: int, current: FinetuneSection) -> FineTuning:
    if amount == "many" and likeness == "unlike":
        frozen, rate = 0.0, 3e-4
    else:
        frozen = FROZEN_SHARE[likeness]
        steps = math.ceil(train / current.batch_size) * EPOCHS
        rate = float(f"{np.clip(RATE * math.sqrt(STEPS / steps), *RATES):.0e}")
    return FineTuning(frozen, rate * (OF_SGD if current.optimizer == "sgd" else 1))


def _settings(body: BodyProbe, amount: str, likeness: str, tuning: FineTuning, steps: int) -> dict[str, Any]:
    """Values of params.yaml: those of the recipes for the scenario, with the measured body and depth. steps: batches of
    an epoch."""
    section = body.candidate.section
    values: dict[str, Any] = {
        "backbone.name": section.name,
        "backbone.weights": section.weights,
        "backbone.alpha": section.alpha,
        "backbone.until": None,
    }
    if amount == "few":
        return values | {
            "head.features": "all_depths",
            "finetune.freeze": "all",
            "finetune.head_epochs": max(20, math.ceil(HEAD_STEPS / max(steps, 1))),
            "finetune.head_learning_rate": 3e-3,
            "finetune.epochs": 0,
            "augment.copies": 3,
        }
    everything = amount == "many" and likeness == "unlike"
    line = "none" if everything else _line(body, tuning.frozen)
    return values | {
        "head.features": None,
        "finetune.freeze": line,
        "finetune.head_epochs": 3 if everything else 15,
        "finetune.head_learning_rate": 3e-3,
        "finetune.epochs": 40 if everything else EPOCHS,
        "finetune.learning_rate": tuning.learning_rate,
        "finetune.batch_norm": "train" if everything else "freeze",
        "augment.copies": 1,
    }


def _line(body: BodyProbe, share: float) -> str:
    """The depth nearest to a share of the body's compute."""
    return min(body.depths, key=lambda depth: abs(depth.share - share)).layer


def _against(body: BodyProbe, ranked: Sequence[BodyProbe], within: Sequence[BodyProbe]) -> str:
    if len(ranked) == 1:
        return ""
    if len(within) == 1:
        return ", more than any other body by over a standard error"
    top = ranked[0]
    if body is top:
        return f", the most of all bodies; {within[1].candidate.name} is within a standard error, but no cheaper"
    return (
        f"; {top.candidate.name} ({top.best.ridge.accuracy:.3f}) is less than a standard error better, but no cheaper"
    )


def _percent(probe: Probe) -> str:
    low, high = probe.interval
    return f"{probe.accuracy:.1%} (95%: {low:.1%} to {high:.1%})"
