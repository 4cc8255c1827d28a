"""What is recommended, from made-up probes."""

import numpy as np
import pytest
from conftest import make_params

from frostline.choice import verdict
from frostline.choice.bodies import Candidate
from frostline.choice.probes import Probe
from frostline.choice.verdict import BodyProbe, DepthProbe, Situation
from frostline.params.schema import BackboneSection

FLOORS = [("pixels", 0.5), ("frostnet, random", 0.4)]
IMAGES = 1000


def body(name, accuracies, nearest=None, cost=100):
    """A body whose depths, at even shares of its compute, have these accuracies."""
    section = BackboneSection(name=name, weights="imagenet", alpha=None, until=None)
    depths = [
        DepthProbe(f"block{place}", place / len(accuracies), Probe(value, IMAGES), Probe(nearest or value, IMAGES))
        for place, value in enumerate(accuracies, 1)
    ]
    return BodyProbe(Candidate(name, section, multiply_adds=cost), depths)


def of(bodies, floors=FLOORS, per_class=200, **changes):
    """The verdict for 10 classes."""
    situation = Situation(12 * per_class, 10, 10 * per_class, floors)
    return verdict.of(bodies, situation, make_params(**changes).finetune)


LIKE = body("A", [0.6, 0.65, 0.7, 0.75, 0.8, 0.84, 0.87, 0.9, 0.91, 0.92])
PEAK = body("A", [0.6, 0.7, 0.8, 0.92, 0.9, 0.88, 0.86, 0.84, 0.82, 0.8])
LITTLE = body("A", [0.5, 0.52, 0.54, 0.55, 0.56, 0.57, 0.58, 0.58, 0.59, 0.6])


ALONE = {"backbone.until": None, "head.features": "all_depths", "finetune.freeze": "all", "finetune.epochs": 0}


@pytest.mark.parametrize(
    ("probed", "per_class", "scenario", "expected"),
    [
        (LIKE, 5, "few, like", ALONE),
        (PEAK, 5, "few, unlike", ALONE),
        (LIKE, 200, "some, like", {"backbone.until": None, "head.features": None, "finetune.freeze": "block5"}),
        (PEAK, 200, "some, unlike", {"backbone.until": None, "finetune.freeze": "block3"}),
        (LIKE, 2000, "many, like", {"finetune.freeze": "block5", "finetune.batch_norm": "freeze"}),
        (PEAK, 2000, "many, unlike", {"finetune.freeze": "none", "finetune.batch_norm": "train"}),
        (LITTLE, 200, "some, unlike", {"finetune.freeze": "block3"}),  # little better than pixels
        (LIKE, 20, "some, like", {"finetune.epochs": 8}),
        (LIKE, 1000, "many, like", {}),
    ],
)
def test_the_scenario_and_its_settings(probed, per_class, scenario, expected):
    found = of([probed], per_class=per_class)
    assert found.scenario == scenario
    settings = {"backbone.name": "A", "backbone.weights": "imagenet", **expected}
    assert {key: found.settings[key] for key in settings} == settings
    ((key, space),) = found.space.items()
    assert space["low"] < found.settings[key] < space["high"]
    assert len(str(space["low"])) < 8, "no digits of rounding"


def test_a_small_drop_at_the_end_is_not_a_peak():
    error = Probe(0.9, IMAGES).error
    assert of([body("A", [0.8, 0.9, 0.9 - 1.9 * error])]).scenario == "some, like"
    assert of([body("A", [0.8, 0.9, 0.9 - 2.1 * error])]).scenario == "some, unlike"


