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

SIDE, IMAGES, ROUNDS = 224, 64, 3


def photos() -> NDArray[np.uint8]:
    named = os.environ.get("FROSTLINE_TEST_ASSETS")
    if not named:
        sys.exit("FROSTLINE_TEST_ASSETS is not set: the photos are not part of this repository")
    files = sorted(Path(named, "clothing-small").rglob("*.jpg"))[:IMAGES]
    return np.stack([np.asarray(Image.open(file).convert("RGB").resize((SIDE, SIDE))) for file in files])


def seconds(run: Callable[[], NDArray[np.float32]]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


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

    def extract() -> NDArray[np.float32]:
        parts = [backend.predict(ours, images[at : at + rows], rows)[: IMAGES - at] for at in range(0, IMAGES, rows)]
        return np.concatenate(parts)

    contestants: dict[str, Callable[[], NDArray[np.float32]]] = {
        "KerasHub, model.predict": lambda: plain.predict(images, batch_size=32, verbose=0),
        "frostline": extract,
    }
    outputs = {name: run() for name, run in contestants.items()}  # compiles as well
    first = next(iter(outputs.values()))
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(ROUNDS):
        for name, run in contestants.items():
            times[name].append(seconds(run))
    medians = {name: statistics.median(values) for name, values in times.items()}
    best = medians[next(iter(contestants))]
    show(
        "transformers",
        f"ViT-B/16 with random weights, {IMAGES} photos of {SIDE} pixels, {ROUNDS} rounds.",
        ["contestant", "images/s, median (worst to best)", "ratio", "largest difference"],
        [
            [
                name,
                f"{IMAGES / medians[name]:.1f} ({IMAGES / max(times[name]):.1f} to {IMAGES / min(times[name]):.1f})",
                f"{best / medians[name]:.2f}",
                f"{np.abs(outputs[name] - first).max() / np.abs(first).max():.1e}",
            ]
            for name in contestants
        ],
    )


if __name__ == "__main__":
    main()
