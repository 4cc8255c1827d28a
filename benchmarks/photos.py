"""Real photos: a frozen MobileNetV2 body, 160 pixels, five epochs of the head on clothing-small.

    FROSTLINE_TEST_ASSETS=.../assets python benchmarks/photos.py

The split is the data set's own; only the validation accuracy after the last epoch is read, without early stopping.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from pathlib import Path

import pandas as pd
from table import show
from workspace import params, workspace

from frostline import paths
from frostline.stages import augment, finetune, prepare

SEEDS = (1, 2, 3)


def main() -> None:
    named = os.environ.get("FROSTLINE_TEST_ASSETS")
    if not named:
        sys.exit("FROSTLINE_TEST_ASSETS is not set: the photos and weights are not part of this repository")
    assets = Path(named)
    rows = []
    for resize in ("crop", "pad", "stretch"):
        with workspace():
            scores, seconds = [], []
            for seed in SEEDS:
                changes = {
                    "seed": seed,
                    "data.source": str(assets / "clothing-small"),
                    "data.image_size": 160,
                    "data.resize": resize,
                    "data.train_per_class": None,
                    "data.split": {"train": 0.94, "val": 0.03, "test": 0.03},
                    "augment.copies": 0,
                    "backbone.name": "MobileNetV2",
                    "backbone.weights": str(assets / "weights" / "mobilenet_v2_1.0_224_no_top.h5"),
                    "finetune.freeze": "all",
                    "finetune.head_epochs": 5,
                    "finetune.epochs": 0,
                    "finetune.batch_size": 32,
                }
                settings = params(changes)
                for stage in (prepare, augment):
                    print(stage.run(settings), flush=True)
                start = time.monotonic()
                print(finetune.run(settings), flush=True)
                seconds.append(time.monotonic() - start)
                scores.append(pd.read_csv(paths.HISTORY)["val_accuracy"].iloc[-1])
        rows.append([resize, *(f"{score:.4f}" for score in scores), f"{statistics.mean(scores):.4f}"])
    header = ["data.resize", *(f"seed {seed}" for seed in SEEDS), "mean"]
    caption = (
        "Validation accuracy on clothing-small (3,409 photos, its own validation split of 341): MobileNetV2 1.0 at "
        f"160 px, frozen body, the head trained for 5 epochs. The last finetune took {seconds[-1]:.1f} s."
    )
    show("photos", caption, header, rows)


if __name__ == "__main__":
    main()
