"""Real photos: a frozen MobileNetV2 body, 160 pixels, five epochs of the head on clothing-small.

    FROSTLINE_TEST_ASSETS=.../assets python benchmarks/photos.py

The split is the data set's own; only the validation accuracy after the last epoch is read, without early stopping.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pandas as pd
from table import show
from workspace import params, workspace

from frostline import catalog
from frostline.stages import augment, finetune, prepare

SEEDS = (1, 2, 3)


def main() -> None:
    named = os.environ.get("FROSTLINE_TEST_ASSETS")
    if not named:
        sys.exit("FROSTLINE_TEST_ASSETS is not set: the photos and weights are not part of this repository")
    assets = Path(named)
    rows = []
    for seed in SEEDS:
        settings = params(
            {
                "seed": seed,
                "data.source": str(assets / "clothing-small"),
                "data.image_size": 160,
                "data.train_per_class": None,
                "data.split": {"train": 0.9, "val": 0.05, "test": 0.05},
                "augment.copies": 0,
                "backbone.name": "MobileNetV2",
                "backbone.weights": str(assets / "weights" / "mobilenet_v2_1.0_224_no_top.h5"),
                "finetune.freeze": "all",
                "finetune.head_epochs": 5,
                "finetune.epochs": 0,
                "finetune.batch_size": 32,
                "finetune.early_stopping": None,
            }
        )
        with workspace():
            times = []
            for stage in (prepare, augment, finetune):
                start = time.monotonic()
                print(stage.run(settings), flush=True)
                times.append(time.monotonic() - start)
            last = pd.read_csv(catalog.HISTORY).iloc[-1]
        rows.append([str(seed), f"{last['val_accuracy']:.4f}", f"{times[0]:.1f}", f"{times[2]:.1f}"])
    header = [
        "seed",
        "validation accuracy",
        "prepare, s",
        "finetune, s (the first seed's includes importing TensorFlow)",
    ]
    caption = "clothing-small (3,409 photos), MobileNetV2 1.0, 160 px, frozen body, 5 epochs."
    show("photos", caption, header, rows)


if __name__ == "__main__":
    main()
