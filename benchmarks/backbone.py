"""What the input's scaling and the frozen share are worth: MobileNets on clothing-small.

    FROSTLINE_TEST_ASSETS=.../assets python benchmarks/backbone.py [--minutes N]

Two tables. First the well-known mistake: the same frozen body fed with what its preprocessing makes of the images,
with raw [0, 255], and with [0, 1]; on its pooled features a logistic regression is fitted anew each time. Then how much
is frozen, with the head trained first or not; the same number of epochs of the whole network, the same images. With
--minutes it stops after the measurement that is running then, and goes on from results/backbone.jsonl the next time.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from table import RESULTS, show
from workspace import params, workspace

from frostline import paths
from frostline.data import shards
from frostline.models import backbones
from frostline.params.schema import Params
from frostline.stages import augment, evaluate, finetune, prepare

PARTIAL = RESULTS / "backbone.jsonl"

# name, alpha, file, side, the layer in the middle of the network's compute
NETWORKS = {
    "MobileNet 0.25": ("MobileNet", 0.25, "mobilenet_2_5_224_tf_no_top.h5", 160, "conv_pw_6_relu"),
    "MobileNetV2": ("MobileNetV2", 1.0, "mobilenet_v2_1.0_224_no_top.h5", 96, "block_6_project_BN"),
}
EPOCHS = 4
SCALINGS = {
    "its own, [-1, 1]": lambda x, own: own(x),
    "left out: raw [0, 255]": lambda x, own: x,
    "[0, 1] fed": lambda x, own: x / 255,
}
FREEZES = [("all", True), ("half", True), ("half", False), ("none", True), ("none", False)]


def main() -> None:
    named = os.environ.get("FROSTLINE_TEST_ASSETS")
    if not named:
        sys.exit("FROSTLINE_TEST_ASSETS is not set: the photos and weights are not part of this repository")
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=float("inf"))
    end = time.monotonic() + 60 * parser.parse_args().minutes
    wanted = [
        *((network, "scaling", scaling, None) for network in NETWORKS for scaling in SCALINGS),
        *((network, "freeze", freeze, head_first) for network in NETWORKS for freeze, head_first in FREEZES),
    ]
    known = _known()
    prepared = None
    with workspace():
        for job in wanted:
            if job in known:
                continue
            if time.monotonic() > end:
                print(f"{len(known)} of {len(wanted)} are measured; run it again for the others")
                return
            settings = _settings(Path(named), *job)
            if prepared != settings.data.image_size:
                print(prepare.run(settings), augment.run(settings), sep="\n", flush=True)
                prepared = settings.data.image_size
            start = time.monotonic()
            accuracy = _scaled(settings, job[2]) if job[1] == "scaling" else _trained(settings)
            known[job] = {"accuracy": accuracy, "seconds": time.monotonic() - start}
            print(*job, known[job], flush=True)
            RESULTS.mkdir(exist_ok=True)
            with PARTIAL.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"job": job, **known[job]}) + "\n")
    _show(known)


def _known() -> dict[tuple[Any, ...], dict[str, float]]:
    if not PARTIAL.is_file():
        return {}
    rows = [json.loads(line) for line in PARTIAL.read_text(encoding="utf-8").splitlines()]
    return {tuple(row.pop("job")): row for row in rows}


def _settings(assets: Path, network: str, kind: str, value: str, head_first: bool | None) -> Params:
    name, alpha, file, side, middle = NETWORKS[network]
    is_head = kind == "freeze" and value == "all"
    return params(
        {
            "data.source": str(assets / "clothing-small"),
            "data.image_size": side,
            "data.train_per_class": None,
            "data.split": {"train": 0.8, "val": 0.1, "test": 0.1},
            "augment.copies": 0,
            "backbone.name": name,
            "backbone.weights": str(assets / "weights" / file),
            "backbone.alpha": alpha,
            "finetune.freeze": middle if value == "half" else value if kind == "freeze" else "all",
            "finetune.batch_norm": "freeze",
            "finetune.head_epochs": 10 if is_head or head_first else 0,
            "finetune.epochs": 0 if is_head else EPOCHS,
            "finetune.batch_size": 32,
            "finetune.learning_rate": 3e-4,
            "finetune.ema_momentum": 0.0,
            "finetune.precision": "float32",
        }
    )


def _scaled(settings: Params, scaling: str) -> float:
    """Test accuracy of a linear head on a frozen body that is fed with images of that scaling."""
    named = settings.backbone
    backbone = backbones.build(named.name, named.weights, settings.data.image_size, alpha=named.alpha)
    images = keras.Input(backbone.model.input.shape[1:], dtype="uint8")
    fed = SCALINGS[scaling](keras.ops.cast(images, "float32"), backbone.preprocess)
    model = keras.Model(images, keras.layers.GlobalAveragePooling2D()(backbone.model(fed)))
    train, test = (shards.open_folder(paths.PREPARED / name) for name in ("train", "test"))
    learned, tested = (model.predict(split.take(np.arange(len(split))), 32, verbose=0) for split in (train, test))
    head = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000)).fit(learned, train.labels)
    return float(head.score(tested, test.labels))


def _trained(settings: Params) -> float:
    """Test accuracy of the classifier that these settings train."""
    for stage in (finetune, evaluate):
        print(stage.run(settings), flush=True)
    return float(json.loads(paths.METRICS.read_text())["accuracy"])


def _show(known: dict[tuple[Any, ...], dict[str, float]]) -> None:
    def cell(*job: Any) -> str:
        return f"{known[job]['accuracy']:.3f}"

    header = ["", *(f"{network}, {NETWORKS[network][3]} px" for network in NETWORKS)]
    rows = [["**input** (linear head on frozen features)", *("" for _ in NETWORKS)]]
    rows += [[scaling, *(cell(network, "scaling", scaling, None) for network in NETWORKS)] for scaling in SCALINGS]
    rows.append([f"**frozen** (10 epochs of the head, then {EPOCHS})", *("" for _ in NETWORKS)])
    rows += [
        [
            f"{freeze}, {'the head alone' if freeze == 'all' else 'head first' if first else 'without head first'}",
            *(cell(network, "freeze", freeze, first) for network in NETWORKS),
        ]
        for freeze, first in FREEZES
    ]
    caption = (
        "Test accuracy on clothing-small (3,409 photos, 10 classes, about 300 of them the test split, one seed: "
        "differences below 0.03 say little) from ImageNet weights. MobileNetV2's were rebuilt from an 8-bit export."
    )
    show("backbone", caption, header, rows)


if __name__ == "__main__":
    main()
