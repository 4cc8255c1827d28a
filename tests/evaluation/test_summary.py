"""The last lines of a pipeline: the accuracy with what it must be compared with."""

from pathlib import Path

import numpy as np
from conftest import make_params, make_predictions

from frostline.evaluation import metrics, summary


def test_the_baseline_stands_beside_the_accuracy_and_a_poor_one_is_said():
    labels, probabilities = make_predictions(300)
    good = metrics.compute(labels, probabilities, 1, 100, 0)
    lines = summary.text(good, Path("card.md"), make_params(), "make ui").splitlines()
    share = np.bincount(labels).max() / 300
    assert lines[1] == f"baseline      {share:.4f} (always the commonest class)"
    assert "finetune.freeze=none" in lines[-1]
    always = np.tile(np.eye(5, dtype=np.float32)[np.bincount(labels).argmax()], (300, 1))
    poor = metrics.compute(labels, always, 1, 100, 0)
    assert poor.accuracy.value == poor.commonest_class == share
    last = summary.text(poor, Path("card.md"), make_params(), None).splitlines()[-1]
    assert last.startswith("warning: this is not clearly better")


def test_the_summary_says_where_the_run_is_to_be_seen():
    scores = metrics.compute(*make_predictions(300), 1, 100, 0)

    def lines(view):
        return [line.split() for line in summary.text(scores, Path("card.md"), make_params(), view).splitlines()[3:]]

    assert lines("http://host/#/experiments/1/runs/2")[0] == ["run", "http://host/#/experiments/1/runs/2"]
    assert lines("make ui")[0][:3] == ["next", "make", "ui"]
    for view in ("http://host", None):
        assert "make" not in lines(view)[-1]
        assert lines(view)[-1][0] == "next"


def test_photos_that_frostnet_learned_lead_to_the_recipe_for_photos():
    scores = metrics.compute(*make_predictions(300), 1, 100, 0)

    def said(**changes):
        return summary.text(scores, Path("card.md"), make_params(**changes), None)

    assert "recipe photos" not in said()  # the digits
    assert "\nnext          frostline recipe photos" in said(data__source="photos")
    assert "recipe photos" not in said(data__source="photos", backbone__name="EfficientNetLite0")


def test_another_line_to_try_excludes_the_band():
    scores = metrics.compute(*make_predictions(300), 1, 100, 0)
    for changes, other in (
        ({"finetune__freeze": "none"}, "-S finetune.freeze=all"),
        ({"finetune__freeze": None, "finetune__train": (2, 3)}, "-S finetune.freeze=none -S finetune.train=null"),
    ):
        assert summary.text(scores, Path("card.md"), make_params(**changes), None).endswith(other)
