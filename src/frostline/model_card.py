"""The model card: what a stranger must know before trusting a bundle. Section names as on Hugging Face."""

from __future__ import annotations

from typing import Any

import pandas as pd


def write(made_from: dict[str, Any], data: dict[str, Any], metrics: dict[str, Any], per_class: pd.DataFrame) -> str:
    """The card as Markdown.

    made_from: the bundle's own account; data: prepare's report; metrics: evaluate's; per_class: one row a class.
    """
    backbone, finetune, audit = made_from["backbone"], made_from["finetune"], made_from["audit"]
    low, high = metrics["accuracy_ci95"]
    counts = data["images"]
    thinnest = min(data["images_per_class"]["train"].items(), key=lambda item: item[1])
    weakest = per_class[per_class["support"] > 0].nsmallest(3, "recall")
    absent = per_class.loc[per_class["support"] == 0, "class"].tolist()
    weak = ", ".join(f"{row['class']} ({row['recall']:.2f})" for _, row in weakest.iterrows())
    lines = [
        "# Model card",
        "",
        "## Model details",
        "",
        f"An image classifier of {len(data['classes'])} classes: {backbone['name']} "
        f"(weights: {backbone['weights']}) with a new head, trained by frostline.",
        "",
        f"- Input: uint8 RGB pictures of {data['image_size']}x{data['image_size']}, resized by `{data['resize']}`",
        f"- Classes, in label order: {_listed(data['classes'])}",
        f"- Frozen: {audit['frozen_layers']} of {audit['layers']} backbone layers (`freeze: {finetune['freeze']}`); "
        f"{audit['trainable_parameters']:,} parameters trained, {audit['frozen_parameters']:,} not",
        "",
        "## Uses",
        "",
        "Pictures like those of the training data, one of the classes above in each. A picture of anything else "
        "gets one of these classes all the same.",
        "",
        "## Bias, risks, and limitations",
        "",
        f"- The class with the fewest training pictures is {thinnest[0]}, with {thinnest[1]}.",
        f"- Weakest recall on the test split: {weak}.",
        *([f"- Not in the test split, so not measured: {_listed(absent)}."] if absent else []),
        "- All numbers hold for pictures drawn like the test split, and for no others.",
        "",
        "## Training details",
        "",
        f"- Data: `{data['source']}`; {counts['train']} training, {counts['val']} validation, {counts['test']} test "
        f"pictures; {len(data['problems'])} files left out for the reasons in `reports/data.json`",
        f"- Variants: {made_from['copies']} augmented copies of each training picture",
        f"- Head: {finetune['head_epochs']} epochs at {finetune['head_learning_rate']:g}; then up to "
        f"{finetune['epochs']} at {finetune['learning_rate']:g} above the freeze line; {finetune['optimizer']}, "
        f"batch {finetune['batch_size']}",
        f"- Validation data were used for {_use_of_validation(finetune)}",
        f"- Seed: {made_from['seed']}",
        "",
        "## Evaluation",
        "",
        "| metric | value |",
        "|---|---|",
        f"| accuracy | {metrics['accuracy']:.4f} (95% interval {low:.4f} to {high:.4f}) |",
        f"| macro F1 | {metrics['macro_f1']:.4f} |",
        f"| log loss | {metrics['log_loss']:.4f} |",
        f"| expected calibration error | {metrics['ece']:.4f} |",
        f"| test pictures | {metrics['n_test']} |",
        "",
        f"Test digest: `{metrics['test_digest']}`",
        "",
        "| class | precision | recall | F1 | test pictures |",
        "|---|---|---|---|---|",
        *(
            f"| {_cell(row['class'])} | {row['precision']:.3f} | {row['recall']:.3f} | {row['f1']:.3f} "
            f"| {row['support']} |"
            for _, row in per_class.iterrows()
        ),
        "",
    ]
    return "\n".join(lines)


def _cell(name: str) -> str:
    """A class name that can't break a table."""
    return " ".join(name.split()).replace("|", "\\|")


def _listed(names: list[str], most: int = 50) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def _use_of_validation(finetune: dict[str, Any]) -> str:
    stopping = finetune["early_stopping"]
    if stopping is None:
        return "reporting only"
    return f"early stopping on {stopping['monitor']} (patience {stopping['patience']}) and for choosing the best epoch"
