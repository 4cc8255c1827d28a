"""A process on JAX with four logical CPUs: trainings on one, four and two of them. Prints what came of them as JSON.

KERAS_BACKEND=jax XLA_FLAGS=--xla_force_host_platform_device_count=4 python tests/jax_devices.py FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from conftest import make_params, make_shards
from numpy.typing import NDArray

from frostline.core.mapped import Memory
from frostline.errors import ParamsError
from frostline.features.store import Store
from frostline.models import devices
from frostline.training import job
from frostline.training.examples import TrainingData
from frostline.training.loop import Snapshot, Watch
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
    "finetune__head_epochs": 1,
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
    resumed = train(2, "never", snapshots[1])  # after the head's epoch and one of two
    keys = {job.key(make_params(finetune__devices=number), data.variants) for number in (1, 4, "auto")}
    print(
        json.dumps(
            {
                "differences": {
                    "four": _difference(one, four),
                    "stored": _difference(one, stored),
                    "resumed": _difference(one, resumed),
                },
                "epochs": [epochs for _, epochs in (one, four, stored, resumed)],
                "resumed_from": [snapshots[1].phase, snapshots[1].position.epoch],
                "keys": len(keys),
                "auto": devices.chosen("auto", 16).number,
                "refused": [_refusal(8, 16), _refusal(3, 16)],
            }
        )
    )


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
