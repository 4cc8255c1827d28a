"""A prior: where good points are believed to lie before any trial has shown it, and the first points that follow.

The first point of a study is the one that is believed in most. The next ones are drawn in proportion to the belief,
except for one in EVEN, which is drawn as if nothing was believed, so that a wrong belief hides no part of the space
(Mallik et al., "PriorBand: Practical Hyperparameter Optimization in the Age of Deep Learning", NeurIPS 2023, mix such
points). Later the sampler proposes several points by what the trials have shown, and the belief has less and less to
say about which one is taken: its power falls as 1 / n (Hvarfner et al., "πBO: Augmenting Acquisition Functions with
User Beliefs for Bayesian Optimization", ICLR 2022).
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from frostline.search.space import BODY, FREEZE, RATE

EVEN = 4  # one in that many points is drawn without the belief
CANDIDATES = 128  # even points, of which one is picked
PROPOSALS = 8  # points of the sampler, of which one is picked
STARTUP = 10  # trials before a sampler has learned enough; as Optuna has it

# How much a line is believed in that leaves nothing of the backbone to train: one such trial says all, since its head
# is trained by other settings.
OF_HEAD = 0.1

# How sure the belief is: standard deviations of the frozen share, of the logarithm of the rate, and of the accuracy of
# frozen features.
OF_SHARE, OF_RATE, OF_BODY = 0.3, math.log(3), 0.05


@dataclass(frozen=True)
class Prior:
    """The belief about the backbone, the freeze line and the learning rate; nothing is believed about other keys.

    frozen: the share of the backbone's compute below the best line, in [0, 1]; learning_rate: the best one; shares: the
    share below the line of each freeze rule of the space, by the rule as a string; behind: of each backbone, how much
    less than the best one its frozen features are worth, in [0, 1] of accuracy.
    """

    frozen: float
    learning_rate: float
    shares: Mapping[str, float]
    behind: Mapping[str, float] = field(default_factory=dict)

    def belief(self, values: Mapping[str, Any]) -> float:
        """How much a point is believed in, in (0, 1]: the product of normal densities, each 1 where it is highest."""
        distance = 0.0
        if (share := self.shares.get(str(values.get(FREEZE)))) is not None:
            distance += ((share - self.frozen) / OF_SHARE) ** 2
            distance -= 2 * math.log(OF_HEAD) * (share == 1)
        if RATE in values:
            distance += (math.log(max(values[RATE], 1e-12) / self.learning_rate) / OF_RATE) ** 2
        distance += (self.behind.get(values.get(BODY, ""), 0.0) / OF_BODY) ** 2
        return max(math.exp(-distance / 2), 1e-300)

    def pick(self, points: Sequence[dict[str, Any]], number: int, chance: random.Random) -> dict[str, Any]:
        """The point of the trial with that number: from CANDIDATES even ones for the first STARTUP trials, from
        PROPOSALS of a sampler after that."""
        if number == 0:
            return max(points, key=self.belief)
        if number % EVEN == EVEN - 1:
            return points[0]
        power = min(1.0, STARTUP / number)
        return chance.choices(points, [self.belief(point) ** power for point in points])[0]
