"""Which body for frozen features: EfficientNetLite0 against MobileNetV2, MobileNet and frostnet on two sets of photos.

    FROSTLINE_TEST_ASSETS=.../assets python benchmarks/bodies.py

Only the head is trained, on stored features. The images per second are those of the body alone, from prepared images
to pooled features, in the batches that the store uses, the best of three rounds.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from table import show
from workspace import params, workspace

from frostline import paths
from frostline.data import shards
from frostline.models import assembly, backbones, backend, freezing, heads
from frostline.stages import augment, finetune, prepare

SIDE, TIMED = 160, 512
SETS = {
    "clothing-small": {"train": 0.94, "val": 0.03, "test": 0.03},  # it has a validation split of its own
    "sign-digits": {"train": 0.7, "val": 0.2, "test": 0.1},
}
FILES = {"MobileNetV2": "mobilenet_v2_1.0_224_no_top.h5", "MobileNet": "mobilenet_2_5_224_tf_no_top.h5"}
BODIES = {"EfficientNetLite0": None, "MobileNetV2": None, "MobileNet": 0.25, "frostnet": None}


def images_per_second(name: str, weights: str, alpha: float | None) -> float:
    """The speed of a body up to its pooled features."""
    backbone = backbones.build(name, weights, SIDE, alpha=alpha)
    head = heads.build(backbone.model.output.shape[1:], 10, "avg", [], "relu", False)
    model = assembly.segment(backbone, head, None, freezing.cut_points(backbone.model)[-1])
    images = shards.open_folder(paths.PREPARED / "train").take(np.arange(TIMED))
    rows = backend.batch_rows()
    seconds = []
    for _ in range(4):  # the first compiles
        start = time.perf_counter()
        for at in range(0, TIMED, rows):
            backend.predict(model, images[at : at + rows], rows)
        seconds.append(time.perf_counter() - start)
    return TIMED / min(seconds[1:])


def main() -> None:
    named = os.environ.get("FROSTLINE_TEST_ASSETS")
    if not named:
        sys.exit("FROSTLINE_TEST_ASSETS is not set: the photos and weights are not part of this repository")
    assets = Path(named)
    scores: dict[str, list[str]] = {name: [] for name in BODIES}
    speeds: dict[str, float] = {}
    for source, split in SETS.items():
        with workspace():
            for name, alpha in BODIES.items():
                weights = (
                    str(assets / "weights" / FILES[name]) if name in FILES else backbones.TABLE[name].family.keywords[0]
                )
                settings = params(
                    {
                        "data.source": str(assets / source),
                        "data.image_size": SIDE,
                        "data.train_per_class": None,
                        "data.split": split,
                        "augment.copies": 0,
                        "backbone.name": name,
                        "backbone.weights": weights,
                        "backbone.alpha": alpha,
                        "finetune.freeze": "all",
                        "finetune.head_epochs": 20,
                        "finetune.epochs": 0,
                        "finetune.batch_size": 32,
                    }
                )
                if not paths.PREPARED.exists():
                    for stage in (prepare, augment):
                        print(stage.run(settings), flush=True)
                print(finetune.run(settings), flush=True)
                scores[name].append(f"{pd.read_csv(paths.HISTORY)['val_accuracy'].iloc[-1]:.4f}")
                speeds[name] = max(speeds.get(name, 0.0), images_per_second(name, weights, alpha))
    rows = [
        [f"{name}, alpha {alpha:g}" if (alpha := BODIES[name]) else name, *scores[name], f"{speeds[name]:.0f}"]
        for name in BODIES
    ]
    caption = (
        f"Validation accuracy of a linear head on frozen features at {SIDE} px, 20 epochs, no augmentation, one seed, "
        "and how many images a second the body takes."
    )
    show("bodies", caption, ["body", *SETS, "images/s"], rows)


if __name__ == "__main__":
    main()
