"""Frozen, half and full fine-tuning on real photos against the script of the Keras guide.

    FROSTLINE_TEST_ASSETS=.../assets python benchmarks/frozen.py

The rival is written as the guide "Transfer learning & fine-tuning" on keras.io has it: `image_dataset_from_directory`,
cached and prefetched, augmentation layers, `fit`. Both sides learn from the same photos at the same batch size for the
same epochs; each contestant runs in a process of its own, they alternate, and only the time from the start of building
data set and model to the end of training is counted, imports aside. ROUNDS (default 3) repeats everything.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from table import show
from workspace import params, workspace

SIZE, BATCH, SEEDS = 160, 32, (1, 2, 3, 4, 5)
RATES = {"frozen": 1e-3, "half": 1e-5, "all": 1e-5}
EPOCHS = {"frozen": 10, "half": 3, "all": 3}
HALF = 77  # of MobileNetV2's 154 layers

Outcome = dict[str, float]


def rival(assets: Path, depth: str, augmented: bool, seed: int) -> Outcome:
    """The guide's script on the folder `photos`, where the same files lie that frostline prepared."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(seed)
    start = time.perf_counter()
    sets = {}
    for split in ("train", "val"):
        loaded = keras.utils.image_dataset_from_directory(
            Path("photos") / split, image_size=(SIZE, SIZE), batch_size=BATCH, verbose=False
        )
        sets[split] = loaded.cache().prefetch(tf.data.AUTOTUNE)
    weights = str(assets / "weights" / "mobilenet_v2_1.0_224_no_top.h5")
    base = keras.applications.MobileNetV2(include_top=False, weights=weights, input_shape=(SIZE, SIZE, 3))
    base.trainable = depth != "frozen"
    for layer in base.layers[: HALF if depth == "half" else 0]:
        layer.trainable = False
    for layer in base.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
    inputs = x = keras.Input((SIZE, SIZE, 3))
    if augmented:
        x = keras.layers.RandomFlip("horizontal")(x)
        x = keras.layers.RandomRotation(0.1)(x)
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(x)
    x = keras.layers.GlobalAveragePooling2D()(base(x, training=False))
    model = keras.Model(inputs, keras.layers.Dense(10)(keras.layers.Dropout(0.2)(x)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(RATES[depth]), loss, metrics=["accuracy"])
    fitted = model.fit(sets["train"], epochs=EPOCHS[depth], validation_data=sets["val"], verbose=0)
    return {"seconds": time.perf_counter() - start, "accuracy": fitted.history["val_accuracy"][-1]}


def settings(assets: Path, depth: str, copies: int, seed: int, rate: float) -> Any:
    """params.yaml for the same job."""
    is_head = depth == "frozen"
    return params(
        {
            "seed": seed,
            "data.source": str(assets / "clothing-small"),
            "data.image_size": SIZE,
            "data.train_per_class": None,
            "data.split": {"train": 0.94, "val": 0.03, "test": 0.03},
            "augment.copies": copies,
            "augment.rotation": 36,
            "augment.horizontal_flip": True,
            **{f"augment.{key}": 0.0 for key in ("width_shift", "height_shift", "shear", "zoom")},
            "augment.brightness": None,
            "augment.fill_mode": "reflect",
            "backbone.name": "MobileNetV2",
            "backbone.weights": str(assets / "weights" / "mobilenet_v2_1.0_224_no_top.h5"),
            "finetune.freeze": {"frozen": "all", "half": HALF, "all": "none"}[depth],
            "finetune.batch_norm": "freeze",
            "finetune.head_epochs": EPOCHS[depth] if is_head else 0,
            "finetune.epochs": 0 if is_head else EPOCHS[depth],
            "finetune.head_learning_rate": rate,
            "finetune.learning_rate": rate,
            "finetune.batch_size": BATCH,
            "finetune.optimizer": "adam",
            "finetune.schedule": "constant",
        }
    )


def ours(assets: Path, depth: str, copies: int, seed: int, rate: float) -> Outcome:
    """Stage `finetune` in this folder; what is in the activation store is used."""
    import pandas as pd

    from frostline import paths
    from frostline.models import backend
    from frostline.stages import finetune

    with backend.quiet():
        import keras  # noqa: F401
        import tensorflow as tf

    tf.constant(0)  # starts the engine, as the rival's import of its data set's module does not either
    start = time.perf_counter()
    print(finetune.run(settings(assets, depth, copies, seed, rate)), file=sys.stderr)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "accuracy": pd.read_csv(paths.HISTORY)["val_accuracy"].iloc[-1]}


