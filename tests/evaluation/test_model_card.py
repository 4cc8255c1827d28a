"""The model card has the sections of Hugging Face's template and the facts that readers need, for any test split."""

import json
from dataclasses import replace

import numpy as np
import pytest
import workspace
from conftest import make_params, make_predictions
from ruamel.yaml import YAML

from frostline.data.data_report import DataReport, DataWarning, NearCopyCounts, Problem, SplitDigests
from frostline.evaluation import metrics as evaluation
from frostline.evaluation import model_card, promises, ranking
from frostline.models.answer_facts import AnswerFacts, Answers, LeftOut, SetFacts, UnknownFacts

SECTIONS = [  # of Hugging Face's template, in its order
    "Model Details",
    "Uses",
    "Bias, Risks, and Limitations",
    "How to Get Started with the Model",
    "Training Details",
    "Evaluation",
    "Model Examination",
    "Technical Specifications",
]


def card_of(labels, probabilities, names, binary=False, grey_range=None, soup=None, facts=None, found=None, **more):
    params = make_params(head__binary=binary)
    made_from = workspace.made_from(frozen=34, head=params.head.model_dump(), **more)
    made_from = replace(made_from, finetune={**made_from.finetune, "soup": soup})
    data = DataReport(
        source="data/pets",
        classes=list(names),
        image_size=64,
        resize="crop",
        grey_range=grey_range,
        images={"train": 10, "val": 2, "test": len(labels)},
        images_per_class={"train": {name: 1 + at for at, name in enumerate(names)}},
        left_out_by_train_per_class=0,
        on_problem="drop",
        problem_counts={"not_an_image": 1},
        problems=[Problem("cat/1.png", "cat", "not_an_image", "not an image")],
        warnings=[DataWarning("imbalance", "train has few cats")],
        near_duplicates=[["cat/2.png", "cat/3.png"]],
        near_duplicate_counts=NearCopyCounts(1, 2),
        digests={split: SplitDigests(split, split) for split in ("train", "val", "test")},
    )
    assert DataReport.from_json(json.loads(json.dumps(data.as_json()))) == data
    predicted = probabilities.argmax(axis=1)
    ranks, scores = ranking.summary(labels, probabilities), evaluation.compute(labels, probabilities, 3, 100, 0)
    scores = replace(scores, roc_auc=ranks.roc_auc, average_precision=ranks.average_precision, test_digest="feed")
    scores = replace(scores, **vars(promises.measure(labels, found, facts))) if found else scores
    confusion = evaluation.confusion_matrix(labels, predicted, len(names))
    table = evaluation.per_class(labels, predicted, tuple(names))
    return model_card.write(made_from, facts, "b0b0", data, scores, table, evaluation.confusions(confusion))


def test_the_sections_are_the_template_s_and_the_front_matter_is_yaml():
    labels, probabilities = make_predictions(200)
    card = card_of(labels, probabilities, "abcde")
    assert [line[3:] for line in card.splitlines() if line.startswith("## ")] == SECTIONS
    matter = YAML(typ="safe").load(card.split("---\n")[1])
    assert matter["pipeline_tag"] == "image-classification"
    (result,) = matter["model-index"][0]["results"]
    assert {metric["type"] for metric in result["metrics"]} == {"accuracy", "f1", "roc_auc"}
    for text in (
        "1 not an image",
        "`b0b0`",
        "fewest training images is a, with 1",
        "not calibrated",
        "taken for",
        "off by 0.1",
    ):
        assert text in card


def test_a_class_that_is_missing_from_the_test_split_is_named():
    labels, probabilities = make_predictions(50, 0, 3)
    is_measured = labels != 2
    assert "were not measured: c|c".replace("|", "\\|") in card_of(
        labels[is_measured], probabilities[is_measured], ["a", "b", "c|c"]
    )


def test_of_a_thousand_classes_the_weakest_are_listed_with_a_note():
    labels, probabilities = make_predictions(3000, 0, 1000)
    card = card_of(labels, probabilities, [f"n{number}" for number in range(1000)])
    assert "The 100 classes with the lowest F1, of 1,000" in card
    assert "n49 and 950 more" in card
    assert len(card) < 20_000


@pytest.mark.parametrize("right", [True, False])
def test_the_card_of_one_test_image_says_that_it_is_few(right):
    probabilities = np.array([[0.25, 0.75]], np.float32)
    card = card_of(np.array([int(right)]), probabilities, ["cat", "dog"], binary=True, temperature=1.25)
    assert "calibrated by a temperature of 1.25" in card
    assert "fewer than 30 test images" in card
    assert "of the second class" in card
    assert ("No test image was misclassified" in card) == right
    assert "roc_auc" not in card


