"""The comparison of two evaluations as Markdown, for a comment on a merge request."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from frostline.core.escaping import code, markdown
from frostline.evaluation import gate
from frostline.evaluation.scores import Score, Scores

if TYPE_CHECKING:
    import pandas as pd

MISTAKES, PAIRS = 5, 8  # rows of a table, at most

# The metrics of the table, by their names in metrics.json, and whether more is better.
METRICS = {"accuracy": True, "macro_f1": True, "log_loss": False, "roc_auc": True, "ece": False}


@dataclass(frozen=True)
class EvaluatedState:
    """What a state of the project says of its classifier.

    name: of the state; settings: dotted keys of params.yaml; frozen_layers: at the end of the training; confusion: a
    table `actual`, `predicted`, one row an image; predictions: reports/predictions.parquet. None: it is not here.
    """

    name: str
    scores: Scores
    settings: Mapping[str, Any]
    frozen_layers: int | None = None
    confusion: pd.DataFrame | None = None
    predictions: pd.DataFrame | None = None


def text(now: EvaluatedState, before: EvaluatedState | None, seed: int) -> str:
    """The report on a state, compared with another one. before: None if that one was not evaluated."""
    blocks = [_title(now, before), _paired(now, before, seed), _metrics(now.scores, before)]
    blocks += [_frost_line(now, before), _settings(now, before), _confusion(now, before), _mistakes(now, before)]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _title(now: EvaluatedState, before: EvaluatedState | None) -> str:
    accuracy, n = now.scores.accuracy, now.scores.n_test
    against = f"against {before.scores.accuracy.value:.4f} of {markdown(before.name)}" if before else ""
    title = f"## Test accuracy {_number(accuracy)} {against}".rstrip()
    return f"{title}\n\n{n:,} test images; always the commonest class: {now.scores.commonest_class:.4f}."


def _paired(now: EvaluatedState, before: EvaluatedState | None, seed: int) -> str:
    """A sentence on the difference, image by image, or why there is none."""
    if before is None:
        return "There is no evaluation to compare it with."
    if now.scores.test_digest != before.scores.test_digest:
        return f"**{markdown(before.name)} was tested on other images, so the numbers can't be compared.**"
    if now.predictions is None or before.predictions is None:
        return f"The predictions of {markdown(before.name)} are not here, so it is not compared image by image."
    if set(now.predictions.attrs["classes"]) != set(before.predictions.attrs["classes"]):
        return f"{markdown(before.name)} knows other classes, so it is not compared image by image."
    labels, (ours, theirs) = gate.aligned([now.predictions, before.predictions])
    result = gate.compare(labels, ours, theirs, "accuracy", 0.0, 0.95, seed)
    return (
        f"On the same images the gain is **{result.gain:+.4f}**, with 95% confidence at least {result.bound:+.4f}; "
        f"right where the other is wrong: {result.only_challenger} against {result.only_champion}, McNemar "
        f"p = {result.p_value:.3f}."
    )


def _metrics(scores: Scores, before: EvaluatedState | None) -> str:
    rows = []
    for name, is_more_better in METRICS.items():
        now, old = getattr(scores, name), getattr(before.scores, name) if before else None
        if now is None:
            continue
        change = ""
        if old is not None:
            difference = _value(now) - _value(old)
            word = "" if abs(difference) < 5e-5 else " better" if (difference > 0) == is_more_better else " worse"
            change = f"{difference:+.4f}{word}"
        rows.append([name, _number(now), _number(old), change])
    columns = ["metric", "now", markdown(before.name), "change"] if before else ["metric", "now", "", ""]
    return _table(columns, rows)


def _frost_line(now: EvaluatedState, before: EvaluatedState | None) -> str:
    def one(state: EvaluatedState) -> str:
        freeze = state.settings.get("finetune.freeze") or state.settings.get("finetune.train")
        layers = "" if state.frozen_layers is None else f", {state.frozen_layers} layers frozen"
        return f"{code(str(state.settings.get('backbone.name')))} at {code(_as_text(freeze))}{layers}"

    return f"**Frost line:** {one(now)}" + (f"; {markdown(before.name)}: {one(before)}" if before else "")


def _settings(now: EvaluatedState, before: EvaluatedState | None) -> str:
    """The keys of params.yaml that differ."""
    if before is None:
        return ""
    keys = sorted({*now.settings, *before.settings})
    pairs = [(key, now.settings.get(key), before.settings.get(key)) for key in keys]
    rows = [[code(key), code(_as_text(new)), code(_as_text(old))] for key, new, old in pairs if new != old]
    return _table(["params.yaml", "now", markdown(before.name)], rows) if rows else ""


def _confusion(now: EvaluatedState, before: EvaluatedState | None) -> str:
    """The commonest mistakes, and those whose number changed most."""
    if now.confusion is None:
        return ""
    new, old = _mistaken(now.confusion), _mistaken(before.confusion if before else None)
    has_old = before is not None and before.confusion is not None
    pairs = sorted({*new, *old}, key=lambda pair: (-abs(new.get(pair, 0) - old.get(pair, 0)), -new.get(pair, 0), pair))
    rows = [
        [markdown(actual), markdown(predicted), str(new.get((actual, predicted), 0))]
        + ([str(old.get((actual, predicted), 0))] if has_old else [])
        for actual, predicted in pairs[:PAIRS]
    ]
    columns = ["actual", "predicted", "images now"] + ([markdown(before.name)] if has_old and before else [])
    return f"**Mistaken for one another**\n\n{_table(columns, rows)}" if rows else ""


def _mistakes(now: EvaluatedState, before: EvaluatedState | None) -> str:
    """The most confident mistakes, and whether the other one makes them too."""
    table = now.predictions
    if table is None:
        return ""
    wrong = table[table["label"] != table["predicted"]].sort_values("probability", ascending=False).head(MISTAKES)
    theirs = {}
    if before is not None and before.predictions is not None:
        theirs = dict(zip(before.predictions["sha256"], before.predictions["predicted"], strict=True))
    rows = [
        [code(row["path"]), markdown(row["label"]), f"{markdown(row['predicted'])} ({row['probability']:.2f})"]
        + ([markdown(theirs.get(row["sha256"], "not tested"))] if theirs else [])
        for row in wrong.to_dict("records")
    ]
    columns = ["image", "label", "predicted"] + ([markdown(before.name)] if theirs and before else [])
    return f"**Worst mistakes**\n\n{_table(columns, rows)}" if rows else ""


def _mistaken(confusion: pd.DataFrame | None) -> dict[tuple[str, str], int]:
    """How many images of one class are taken for another, by (actual, predicted)."""
    if confusion is None:
        return {}
    wrong = confusion[confusion["actual"] != confusion["predicted"]].astype(str)
    counts = wrong.groupby(["actual", "predicted"]).size()
    return {(str(actual), str(predicted)): int(count) for (actual, predicted), count in counts.items()}


def _value(score: Score | float) -> float:
    return score.value if isinstance(score, Score) else score


def _number(score: Score | float | None) -> str:
    if score is None:
        return ""
    interval = score.interval if isinstance(score, Score) else None
    return f"{_value(score):.4f}" + (f" ({interval[0]:.4f} to {interval[1]:.4f})" if interval else "")


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
