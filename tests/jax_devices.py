"""A process on JAX with four logical CPUs: trainings on one, four and two of them. Prints what came of them as JSON.

KERAS_BACKEND=jax XLA_FLAGS=--xla_force_host_platform_device_count=4 python tests/jax_devices.py FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import keras
import numpy as np
from conftest import make_params, make_shards
from numpy.typing import NDArray

from frostline.core.mapped import Memory
from frostline.data import augmentation
from frostline.errors import ParamsError
from frostline.features.store import Store
from frostline.models import devices
from frostline.params.schedules import Flat
from frostline.training import job, live_variants, optimizing, stepping
from frostline.training.examples import TrainingData
from frostline.training.loop import Snapshot, Watch
from frostline.training.phases import Phase
from frostline.training.trainer import Trainer

Trained = tuple[list[NDArray[np.float64]], int]  # weights, and the number of epochs

# Everything that looks at a whole batch or draws random numbers: BatchNorm, dropout, mixup, the average of weights. The
# last of the batches has 2 images, which 4 devices can't share.
CHANGES = {
    "augment__mixup": 0.2,
    "finetune__batch_norm": "train",
    "finetune__batch_size": 8,
    "finetune__epochs": 2,
    "finetune__freeze": "block6_out",
    "finetune__head_epochs": 0,
    "head__hidden": [8],
}


def main(folder: Path) -> None:
    data = TrainingData([make_shards(folder / "train", 42)], make_shards(folder / "val", 18, seed=9))
    trainer = Trainer(Store(folder / "features", 1e9, Memory(1e9)))
    snapshots: list[Snapshot] = []

    def train(number: int, mode: str, resume: Snapshot | None = None, watch: Watch | None = None) -> Trained:
        params = make_params(**CHANGES, finetune__devices=number, cache__mode=mode)
        result = trainer.run(params, data, resume, watch or Watch())
        return [np.array(weight.value, np.float64) for weight in result.bundle.model.weights], len(result.history)

    one = train(1, "never")
    four = train(4, "never", watch=Watch(lambda row, snapshot: snapshots.append(snapshot())))
    stored = train(4, "always")
    resumed = train(2, "never", snapshots[0])  # after one epoch of two
    keys = {job.key(make_params(finetune__devices=number), data.variants) for number in (1, 4, "auto")}
    print(
        json.dumps(
            {
                "differences": {
                    "four": _difference(one, four),
                    "stored": _difference(one, stored),
                    "resumed": _difference(one, resumed),
                    "live": _difference((_live(1), 0), (_live(4), 0)),
                },
                "epochs": [epochs for _, epochs in (one, four, stored, resumed)],
                "resumed_from": [snapshots[0].phase, snapshots[0].position.epoch],
                "keys": len(keys),
                "auto": devices.chosen("auto", 16).number,
                "refused": [_refusal(8, 16), _refusal(3, 16)],
            }
        )
    )


def _live(number: int) -> list[NDArray[np.float64]]:
    """The weights after some steps on live variants of images, in a network of its own that is quickly compiled."""
    keras.utils.set_random_seed(1)
    images = keras.Input((16, 16, 3))
    policy = augmentation.Policy(20, 0.1, 0.2, 15, 0.2, True, True, (0.7, 1.2), "constant")
    # Without a bias, whose gradient before BatchNorm is rounding alone, which Adam would scale up.
    x = keras.layers.Conv2D(4, 3, use_bias=False)(live_variants.Variants(policy, 1)(images))
    x = keras.layers.Dropout(0.3)(keras.layers.GlobalAveragePooling2D()(keras.layers.BatchNormalization()(x)))
    model = keras.Model(images, keras.layers.Dense(3)(x))
    phase = Phase("finetune", 1, range(1), 8, "adam", 0.01, Flat(), seed=1)
    optimizing.compile_for(model, phase.rule, {})
    rng = np.random.default_rng(0)
    chunk = (
        rng.uniform(0, 255, (4, 8, 16, 16, 3)).astype(np.float32),
        np.eye(3, dtype=np.float32)[rng.integers(3, size=(4, 8))],
    )
    stepping.steps(model, True, devices.Devices(number)).train([(phase.numbers(0, 4, [])[:4], *chunk)])
    return [np.array(weight.value, np.float64) for weight in model.weights]


def _difference(one: Trained, other: Trained) -> float:
    """The largest difference of a weight w, over 1e-5 + 1e-4 |w|."""
    pairs = zip(one[0], other[0], strict=True)
    return max(float((np.abs(a - b) / (1e-5 + 1e-4 * np.abs(a))).max()) for a, b in pairs)


def _refusal(number: int, batch_size: int) -> str:
    try:
        devices.chosen(number, batch_size)
    except ParamsError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    main(Path(sys.argv[1]))
