"""How fast features of a ViT-B/16 are extracted, against KerasHub's own graph and `model.predict`.

    FROSTLINE_TEST_ASSETS=.../assets python benchmarks/transformers.py

The weights are random, since real ones need a download; the speed does not depend on them. Both get the same prepared
images in their memory and end in the tokens behind the last norm. The contestants alternate.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from table import show

from frostline.models import backbones, backend, graph

with backend.quiet():
    import keras
    import keras_hub

SIDE, ROUNDS = 224, 2
COUNTS = (64, 96)


def photos() -> NDArray[np.uint8]:
    named = os.environ.get("FROSTLINE_TEST_ASSETS")
    if not named:
        sys.exit("FROSTLINE_TEST_ASSETS is not set: the photos are not part of this repository")
    files = sorted(Path(named, "clothing-small").rglob("*.jpg"))[: max(COUNTS)]
    return np.stack([np.asarray(Image.open(file).convert("RGB").resize((SIDE, SIDE))) for file in files])


def main() -> None:
    images = photos()
    keras.utils.set_random_seed(0)
    theirs = keras_hub.models.ViTBackbone((SIDE, SIDE, 3), 16, 12, 12, 768, 3072)
    scale = keras_hub.layers.ImageConverter(image_size=(SIDE, SIDE), scale=1 / 127.5, offset=-1.0)
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_to_preset(folder)
        scale.save_to_preset(folder)
        backbone = backbones.build(f"hub/{folder}", "preset", SIDE)
    pixels = keras.Input((SIDE, SIDE, 3), dtype="uint8")
    plain = keras.Model(pixels, theirs(keras.layers.Rescaling(1 / 127.5, -1.0)(pixels)))
    body = backbone.model
    ours = keras.Model(pixels, graph.inference_twin(body.input, body.output)(backbone.preprocess(pixels)))
    rows = backend.batch_rows()

    def extract(photos: NDArray[np.uint8]) -> NDArray[np.float32]:
        starts = range(0, len(photos), rows)
        return np.concatenate(
            [backend.predict(ours, photos[at : at + rows], rows)[: len(photos) - at] for at in starts]
        )

    contestants: dict[str, Callable[[NDArray[np.uint8]], NDArray[np.float32]]] = {
        "KerasHub, model.predict": lambda photos: plain.predict(photos, batch_size=32, verbose=0),
        "frostline": extract,
    }
    expected, found = (run(images[:rows]) for run in contestants.values())  # compiles as well
    difference = np.abs(found - expected).max() / np.abs(expected).max()
    table = []
    for count in COUNTS:
        seconds: dict[str, list[float]] = {name: [] for name in contestants}
        for _ in range(ROUNDS):
            for name, run in contestants.items():
                start = time.perf_counter()
                run(images[:count])
                seconds[name].append(time.perf_counter() - start)
        medians = {name: statistics.median(values) for name, values in seconds.items()}
        table += [
            [
                name,
                str(count),
                f"{count / medians[name]:.2f} ({count / max(seconds[name]):.2f} to {count / min(seconds[name]):.2f})",
                f"{medians['KerasHub, model.predict'] / medians[name]:.2f}",
            ]
            for name in contestants
        ]
    show(
        "transformers",
        f"ViT-B/16 with random weights, photos of {SIDE} pixels, {ROUNDS} rounds. frostline fills batches of {rows}, "
        f"so 64 photos cost what 96 do. Tokens differ by {difference:.0e} of their size.",
        ["contestant", "photos", "photos/s, median (worst to best)", "ratio"],
        table,
    )


if __name__ == "__main__":
    main()
