"""The model card: what people must know before they use a bundle that others trained.

The sections are those of Hugging Face's template (after Mitchell et al., "Model Cards for Model Reporting", FAT* 2019);
the front matter is in the format that the Hugging Face Hub reads.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from frostline.core.escaping import code, markdown
from frostline.data.data_report import DataReport
from frostline.evaluation import answers_card, card_making
from frostline.evaluation.scores import Score, Scores
from frostline.models.answer_facts import AnswerFacts
from frostline.models.made_from import BackboneOrigin, MadeFrom

LISTED_CLASSES = 50  # at most, in a sentence
TABLED_CLASSES = 100  # at most, in a table
FEW_TEST_IMAGES = 30  # of a class; with fewer, its recall has an error of more than about 0.15
POOR_CALIBRATION = 0.05  # expected calibration error

METRICS = {  # fields of Scores, in the order of the table
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "weighted_f1": "weighted F1",
    "roc_auc": "ROC AUC (one class against the rest, macro)",
    "average_precision": "average precision (macro)",
    "log_loss": "log loss (nats)",
    "log_loss_uncalibrated": "log loss without the temperature",
    "ece": "expected calibration error",
    "ece_uncalibrated": "expected calibration error without the temperature",
    "top_k_accuracy": "top-{k} accuracy",
    "aurc": "area under the risk-coverage curve",
    "set_coverage": "share of images whose set has their class",
    "set_size": "classes in a set, on average",
    "unknown_rate": "share of these images that is called unknown",
    "accuracy_known": "accuracy of the others",
}


def write(
    made_from: MadeFrom,
    answers: AnswerFacts | None,
    bundle_digest: str,
    data: DataReport,
    scores: Scores,
    per_class: pd.DataFrame,
    confusions: pd.DataFrame,
) -> str:
    """The card as Markdown.

    answers: of the bundle, None if it gives probabilities alone; data: the report of `prepare`; per_class: one row for
    each class, with class, precision, recall, f1, support; confusions: true and predicted (class numbers) and count,
    most frequent first.
    """
    sections = [
        _front_matter(made_from, data, scores),
        _details(made_from, answers, data, scores),
        _uses(answers, data, scores),
        _limits(made_from, data, scores, per_class),
        _start(made_from, data),
        card_making.training(made_from, data),
        _evaluation(data, scores, per_class),
        answers_card.section(made_from, answers, scores),
        _examination(data, confusions),
        card_making.specifications(made_from, bundle_digest, data),
    ]
    return "\n".join(sections)


def _front_matter(made_from: MadeFrom, data: DataReport, scores: Scores) -> str:
    results = [
        {"type": kind, "name": METRICS[key], "value": round(score.value, 4)}
        for key, kind in {"accuracy": "accuracy", "macro_f1": "f1", "roc_auc": "roc_auc"}.items()
        if (score := getattr(scores, key)) is not None
    ]
    dataset = {"type": "imagefolder", "name": data.source, "split": "test"}
    result = {"task": {"type": "image-classification"}, "dataset": dataset, "metrics": results}
    matter = {
        "library_name": "keras",
        "pipeline_tag": "image-classification",
        "tags": ["transfer-learning", "frostline", made_from.backbone.name],
        "metrics": [metric["type"] for metric in results],
        "model-index": [{"name": _title(made_from, data), "results": [result]}],
    }
    return f"---\n{card_making.as_yaml(matter)}---\n"


def _details(made_from: MadeFrom, answers: AnswerFacts | None, data: DataReport, scores: Scores) -> str:
    backbone, audit = made_from.backbone, made_from.audit
    low, high = scores.accuracy.interval or (0.0, 1.0)
    return f"""# Model Card for {markdown(_title(made_from, data))}

This model says which of {len(data.classes):,} classes an image shows. Its accuracy on {scores.n_test:,} test \
images, which were not used in training, is **{scores.accuracy.value:.3f}** (95% interval {low:.3f} to {high:.3f}).

## Model Details

### Model Description