def prepare(assets: Path, copies: int, seed: int) -> float:
    """Stages `prepare` and `augment`, and the same photos as a folder for the rival; seconds of the stages."""
    from frostline import paths
    from frostline.data import shards
    from frostline.stages import augment
    from frostline.stages import prepare as first

    job = settings(assets, "frozen", copies, seed, 1e-3)
    start = time.perf_counter()
    first.run(job)
    augment.run(job)
    seconds = time.perf_counter() - start
    shutil.rmtree("photos", ignore_errors=True)
    source = assets / "clothing-small"
    for split in ("train", "val"):
        for path in shards.open_folder(paths.PREPARED / split).index["path"]:
            link = Path("photos") / split / Path(path).parent.name / Path(path).name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(source / path)
    return seconds


def alone(*arguments: str) -> Outcome:
    """Run a contestant of this file in a process of its own."""
    command = [sys.executable, __file__, *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    outcome = json.loads(done.stdout.splitlines()[-1])
    print(" ".join(arguments), {key: round(value, 3) for key, value in outcome.items()}, flush=True)
    return outcome


def main() -> None:
    rounds = int(os.environ.get("ROUNDS", "3"))
    times: dict[str, dict[str, list[Outcome]]] = {}
    preparing: dict[int, list[float]] = {0: [], 2: []}

    def record(case: str, name: str, outcome: Outcome) -> None:
        times.setdefault(case, {}).setdefault(name, []).append(outcome)

    assets = Path(os.environ["FROSTLINE_TEST_ASSETS"])
    with workspace():
        for number in range(rounds):
            seed = str(SEEDS[number])
            for copies, case in ((2, "frozen body, 2 augmented copies"), (0, "frozen body")):
                preparing[copies].append(prepare(assets, copies, int(seed)))
                shutil.rmtree(".frostline", ignore_errors=True)
                guide = alone("rival", "frozen", str(copies), seed, "0")
                for rate, what in (("1e-3", case), ("3e-3", f"{case}, another learning rate")):
                    record(what, "guide", guide)
                    record(what, "ours", alone("ours", "frozen", str(copies), seed, rate))
            for depth, case in (("half", "from half depth"), ("all", "everything trained")):
                shutil.rmtree(".frostline", ignore_errors=True)
                record(case, "guide", alone("rival", depth, "0", seed, "0"))
                record(case, "ours", alone("ours", depth, "0", seed, "1e-5"))
    rows = []
    for case, sides in times.items():
        middle = {name: statistics.median(o["seconds"] for o in outcomes) for name, outcomes in sides.items()}
        scores = {name: statistics.mean(o["accuracy"] for o in outcomes) for name, outcomes in sides.items()}
        epochs = 3 if case in ("from half depth", "everything trained") else 10
        rows.append(
            [
                case,
                str(epochs),
                f"{middle['guide']:.1f} s",
                f"{middle['ours']:.1f} s",
                f"{middle['guide'] / middle['ours']:.2f}x",
                f"{scores['guide']:.3f}",
                f"{scores['ours']:.3f}",
            ]
        )
    caption = (
        f"MobileNetV2 1.0 at {SIZE} px on clothing-small, batches of {BATCH}: the Keras guide's script against stage "
        f"`finetune`, each in its own process, medians of {rounds} rounds with other seeds, imports aside, extraction "
        "of features and saving of the bundle included. The guide decodes the photos in its first epoch; here stages "
        f"prepare and augment did that before, once for all trainings, in {statistics.median(preparing[0]):.1f} s, "
        f"with 2 copies {statistics.median(preparing[2]):.1f} s. Accuracy: of the validation split after the last "
        "epoch, mean of the rounds."
    )
    show("frozen", caption, ["case", "epochs", "guide", "frostline", "ratio", "guide's acc.", "our acc."], rows)


if __name__ == "__main__":
    if "FROSTLINE_TEST_ASSETS" not in os.environ:
        sys.exit("FROSTLINE_TEST_ASSETS is not set: the photos and weights are not part of this repository")
    if len(sys.argv) == 1:
        main()
    else:
        kind, depth, copies, seed, rate = sys.argv[1:]
        folder = Path(os.environ["FROSTLINE_TEST_ASSETS"])
        if kind == "rival":
            outcome = rival(folder, depth, copies != "0", int(seed))
        else:
            outcome = ours(folder, depth, int(copies), int(seed), float(rate))
        print(json.dumps(outcome))
