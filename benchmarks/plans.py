"""Is `cache.mode: auto` as good as the better of `always` and `never`? Five cases of backbone, depth and size.

    FROSTLINE_TEST_ASSETS=.../assets python benchmarks/plans.py

Every run is stage `finetune` with an empty store, planning and measuring included; the modes take
turns, in turning order. ROUNDS
(default 3) repeats everything.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from table import show
from workspace import params, workspace

from frostline.models import backend
from frostline.stages import augment, finetune, prepare

MODES = ("auto", "always", "never")
# name, backbone, freeze, size, epochs, copies: drawn often or once, small or large tensors at the line.
CASES = (
    ("frozen body", "MobileNetV2", "all", 128, 4, 0),
    ("large tensor at the line", "MobileNetV2", "block_13_expand_relu", 96, 3, 0),
    ("one cheap layer frozen", "ResNet50", "conv1_relu", 64, 2, 0),
    ("every variant drawn once", "frostnet", "block4_out", 64, 4, 3),
    ("half of a slow network", "VGG16", "block3_pool", 48, 3, 0),
)


def job(assets: Path, case: tuple[Any, ...], mode: str) -> Any:
    _, backbone, freeze, size, epochs, copies = case
    weights = {
        "frostnet": "builtin",
        "MobileNetV2": str(assets / "weights" / "mobilenet_v2_1.0_224_no_top.h5"),
    }
    return params(
        {
            "data.source": str(assets / "clothing-small"),
            "data.image_size": size,
            "data.train_per_class": 30,
            "data.split": {"train": 0.8, "val": 0.1, "test": 0.1},
            "augment.copies": copies,
            "backbone.name": backbone,
            "backbone.weights": weights.get(backbone, "none"),
            "finetune.freeze": freeze,
            "finetune.head_epochs": 0,
            "finetune.epochs": epochs,
            "finetune.batch_norm": "freeze",
            "finetune.learning_rate": 1e-4,
            "finetune.batch_size": 32,
            "cache.mode": mode,
        }
    )


def main() -> None:
    if "FROSTLINE_TEST_ASSETS" not in os.environ:
        sys.exit("FROSTLINE_TEST_ASSETS is not set: the photos and weights are not part of this repository")
    assets = Path(os.environ["FROSTLINE_TEST_ASSETS"])
    rounds = int(os.environ.get("ROUNDS", "3"))
    with backend.quiet():
        import keras  # noqa: F401

    rows = []
    for case in CASES:
        with workspace():
            for stage in (prepare, augment):
                stage.run(job(assets, case, "auto"))
            seconds: dict[str, list[float]] = {mode: [] for mode in MODES}
            for number in range(rounds + 1):  # the first is a warm-up
                for mode in MODES[number % 3 :] + MODES[: number % 3]:
                    shutil.rmtree(".frostline", ignore_errors=True)
                    start = time.perf_counter()
                    finetune.run(job(assets, case, mode))
                    if number:
                        seconds[mode].append(time.perf_counter() - start)
        middle = {mode: statistics.median(values) for mode, values in seconds.items()}
        better = min(middle["always"], middle["never"])
        name, backbone, freeze, size, epochs, copies = case
        what = f"{backbone} to {freeze}, {size} px, {epochs} epochs, {copies} copies"
        rows.append([name, what, *(f"{middle[mode]:.1f} s" for mode in MODES), f"{middle['auto'] / better:.2f}"])
        print(rows[-1], flush=True)
    caption = (
        "300 photos of clothing-small and its validation split: stage `finetune` with an empty activation store, "
        f"planning included, medians of {rounds} rounds. Last column: auto over the better of always and never."
    )
    show("plans", caption, ["case", "job", *MODES, "auto / better"], rows)


if __name__ == "__main__":
    main()