@pytest.mark.parametrize(
    ("per_class", "changes", "rate"),
    [
        (224, {"finetune__batch_size": 26}, 2e-4),  # 87 batches, 8 epochs
        (448, {"finetune__batch_size": 26}, 1e-4),  # twice as many
        (56, {"finetune__batch_size": 26}, 3e-4),  # a quarter, but a larger rate ruins the weights
        (900, {"finetune__batch_size": 8}, 1e-4),
        (224, {"finetune__batch_size": 26, "finetune__optimizer": "sgd"}, 6e-3),
        (5000, {}, 1e-4),
    ],
)
def test_the_learning_rate_falls_as_the_root_of_the_steps(per_class, changes, rate):
    found = of([LIKE], per_class=per_class, **changes)
    assert found.settings["finetune.learning_rate"] == pytest.approx(rate)
    assert found.fine_tuning.learning_rate == pytest.approx(rate)


def test_where_a_head_alone_is_recommended_fine_tuning_has_a_rate_too():
    found = of([LIKE], per_class=5)
    assert found.fine_tuning == (0.5, 3e-4)
    assert "finetune.learning_rate" not in found.settings


@pytest.mark.parametrize(("per_class", "epochs"), [(5, 250), (19, 84)])
def test_the_head_of_few_images_has_as_many_steps_as_it_needs(per_class, epochs):
    found = of([LIKE], per_class=per_class, finetune__batch_size=16)
    assert found.settings["finetune.head_epochs"] == epochs


def test_with_many_classes_the_steps_of_the_recipe_are_enough():
    situation = Situation(12_000, 2_000, 10_000, FLOORS)
    settings = verdict.of([LIKE], situation, make_params(finetune__batch_size=16).finetune).settings
    assert settings["finetune.head_epochs"] == 20


def test_of_equally_good_depths_the_deepest_is_the_best():
    assert body("A", [0.8, 0.9, 0.9, 0.7]).best.layer == "block3"


def test_the_cheapest_within_one_standard_error_is_taken():
    error = Probe(0.9, IMAGES).error
    best, near = body("best", [0.9], cost=900), body("near", [0.9 - 0.9 * error], cost=300)
    far = body("far", [0.9 - 1.1 * error], cost=10)
    found = of([far, near, best])
    assert found.body is near
    assert found.reasons[0].endswith("best (0.900) is less than a standard error better, but no cheaper")
    cheap = body("best", [0.9], cost=300)
    found = of([far, body("near", [0.9 - 0.9 * error], cost=900), cheap])
    assert found.body is cheap
    assert "the most of all bodies; near is within a standard error, but no cheaper" in found.reasons[0]
    unknown = body("near", [0.9 - 0.9 * error], cost=None)
    assert of([unknown, best]).body is best, "unknown compute is not taken for little"


def test_a_cheap_body_is_taken_if_it_tells_nearly_the_same_images():
    right = np.arange(IMAGES) < 900

    def told(name, told, cost):
        section = BackboneSection(name=name, weights="imagenet", alpha=None, until=None)
        probe = Probe(float(told.mean()), IMAGES, told)
        return BodyProbe(Candidate(name, section, multiply_adds=cost), [DepthProbe("end", 1.0, probe, probe)])

    best, same = (
        told("best", right, 900),
        told("same", (right & (np.arange(IMAGES) > 2)) | (np.arange(IMAGES) > 997), 300),
    )
    worse = told("worse", np.arange(IMAGES) < 891, 100)  # within the error of one accuracy, 9 images behind
    assert of([best, same, worse]).body is same


def test_a_single_body_and_a_clear_winner_are_said_as_they_are():
    assert "bod" not in of([LIKE]).reasons[0]
    found = of([LIKE, body("B", [0.7])])
    assert found.reasons[0].endswith("more than any other body by over a standard error")


def test_what_pretraining_avoids_is_counted_from_the_higher_floor():
    found = of([LIKE], floors=[("pixels", 0.5), ("frostnet, random", 0.6)])
    assert "pretraining avoids 80% of the mistakes of frostnet, random (0.600)" in found.reasons


def test_nearest_neighbours_that_disagree_are_said():
    other = body("B", [0.7], nearest=0.95)
    found = of([LIKE, other])
    assert found.body is LIKE
    assert "nearest neighbours prefer B (0.950 to 0.920)" in found.reasons
    assert not any("nearest" in reason for reason in of([LIKE, body("B", [0.7])]).reasons)
