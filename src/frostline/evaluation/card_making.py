"""The parts of a model card that say how the model was made: training, specifications, lineage."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from typing import Any

from frostline.core.escaping import code
from frostline.data.data_report import DataReport
from frostline.models.made_from import LayerGroup, MadeFrom


def training(made_from: MadeFrom, data: DataReport) -> str:
    """Data, preprocessing, settings and layer groups. data: the report of `prepare`."""
    counts = data.images
    kinds = ", ".join(f"{count:,} {kind.replace('_', ' ')}" for kind, count in data.problem_counts.items())
    left_out = f"Left out: {kinds}; see `reports/data.json`." if kinds else "No file was left out."
    unused = data.left_out_by_train_per_class
    values = made_from.recorded()
    settings = {key: values[key] for key in ("seed", "backbone", "head", "finetune")}
    return f"""## Training Details

### Training Data

{code(data.source)}: {counts["train"]:,} training, {counts["val"]:,} validation and {counts["test"]:,} test images\
{f", and {unused:,} more that `data.train_per_class` left unused" if unused else ""}. {left_out}

### Training Procedure

#### Preprocessing

Images are decoded upright to RGB and resized to {data.image_size}x{data.image_size} by `{data.resize}`{_tones(data)}; \
the training data also had {made_from.copies} augmented variants of each training image. The model itself scales its \
input to what the backbone expects.

#### Training Hyperparameters

{_phases(made_from)} In this training the validation \
images were used for {_use_of_validation(made_from)}. If there was a sweep, it chose its settings by them.

```yaml
{as_yaml(settings)}```

{_groups(made_from.groups)}"""


def _groups(groups: Sequence[LayerGroup]) -> str:
    """The layer groups as a table."""
    if not groups:
        return ""
    rows = "\n".join(group_rows(groups))
    return f"""#### Layer Groups

| layers | parameters | fine-tuned from | learning rate |
|---|---|---|---|
{rows}
"""


def group_rows(groups: Sequence[LayerGroup]) -> list[str]:
    """A Markdown row for each group: layers, parameter count, first epoch of its training, learning rate."""
    return [
        f"| {code(group.name)} | {group.parameters:,} | "
        + (f"epoch {group.thawed} | {group.learning_rate:.3g} |" if group.thawed else "never | |")
        for group in groups
    ]


def specifications(made_from: MadeFrom, bundle_digest: str, data: DataReport) -> str:
    """Architecture, and the digests of everything that the model was made from."""
    digests = {
        "bundle (`models/classifier`)": bundle_digest,
        "training images": data.digests["train"].source,
        "validation images": data.digests["val"].source,
        "test images": data.digests["test"].source,
        "backbone weights (SHA-256 of the file or bundle)": made_from.backbone.weights_sha256,
    }
    rows = "\n".join(f"| {what} | `{value}` |" for what, value in digests.items() if value)
    return f"""## Technical Specifications

### Model Architecture and Objective

{made_from.backbone.name}, {made_from.head["pooling"]} pooling and a head; {_loss(made_from)}; Keras \
{made_from.keras}.

### Lineage

The digests of what this model was made from; `dvc.lock` has the state of the code.

| what | digest |
|---|---|
{rows}
"""


def as_yaml(value: dict[str, Any]) -> str:
    """A mapping in YAML's block style; long values stay on one line."""
    from ruamel.yaml import YAML

    yaml, text = YAML(), StringIO()
    yaml.width = 4096
    yaml.dump(value, text)
    return text.getvalue()


def _use_of_validation(made_from: MadeFrom) -> str:
    stopping = made_from.finetune["early_stopping"] if made_from.is_dense else None
    uses = [f"early stopping on {stopping['monitor']} (patience {stopping['patience']})"] if stopping else []
    uses += ["fitting the temperature"] if made_from.is_calibrated else []
    return " and ".join(uses) or "reporting only"


def _loss(made_from: MadeFrom) -> str:
    if not made_from.is_dense:
        return f"scikit-learn's {made_from.classifier.replace('_', ' ')} as Keras layers"
    return {"focal": "focal loss"}.get(made_from.finetune.get("loss", ""), "cross-entropy")


def _phases(made_from: MadeFrom) -> str:
    if not made_from.is_dense:
        return "The head alone, on features of the frozen backbone."
    phases = "First the head alone on frozen features, then everything above the freeze line."
    if not made_from.ingredients:
        return phases
    return (
        f"The weights are the average of {made_from.ingredients} trainings that began with the same head (a soup: see "
        f"`finetune.soup` below). In each of them: {phases[0].lower()}{phases[1:]}"
    )


def _tones(data: DataReport) -> str:
    if not data.grey_range:
        return ""
    if isinstance(data.grey_range, str):
        return ", and grey images of more than 8 bits show the range of their type"
    low, high = data.grey_range
    return f", and grey images of more than 8 bits show the values from {low:g} to {high:g}"
