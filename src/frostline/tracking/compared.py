"""Which settings of a training are params of its run in MLflow: those that runs are compared by.

All settings are in the run's artifact `settings.json`. A setting that is not in COMPARED becomes a param where it has
another value than usual, so whatever is changed between two runs can be seen beside their numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

COMPARED = (
    "seed",
    "data.source",
    "data.image_size",
    "data.train_per_class",
    "augment.mode",
    "augment.copies",
    "augment.mixup",
    "augment.cutmix",
    "backbone.name",
    "backbone.weights",
    "head.classifier",
    "head.pooling",
    "head.hidden",
    "head.dropout",
    "head.l2",
    "finetune.freeze",
    "finetune.batch_norm",
    "finetune.head_epochs",
    "finetune.head_learning_rate",
    "finetune.epochs",
    "finetune.batch_size",
    "finetune.optimizer",
    "finetune.learning_rate",
    "finetune.weight_decay",
    "finetune.schedule",
    "finetune.loss",
    "finetune.class_weight",
    "finetune.label_smoothing",
    "finetune.ema_momentum",
    "finetune.precision",
)

# The values of the other settings in the params.yaml that frostline comes with.
USUAL = {
    "data.min_side": 8,
    "data.resize": "crop",
    "data.near_duplicates": True,
    "data.codec": "raw",
    "data.on_problem": "drop",
    "augment.rotation": 15,
    "augment.width_shift": 0.1,
    "augment.height_shift": 0.1,
    "augment.shear": 10,
    "augment.zoom": 0.15,
    "augment.brightness": [0.8, 1.2],
    "augment.fill_mode": "constant",
    "head.activation": "relu",
    "finetune.momentum": 0.9,
    "finetune.focal_gamma": 2.0,
    "finetune.layer_decay": 0.5,
    "cache.mode": "auto",
    "cache.dtype": "float32",
}
OFF: tuple[Any, ...] = (None, False, "none", [], {})


def params(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that become params. settings: all, under dotted names."""
    return {key: value for key, value in settings.items() if key in COMPARED or not _is_usual(key, value)}


def _is_usual(key: str, value: Any) -> bool:
    plain = list(value) if isinstance(value, tuple) else value
    return plain == USUAL[key] if key in USUAL else plain in OFF
