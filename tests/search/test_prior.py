"""Which points a prior puts first."""

import math
import random
import statistics
from dataclasses import replace

import pytest
from test_study import settings

from frostline.errors import ParamsError
from frostline.search import sampling, storages
from frostline.search import study as search
from frostline.search.prior import EVEN, OF_HEAD, OF_SHARE, STARTUP, Prior
from frostline.search.space import Choice, Interval

LINES = ("none", "a", "b", "c", "all")
PRIOR = Prior(0.5, 1e-3, {line: place / 4 for place, line in enumerate(LINES)})
WIDE = [
    Choice("finetune.freeze", LINES, is_ordered=True),
    Interval("finetune.learning_rate", 1e-5, 1e-1, log=True, step=None, is_whole=False),
    Interval("head.dropout", 0.0, 0.5, log=False, step=None, is_whole=False),
]


@pytest.fixture
def points(tmp_path):
    """`points(settings, count, space)`: of the first trials of a study, which all pause."""

    def taken(chosen, count, space=WIDE):
        found = []
        with (
            storages.opened("journal", tmp_path) as opened,
            search.join("s", opened, tmp_path / "s", space, chosen) as study,
        ):
            for _ in range(count):
                trial = study.take(None)
                found.append(dict(trial.params))
                study.report(trial, 50, 0.5, loss=1.0)
                study.put_back(trial)
        return found

    return taken


def distance(point):
    """From the best rate, as a factor's logarithm."""
    return abs(math.log(point["finetune.learning_rate"] / PRIOR.learning_rate))


def test_the_belief_falls_with_the_distance_from_line_and_rate():
    best = {"finetune.freeze": "b", "finetune.learning_rate": 1e-3}
    assert PRIOR.belief(best) == 1
    assert PRIOR.belief({"head.dropout": 0.3}) == 1, "nothing is believed of other keys"
    at_one = [PRIOR.belief({**best, "finetune.freeze": line}) for line in LINES]
    near, far = (math.exp(-((gap / OF_SHARE) ** 2) / 2) for gap in (0.25, 0.5))
    assert at_one == pytest.approx([far, near, 1, near, OF_HEAD * far])
    assert PRIOR.belief({**best, "finetune.learning_rate": 3e-3}) == pytest.approx(math.exp(-0.5))
    assert PRIOR.belief({**best, "finetune.learning_rate": 0.0}) > 0
    of_bodies = replace(PRIOR, behind={"A": 0.0, "B": 0.05})
    assert of_bodies.belief({**best, "backbone.name": "A"}) == 1
    assert of_bodies.belief({**best, "backbone.name": "B"}) == pytest.approx(math.exp(-0.5))


def test_the_first_points_follow_the_belief_and_every_fourth_does_not(points):
    found = points(replace(settings(STARTUP), prior=PRIOR), STARTUP)
    assert found[0]["finetune.freeze"] == "b"
    assert distance(found[0]) < math.log(2)
    believed = [distance(point) for number, point in enumerate(found) if number % EVEN != EVEN - 1]
    assert statistics.mean(believed) < math.log(4), "of evenly drawn ones it is about log(10)"
    assert len({point["head.dropout"] for point in found}) == len(found)


def test_later_the_belief_has_a_say_in_what_the_sampler_proposes():
    near, far = {"finetune.learning_rate": 1e-3}, {"finetune.learning_rate": 1e-1}
    for number, share in ((20, 0.99), (10000, 0.5)):
        picks = [PRIOR.pick([far, near], number, random.Random(seed)) is near for seed in range(1000)]
        expected = 1 / (1 + PRIOR.belief(far) ** (STARTUP / number))
        assert statistics.mean(picks) == pytest.approx(expected, abs=0.05)
        assert expected == pytest.approx(share, abs=0.02)
    assert PRIOR.pick([far, near], 11, random.Random(0)) is far, "every fourth as the sampler says"


def test_random_draws_all_points_from_the_belief(points):
    found = points(replace(settings(24, "random"), prior=PRIOR), 24)
    even = [distance(point) for number, point in enumerate(found) if number % EVEN == EVEN - 1]
    believed = [distance(point) for number, point in enumerate(found) if number % EVEN != EVEN - 1]
    assert statistics.mean(believed) < 0.6 * statistics.mean(even)
    assert all(point["finetune.freeze"] in LINES for point in found)


def test_no_point_is_repeated_while_others_are_untried(points):
    space = [WIDE[0], Choice("finetune.learning_rate", (1e-4, 1e-3), is_ordered=True)]
    found = points(replace(settings(10), prior=PRIOR), 10, space)
    assert len({tuple(point.values()) for point in found}) == 10
    assert found[0] == {"finetune.freeze": "b", "finetune.learning_rate": 1e-3}


def test_the_grid_has_no_use_for_a_prior():
    space = [Choice("finetune.freeze", LINES, is_ordered=True)]
    with pytest.raises(ParamsError, match=r"sweep.prior choose has no use with sweep.sampler grid"):
        sampling.require_sampler(replace(settings(5, "grid"), prior=PRIOR), space)
    sampling.require_sampler(settings(5, "grid"), space)