- **Model type:** image classifier; {backbone.name} with a new head, trained by frostline
- **Finetuned from:** {_origin(backbone)}
- **Input:** uint8 RGB images of {data.image_size}x{data.image_size} pixels, resized by `{data.resize}`
- **Output:** a probability for each class{_calibration(made_from)}{answers_card.outputs(answers)}
- **Classes, in label order:** {_list_names(data.classes)}
- **Parameters:** {audit.trainable_parameters:,} were trained, {audit.frozen_parameters:,} were not \
({audit.frozen_layers} of {audit.layers} backbone layers are frozen)
"""


def _uses(answers: AnswerFacts | None, data: DataReport, scores: Scores) -> str:
    return f"""## Uses

### Direct Use

Images like those of {code(data.source)}; each image must show exactly one of the classes above.

### Out-of-Scope Use

- Images of anything else: {answers_card.strangers(answers)}
- Images from another camera, place or time than the training data: the accuracy on them was not measured.
- Decisions about people, or decisions that can do harm, that no person checks: about \
{_one_in(1 - scores.accuracy.value)}.
"""


def _limits(made_from: MadeFrom, data: DataReport, scores: Scores, per_class: pd.DataFrame) -> str:
    low, high = scores.accuracy.interval or (0.0, 1.0)
    train_counts = data.images_per_class["train"]
    smallest = min(train_counts, key=train_counts.__getitem__)
    measured_classes = per_class[per_class["support"] > 0]
    weakest = ", ".join(
        f"{markdown(row['class'])} ({row['recall']:.2f} of {row['support']:,} images)"
        for _, row in measured_classes.nsmallest(3, "recall").iterrows()
    )
    missing_classes = per_class.loc[per_class["support"] == 0, "class"].tolist()
    rare_classes = measured_classes.loc[measured_classes["support"] < FEW_TEST_IMAGES, "class"].tolist()
    lines = [
        f"The test split has {scores.n_test:,} images, so the accuracy has an uncertainty of plus or minus "
        f"{100 * (high - low) / 2:.1f} percentage points.",
        f"Every class has {train_counts[smallest]:,} training images."
        if len(set(train_counts.values())) == 1
        else f"The class with the fewest training images is {markdown(smallest)}, with {train_counts[smallest]:,}.",
        f"The lowest recalls on the test split: {weakest}.",
        f"To answer always the commonest class of the test split has an accuracy of {scores.commonest_class:.3f}.",
    ]
    if rare_classes:
        names = _list_names(rare_classes)
        lines.append(f"With fewer than {FEW_TEST_IMAGES} test images, the metrics of a class are unreliable: {names}.")
    if missing_classes:
        lines.append(f"Classes that are not in the test split were not measured: {_list_names(missing_classes)}.")
    lines.append("All numbers are valid only for images from the same origin as the test split.")
    if scores.ece > POOR_CALIBRATION and not made_from.is_calibrated:
        lines.append(
            f"Probabilities are off by {scores.ece:.2f} on average; `evaluate.calibrate: temperature` may help."
        )
    limits = "\n".join(f"- {line}" for line in lines)
    return f"""## Bias, Risks, and Limitations

{limits}

### Recommendations

Before you rely on these numbers, measure the model on images from the place where it will be used, and look at the \
mistakes in `reports/plots/mistakes.png`. Let a person check images with a low probability; \
`reports/plots/reliability.png` shows how well the probabilities agree with the accuracy.
"""


def _start(made_from: MadeFrom, data: DataReport) -> str:
    print_line = (
        "print(classes[1], float(model.predict(image[None])[0, 0]))  # the probability of the second class"
        if made_from.head["binary"]
        else "print(dict(zip(classes, model.predict(image[None])[0].tolist())))"
    )
    grey_range = f", grey_range={data.grey_range!r}" if data.grey_range else ""
    return f"""## How to Get Started with the Model

