"""A head on the features of all depths against one on the last depth, on two sets of photos and few labels of them.

    FROSTLINE_TEST_ASSETS=.../assets python benchmarks/all_depths.py

EfficientNetLite0 stands still, and one linear layer is trained with the settings of the recipe `photos` for the head.
The two heads alternate, with the same seed and the same images.
"""

from __future__ import annotations

import os
import statistics
import sys
from pathlib import Path

import numpy as np
from scipy import stats
from table import show
from workspace import params, workspace

from frostline import paths
from frostline.data import shards
from frostline.features import predictor
from frostline.models import backend
from frostline.stages import prepare
from frostline.training import inputs

with backend.quiet():
    from frostline.training.trainer import Trainer

SIDE, SEEDS = 128, (1, 2, 3)
SETS = [("clothing-small", None), ("clothing-small", 25), ("sign-digits", None), ("sign-digits", 25)]


def settings(source: Path, per_class: int | None, seed: int, features: str | None) -> dict[str, object]:
    return {
        "seed": seed,
        "data.source": str(source),
        "data.image_size": SIDE,
        "data.resize": "crop",
        "data.train_per_class": per_class,
        "augment.copies": 0,
        "backbone.name": "EfficientNetLite0",
        "backbone.weights": "imagenet",
        "head.features": features,
        "finetune.freeze": "all",
        "finetune.head_epochs": 20,
        "finetune.head_learning_rate": 3e-3,
        "finetune.epochs": 0,
        "finetune.batch_size": 32,
        "finetune.optimizer": "adamw",
        "finetune.weight_decay": 1e-4,
        "finetune.early_stopping": None,
    }


def main() -> None:
    named = os.environ.get("FROSTLINE_TEST_ASSETS")
    if not named:
        sys.exit("FROSTLINE_TEST_ASSETS is not set: the photos are not part of this repository")
    rows, gains = [], []
    for source, per_class in SETS:
        scores: dict[str | None, list[float]] = {None: [], "all_depths": []}
        with workspace():
            for seed in SEEDS:
                for features, results in scores.items():
                    given = params(settings(Path(named, source), per_class, seed, features))
                    if features is None:
                        prepare.run(given)
                    opened = inputs.open_all(given)
                    bundle = Trainer(opened.features).run(given, opened.data).bundle
                    test = shards.open_folder(paths.PREPARED / "test")
                    shares = predictor.probabilities(bundle, test, opened.features, "always")
                    results.append(float((shares.argmax(axis=1) == test.labels).mean()))
        differences = np.subtract(scores["all_depths"], scores[None])
        gains += differences.tolist()
        rows.append(
            [
                f"{source}, {f'{per_class} labels a class' if per_class else 'all labels'}",
                *(f"{statistics.mean(each):.4f} ({min(each):.4f} to {max(each):.4f})" for each in scores.values()),
                f"{differences.mean():+.4f}",
            ]
        )
        print(" | ".join(rows[-1]), flush=True)
    test = stats.ttest_1samp(gains, 0.0)
    low, high = test.confidence_interval(0.95)
    show(
        "all_depths",
        f"Test accuracy, mean of {len(SEEDS)} seeds (lowest to highest), EfficientNetLite0 at {SIDE} pixels, frozen. "
        f"All depths minus the last one in {len(gains)} pairs: {np.mean(gains):+.4f} in the mean (95%: "
        f"{low:+.4f} to {high:+.4f}, paired t-test p = {test.pvalue:.1e}), better in {sum(np.array(gains) > 0)}.",
        ["data", "last depth", "all depths", "difference"],
        rows,
    )


if __name__ == "__main__":
    main()
