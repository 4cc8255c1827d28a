"""The parts of a model card about prediction sets and "none of these": what is promised, and what holds."""

from __future__ import annotations

import math
from collections.abc import Sequence

from frostline.core.escaping import code
from frostline.evaluation.scores import Scores
from frostline.models.answer_facts import AnswerFacts, LeftOut, SetFacts, UnknownFacts
from frostline.models.made_from import MadeFrom

LISTED = 5  # scores that were measured
SCORES = {
    "msp": "the probability of the likeliest class",
    "energy": "the energy of the logits",
    "knn": "the angle to the nearest training image",
    "mahalanobis": "the distance to the nearest class",
    "combined": "the probability of the likeliest class, the angle to the nearest training image and the distance to "
    "the nearest class together",
}


def outputs(answers: AnswerFacts | None) -> str:
    """What the model says besides probabilities, to follow them in a list."""
    if answers is None:
        return ""
    parts = [
        *(["the set of classes that it may be"] if answers.sets else []),
        *(["`unknown`"] if answers.unknown else []),
    ]
    return "".join(f"; {part}" for part in parts)


def strangers(answers: AnswerFacts | None) -> str:
    """What the model answers for an image of something else."""
    if answers is None or answers.unknown is None:
        return "the model still answers with one of these classes, often with a high probability."
    return "the model answers `unknown` for many of them, but not for all; see below how well it tells them."


def section(made_from: MadeFrom, answers: AnswerFacts | None, scores: Scores) -> str:
    """The section, empty if the bundle gives probabilities alone."""
    if answers is None:
        return ""
    parts = [
        f"### Sets and Unknown Images\n\nFitted on {answers.images:,} images of {_split(made_from, answers)}",
        *([_sets(answers.sets, scores)] if answers.sets else []),
        *([_unknown(answers.unknown, scores)] if answers.unknown else []),
    ]
    return "\n\n".join(parts) + "\n"


def _split(made_from: MadeFrom, answers: AnswerFacts) -> str:
    if answers.split == "calibration":
        return "the calibration split, which nothing else saw, so the promises below are strict."
    chosen = _chosen_by(made_from)
    return (
        f"the validation split. {chosen} Where a training or a sweep chose by these images, the promises are a little "
        "too good; `data.split.calibration` keeps images for this alone."
    )


def _chosen_by(made_from: MadeFrom) -> str:
    """What this training chose by the validation images."""
    stops = made_from.finetune.get("early_stopping") or (made_from.finetune.get("callbacks") or {}).get(
        "ModelCheckpoint"
    )
    return (
        "This training kept its weights by them." if stops else "This training chose nothing by them, a sweep may have."
    )


def _sets(facts: SetFacts, scores: Scores) -> str:
    if math.isinf(facts.threshold):
        return f"**Sets** have all classes: for a coverage of {facts.coverage:g}, there are too few images."
    text = f"**Sets** (`{facts.score}`): {facts.coverage:.0%} of images are promised to have their class in their set."
    if scores.set_coverage is None or scores.set_size is None:
        return text
    low, high = scores.set_coverage.interval or (0.0, 1.0)
    text += (
        f" Of the test images {scores.set_coverage.value:.1%} have it (95% interval {low:.1%} to {high:.1%}); a set "
        f"has {scores.set_size:.2f} classes on average. The promise holds for all images together, not for each class; "
        "`reports/per_class.csv` has the classes."
    )
    if facts.score == "lac" and scores.accuracy.value > facts.coverage:
        text += (
            " The classifier is right more often than the sets promise, so some sets are empty: raise "
            "`evaluate.sets.coverage`."
        )
    return text


def _unknown(facts: UnknownFacts, scores: Scores) -> str:
    if math.isinf(facts.threshold):
        return f"**No image is called unknown**: for a rate of {facts.false_alarms:g}, there are too few images."
    place = f" at {code(facts.layer)}" if facts.layer else ""
    text = (
        f"**Unknown**: at most {facts.false_alarms:.0%} of images of the classes are promised to be called unknown. "
        f"The score is {SCORES[facts.score]}{place}."
    )
    if scores.unknown_rate is not None:
        low, high = scores.unknown_rate.interval or (0.0, 1.0)
        text += f" Of the test images {scores.unknown_rate.value:.1%} are ({low:.1%} to {high:.1%})."
    if not facts.left_out:
        return f"{text} There are too few classes to measure how well strangers are told."
    return f"{text} {_measured(facts.left_out)}"


def _measured(left_out: Sequence[LeftOut]) -> str:
    rows = "\n".join(
        f"| `{each.score}` | {code(each.layer) if each.layer else 'outputs'} | {each.auroc:.3f} |"
        for each in _shown(left_out)
    )
    return f"""How well each score tells images of classes that were left out, as the area \
under the ROC curve (0.5 is chance). The body was not trained again without them, so true strangers may be told \
less well, and images of quite other things better:

| score | features of | AUROC |
|---|---|---|
{rows}"""


def _shown(left_out: Sequence[LeftOut]) -> list[LeftOut]:
    """The best ones, and those of the outputs alone, to compare with."""
    rest = [each for each in left_out[LISTED:] if each.layer is None]
    return [*left_out[:LISTED], *rest]