```python
import json
from pathlib import Path

import keras
from frostline.data import images

folder = Path("models/classifier")
model = keras.saving.load_model(folder / "model.keras")
classes = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))["classes"]
image = images.prepare(Path("image.jpg"), {data.image_size}, "{data.resize}"{grey_range})
{print_line}
```
"""


def _evaluation(data: DataReport, scores: Scores, per_class: pd.DataFrame) -> str:
    rows = [
        _metric_row(name.format(k=scores.top_k), value)
        for key, name in METRICS.items()
        if (value := getattr(scores, key)) is not None
    ]
    table, note = per_class, ""
    if len(per_class) > TABLED_CLASSES:
        table = per_class[per_class["support"] > 0].nsmallest(TABLED_CLASSES, "f1")
        note = f"The {len(table)} classes with the lowest F1, of {len(per_class):,}; all: `reports/per_class.csv`.\n\n"
    classes = "\n".join(
        f"| {markdown(name)} | {precision:.3f} | {recall:.3f} | {f1:.3f} | {support} |"
        for name, precision, recall, f1, support in table[["class", "precision", "recall", "f1", "support"]].values
    )
    results = "\n".join(rows)
    return f"""## Evaluation

### Testing Data, Factors & Metrics

#### Testing Data

{scores.n_test:,} images of {code(data.source)} that were not used in training. No two splits share an image, \
not even as another file with the same pixels; {_near_copies(data)} Digest of the test images: \
`{scores.test_digest}`.

#### Factors

Classes; nothing else is known about the images.

#### Metrics

Macro metrics give every class the same weight, however rare it is. All intervals are 95% intervals: Wilson's for the \
accuracy, the infinitesimal jackknife's for the two areas, a bootstrap of the test images for the others. They cover \
the choice of test images, but not the seed of the training.

### Results

| metric | value | 95% interval |
|---|---|---|
{results}

{note}| class | precision | recall | F1 | test images |
|---|---|---|---|---|
{classes}
"""


def _examination(data: DataReport, confusions: pd.DataFrame) -> str:
    names = data.classes
    pairs = "\n".join(
        f"- {markdown(names[row['true']])} taken for {markdown(names[row['predicted']])}: {row['count']}"
        for _, row in confusions.head(5).iterrows()
    )
    text = f"The most frequent confusions, in test images:\n\n{pairs}" if pairs else "No test image was misclassified."
    return f"""## Model Examination

{text}

`reports/plots/mistakes.png` shows the most confident mistakes; a heat map (Grad-CAM) marks what spoke for the wrong \
class.
"""


def _near_copies(data: DataReport) -> str:
    if data.near_duplicates is None:
        return "near-copies were not searched for."
    images = data.near_duplicate_counts.images
    count = f"{images:,} near-copies were" if images else "No near-copy was"
    return f"resized, recompressed or brightened copies are in the same split as their original. {count} found."


def _origin(backbone: BackboneOrigin) -> str:
    descriptions = {"none": "random weights", "imagenet": "ImageNet weights", "builtin": "frostline's built-in weights"}
    weights, loaded = backbone.weights, backbone.loaded
    coverage = f" ({loaded.layers} of {loaded.of} layers)" if loaded else ""
    return f"{backbone.name}, {descriptions.get(weights, f'weights in {code(weights)}')}{coverage}"


def _calibration(made_from: MadeFrom) -> str:
    if not made_from.is_calibrated:
        return ", not calibrated"
    return f", calibrated by a temperature of {made_from.temperature:g} that was fitted on the validation split"


def _title(made_from: MadeFrom, data: DataReport) -> str:
    return f"{made_from.backbone.name} for {len(data.classes):,} classes of {data.source}"


def _one_in(share: float) -> str:
    if share == 0:
        return "no answer on the test split was wrong, but others may be"
    return f"one answer in {1 / share:.0f} is wrong" if share < 0.5 else f"{100 * share:.0f}% of the answers are wrong"


def _metric_row(name: str, value: Score | float) -> str:
    score = value if isinstance(value, Score) else Score(value)
    interval = f"{score.interval[0]:.4f} to {score.interval[1]:.4f}" if score.interval else ""
    return f"| {name} | {score.value:.4f} | {interval} |"


def _list_names(names: Sequence[str]) -> str:
    rest = f" and {len(names) - LISTED_CLASSES:,} more" if len(names) > LISTED_CLASSES else ""
    return ", ".join(map(markdown, names[:LISTED_CLASSES])) + rest
