"""The report for a merge request: what changed, in numbers with intervals, and nothing that Markdown would run."""

import pandas as pd
from conftest import make_predictions

from frostline.evaluation import markdown, metrics
from frostline.evaluation.markdown import EvaluatedState


def make_state(name, seed=0, freeze="all", digest="same", classes="abcde"):
    """A state whose classifier is right more often than not; the labels are the same for every seed."""
    labels, _ = make_predictions(300, 0)
    _, probabilities = make_predictions(300, seed)
    probabilities = probabilities[:, :5]
    scores = metrics.compute(labels, probabilities, 1, 100, 0)
    names = [classes[label] for label in labels]
    predicted = [classes[label] for label in probabilities.argmax(axis=1)]
    table = pd.DataFrame(
        {
            "path": [f"{label}/{number}|x.png" for number, label in enumerate(names)],
            "sha256": [f"{number:064x}" for number in range(300)],
            "label": names,
            "predicted": predicted,
            "probability": probabilities.max(axis=1),
            "probabilities": list(probabilities),
        }
    )
    table.attrs["classes"] = list(classes)
    confusion = pd.DataFrame({"actual": names, "predicted": predicted})
    settings = {"finetune.freeze": freeze, "backbone.name": "frostnet", "seed": 7}
    scores = type(scores)(**{**vars(scores), "test_digest": digest})
    return EvaluatedState(name, scores, settings, 66, confusion, table)


def test_what_differs_is_shown_beside_each_other():
    now, before = make_state("now"), make_state("main", seed=1, freeze=5)
    text = markdown.text(now, before, 7)
    assert f"against {before.scores.accuracy.value:.4f} of main" in text
    assert "On the same images the gain is **+" in text
    assert "| accuracy | " in text
    assert " better |" in text
    assert "| `finetune.freeze` | `all` | `5` |" in text
    assert "`seed`" not in text
    assert "| actual | predicted | images now | main |" in text
    assert text.count(r"\|x.png`") == markdown.MISTAKES
    columns = [len(line.replace(r"\|", "").split("|")) for line in text.splitlines() if line.startswith("|")]
    assert set(columns) <= {5, 6}


def test_what_can_not_be_compared_is_said():
    now = make_state("now")
    assert "There is no evaluation to compare it with" in markdown.text(now, None, 7)
    other = make_state("main", digest="other")
    assert "main was tested on other images" in markdown.text(now, other, 7)
    bare = EvaluatedState("main", other.scores, {})
    assert "tested on other images" in markdown.text(now, bare, 7)
    poor = EvaluatedState("main", now.scores, {})
    assert "The predictions of main are not here" in markdown.text(now, poor, 7)
    assert "knows other classes" in markdown.text(now, make_state("main", classes="vwxyz"), 7)


def test_names_are_only_text():
    now = make_state("now", classes=["<b>", "b", "c", "d", "e"])
    text = markdown.text(now, make_state("a_b|c", classes=["<b>", "b", "c", "d", "e"]), 7)
    assert r"a\_b\|c" in text
    assert "<b>" not in text.replace("`<b>/", "")
