"""Successive halving with pauses: which trial is worth the next epochs.

A bracket of trials is trained to the lowest rung; the best of those are trained on to the next one, from where they
paused, and so on to the top (Jamieson & Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter
Optimization", AISTATS 2016). Rungs may lie within an epoch, so that a hopeless trial costs a fraction of one. A rung is
full before a trial leaves it, so early trials are not trained on just because there are no others yet. From the second
bracket on, the trials of earlier brackets are compared as well.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise

REDUCTION = 3  # epochs of a rung over those of the one below
BRACKET = 10  # trials, about: few enough that samplers soon learn from longer trainings
STEPS = 8  # of training before anything can be said of a trial

# Which share of a rung is trained on, in rungs within the first epoch and in later ones. Within the first only ruin
# shows: a high learning rate that ends well begins worse than one that changes nothing.
KEPT_EARLY, KEPT = 1 / 2, 1 / 3

# A trial's standing at each rung that it has reached, from the lowest on; more is better.
Standing = tuple[float, ...]


def levels(epochs: int, steps_per_epoch: int) -> list[float]:
    """The rungs, in epochs, from the lowest to the whole training: as many as leave about one trial of a bracket at the
    top, the lowest no earlier than after STEPS steps. They don't depend on the budget, which may grow."""
    ladder = [epochs / REDUCTION**down for down in (3, 2, 1, 0)]
    return [level for level in ladder[:-1] if level * steps_per_epoch >= STEPS] + ladder[-1:]


def brackets(trials: int) -> list[range]:
    """The trials' numbers in brackets of about the same size."""
    count = max(1, round(trials / BRACKET))
    starts = [round(number * trials / count) for number in range(count + 1)]
    return [range(*ends) for ends in pairwise(starts)]


def planned(ladder: Sequence[float], epoch: float, trials: int) -> float:
    """What a whole search trains if nothing fails and nothing is cheap, in the unit of its rungs. epoch: in it too."""
    total = 0.0
    for bracket in brackets(trials):
        left, below = len(bracket), 0.0
        for rung in ladder:
            total += left * (rung - below)
            left, below = _kept(left, rung, epoch), rung
    return total


def pending(
    scores: Mapping[int, Sequence[Standing]], ended: Collection[int], trials: int, ladder: Sequence[float], epoch: float
) -> tuple[range, list[int]]:
    """The bracket at work, and which of it are to be trained to their next rung before anything else happens.

    What is paused in brackets before that one has lost; when nothing is pending, all that is paused has. scores: of the
    trials that have any, by number; ended: those that are trained no further; trials: the budget; ladder: the rungs, of
    which the last is the end of training, in any unit; epoch: an epoch in that unit.
    """
    for bracket in brackets(trials):
        chosen = list(bracket)
        for level, rung in enumerate(ladder):
            waiting = [number for number in chosen if len(scores.get(number, ())) <= level and number not in ended]
            if waiting:
                return bracket, waiting
            company = [number for number in range(bracket.stop) if len(scores.get(number, ())) > level]
            company.sort(key=lambda number: scores[number][level], reverse=True)
            chosen = [number for number in company[: _kept(len(company), rung, epoch)] if number in bracket]
    return range(trials, trials), []


def _kept(count: int, rung: float, epoch: float) -> int:
    return math.ceil(count * (KEPT_EARLY if rung < epoch else KEPT))