def test_the_range_of_deep_grey_images_is_said_and_used_in_the_example():
    labels, probabilities = make_predictions(50)
    card = card_of(labels, probabilities, "abcde", grey_range=(-1000.0, 3000.0))
    assert "grey images of more than 8 bits show the values from -1000 to 3000" in card
    assert '64, "crop", grey_range=(-1000.0, 3000.0))' in card
    assert "the range of their type" in card_of(labels, probabilities, "abcde", grey_range="dtype")
    assert "grey" not in card_of(labels, probabilities, "abcde")


def test_a_soup_is_called_the_average_of_its_trainings():
    labels, probabilities = make_predictions(20, classes=3)
    assert "average of" not in card_of(labels, probabilities, "abc")
    card = card_of(labels, probabilities, "abc", soup=[{"share": 1}, {"share": 3, "finetune.epochs": 0}])
    assert "The weights are the average of 2 trainings that began with the same head" in card
    assert "finetune.epochs: 0" in card


def test_the_promises_and_what_holds_are_said():
    labels, probabilities = make_predictions(200)
    sets = probabilities >= 0.1
    found = Answers(probabilities, sets, np.arange(200) < 8, np.zeros(200, np.float32))
    left_out = tuple(LeftOut(name, layer, area) for name, layer, area in (("knn", "top", 0.81), ("msp", None, 0.75)))
    facts = AnswerFacts("val", 90, "d", SetFacts("lac", 0.9, 0.1), UnknownFacts("knn", "top", 0.05, 1.0, 60, left_out))
    card = card_of(labels, probabilities, "abcde", facts=facts, found=found)
    coverage = sets[np.arange(200), labels].mean()
    for text in (
        "a probability for each class, not calibrated; the set of classes that it may be; `unknown`",
        "answers `unknown` for many of them, but not for all",
        "Fitted on 90 images of the validation split",
        f"Of the test images {coverage:.1%} have it",
        f"a set has {sets.sum(axis=1).mean():.2f} classes",
        "Of the test images 4.0% are (",
        "| `knn` | `top` | 0.810 |",
        "| `msp` | outputs | 0.750 |",
        "| share of these images that is called unknown | 0.0400 |",
    ):
        assert text in card
    few = AnswerFacts("calibration", 9, "d", SetFacts("lac", 0.9, np.inf), UnknownFacts("msp", None, 0.05, np.inf, 0))
    card = card_of(labels, probabilities, "abcde", facts=few, found=found)
    assert "the calibration split, which nothing else saw" in card
    assert "**No image is called unknown**" in card
    assert "**Sets** have all classes" in card


def test_the_risk_falls_with_the_coverage():
    labels, probabilities = make_predictions(400)
    curve = promises.risk_coverage(labels, probabilities)
    errors = probabilities.argmax(axis=1) != labels
    assert curve["risk"].iloc[-1] == pytest.approx(errors.mean())
    surest = np.argsort(-probabilities.max(axis=1), kind="stable")[:200]
    assert curve["risk"][curve["coverage"] == 0.5].item() == pytest.approx(errors[surest].mean())
    by_hand = np.mean([errors[np.argsort(-probabilities.max(axis=1), kind="stable")[:k]].mean() for k in range(1, 401)])
    assert promises.aurc(labels, probabilities) == pytest.approx(by_hand)


def test_the_promises_by_class_know_which_class_has_no_images():
    labels = np.array([0, 0, 2])
    sets = np.array([[1, 0, 0], [0, 1, 1], [1, 1, 1]], bool)
    found = Answers(np.eye(3, dtype=np.float32), sets, np.array([True, False, False]), np.zeros(3, np.float32))
    table = promises.by_class(labels, found, 3)
    assert table["set_coverage"].tolist()[::2] == [0.5, 1.0]
    assert table["set_size"].tolist()[::2] == [1.5, 3.0]
    assert table["unknown_rate"].tolist()[::2] == [0.5, 0.0]
    assert table.iloc[1].isna().all()
    facts = AnswerFacts("val", 9, "d", SetFacts("lac", 0.9, 0.1), UnknownFacts("msp", None, 0.05, 1.0, 0))
    measured = promises.measure(labels, found, facts)
    assert (measured.set_promise, measured.unknown_promise) == (0.9, 0.05)
    assert (measured.set_coverage.value, measured.unknown_rate.value) == (pytest.approx(2 / 3), pytest.approx(1 / 3))
    assert measured.accuracy_known.value == 0.5
