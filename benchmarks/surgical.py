"""Corrupted photos: is it better to train one band at the bottom, the layers above a line, or everything?

    FROSTLINE_TEST_ASSETS=.../assets python benchmarks/surgical.py

After Lee et al., "Surgical Fine-Tuning Improves Adaptation to Distribution Shifts" (ICLR 2023): where the images, and
not the labels, differ from those of the pretraining, the first layers are the ones to adapt. Every photo is blurred,
gets noise and is saved as a JPEG of quality 20, in all three splits. EfficientNetLite0, 30 training photos a class, the
head first, then 5 epochs at one learning rate that is not tuned.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageFilter
from table import show
from workspace import params, workspace

from frostline import paths
from frostline.data import images
from frostline.evaluation import scores
from frostline.stages import augment, evaluate, finetune, prepare

SEEDS = (1, 2, 3)
SIDE, COUNTS = 128, {"train": 30, "val": 15, "test": 40}  # photos a class
TRAINED = {
    "the head alone": {"finetune.freeze": "all", "finetune.epochs": 0},
    "one band at the bottom, blocks 1 and 2": {"finetune.freeze": None, "finetune.train": (1, 2)},
    "above a line, blocks 4 and 5": {"finetune.freeze": "block5c_add"},
    "everything": {"finetune.freeze": "none"},
}


def corrupt(source: Path, target: Path) -> None:
    """Write corrupted copies of the photos of each class, the first ones by name, as splits of class folders."""
    rng = np.random.default_rng(0)
    for folder in sorted((source / "train").iterdir()):
        photos = iter(sorted(folder.iterdir()))
        for split, count in COUNTS.items():
            place = target / split / folder.name
            place.mkdir(parents=True)
            for number in range(count):
                photo = images.fit(images.load(next(photos), SIDE).image, SIDE, "crop")
                blurred = np.asarray(photo.filter(ImageFilter.GaussianBlur(1.5)), float)
                noisy = np.clip(blurred + rng.normal(0, 20, blurred.shape), 0, 255).astype(np.uint8)
                Image.fromarray(noisy).save(place / f"{number:03d}.jpg", quality=20)


def main() -> None:
    named = os.environ.get("FROSTLINE_TEST_ASSETS")
    if not named:
        sys.exit("FROSTLINE_TEST_ASSETS is not set: the photos are not part of this repository")
    common = {
        "data.source": "corrupted",
        "data.image_size": SIDE,
        "data.near_duplicates": False,  # blurred photos are alike, and the splits are given
        "augment.copies": 0,
        "backbone.name": "EfficientNetLite0",
        "backbone.weights": "imagenet",
        "finetune.batch_norm": "freeze",
        "finetune.head_epochs": 15,
        "finetune.epochs": 5,
        "finetune.learning_rate": 5e-4,
    }
    rows = []
    with workspace():
        corrupt(Path(named) / "clothing-small", Path("corrupted"))
        for name, changes in TRAINED.items():
            validation, test, seconds = [], [], []
            for seed in SEEDS:
                settings = params({**common, **changes, "seed": seed})
                prepare.run(settings)
                augment.run(settings)
                start = time.monotonic()
                print(name, seed, finetune.run(settings), flush=True)
                seconds.append(time.monotonic() - start)
                evaluate.run(settings)
                validation.append(pd.read_csv(paths.HISTORY)["val_accuracy"].iloc[-1])
                test.append(scores.read(paths.METRICS).accuracy.value)
            each = ", ".join(f"{value:.3f}" for value in test)
            means = f"{statistics.mean(validation):.3f}", f"{each}: **{statistics.mean(test):.3f}**"
            rows.append([name, *means, f"{statistics.median(seconds):.0f} s"])
    caption = (
        f"Photos of clothing at {SIDE} px, blurred, noisy and at JPEG quality 20 in all splits; 300 to learn from, 400 "
        "to test; EfficientNetLite0, seeds 1, 2, 3. The learning rate is the same for all and not tuned."
    )
    show("surgical", caption, ["trained after the head", "validation, mean", "test accuracy", "training"], rows)


if __name__ == "__main__":
    main()
