"""Few labels on scikit-learn's digits: frostnet against raw pixels and against itself from random weights.

    python benchmarks/digits.py

All contestants see the same labelled images and the same test images of each seed; the random network has the same
schedule and variants, and everything of it is trained. The schedule has no early stopping, so that the validation
split is only reported, never used.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from table import show
from workspace import ROOT, params, workspace

from frostline import paths
from frostline.data import shards
from frostline.ingest.sources import open_source
from frostline.stages import augment, evaluate, finetune, prepare

SEEDS = (1, 2, 3)
CONTESTANTS = {
    "frostnet, its own weights": {},
    "frostnet, random weights": {"backbone.weights": "none", "finetune.freeze": "none"},
}


def main() -> None:
    source = {"data.source": str(ROOT / "data" / "digits.yaml")}
    rows = []
    for per_class in (10, 50):
        scores: dict[str, list[float]] = {name: [] for name in ("logistic regression on raw pixels", *CONTESTANTS)}
        for seed in SEEDS:
            for name, changes in CONTESTANTS.items():
                with workspace():
                    settings = params({**source, "seed": seed, "data.train_per_class": per_class, **changes})
                    for stage in (prepare, augment, finetune, evaluate):
                        print(stage.run(settings), flush=True)
                    scores[name].append(json.loads(paths.METRICS.read_text())["accuracy"])
                    if not changes:
                        scores["logistic regression on raw pixels"].append(pixels())
        rows += [
            [str(per_class), name, *(f"{score:.4f}" for score in each), f"{statistics.mean(each):.4f}"]
            for name, each in scores.items()
        ]
    header = ["labelled images a class", "", *(f"seed {seed}" for seed in SEEDS), "mean"]
    show(
        "digits", "Test accuracy on scikit-learn's digits with few labels (about 700 test images a seed).", header, rows
    )


def pixels() -> float:
    """Test accuracy of logistic regression on the original 8x8 pixels of the images that were prepared here."""
    reader = open_source(ROOT / "data" / "digits.yaml", Path()).reader

    def original(split: shards.Shards) -> np.ndarray:
        return np.stack(
            [np.asarray(reader.read(path, None).image)[..., 0].ravel() / 255 for path in split.index["path"]]
        )

    train, test = (shards.open_folder(paths.PREPARED / name) for name in ("train", "test"))
    model = LogisticRegression(max_iter=5000).fit(original(train), train.labels)
    return float(model.score(original(test), test.labels))


if __name__ == "__main__":
    main()
