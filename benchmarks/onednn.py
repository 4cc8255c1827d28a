"""What oneDNN is worth where TensorFlow leaves it off by itself, which it does on processors without AVX-512.

    python benchmarks/onednn.py [--rounds N]

MobileNetV2 1.0 at 160 px with random weights, as it stands and with its BatchNorm folded, each setting in a process of
its own, off and on in turns. Images a second of the best of three passes, median of the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SIDE, IMAGES = 160, 480  # a whole number of both batches
BATCHES = (32, 48)
WAYS = ("plain", "folded")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        print(json.dumps(measured()))
        return
    from table import show

    found: dict[str, list[dict[str, float]]] = {"0": [], "1": []}
    for _ in range(chosen.rounds):
        for setting, rates in found.items():
            environment = {**os.environ, "TF_ENABLE_ONEDNN_OPTS": setting}
            command = [sys.executable, str(Path(__file__)), "--child"]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            rates.append(json.loads(done.stdout.splitlines()[-1]))
    rows = []
    for case in found["0"][0]:
        off, on = (statistics.median(rate[case] for rate in found[setting]) for setting in ("0", "1"))
        rows.append((case, f"{off:.0f}", f"{on:.0f}", f"{on / off:.2f}x"))
    show(
        "onednn",
        f"MobileNetV2 at {SIDE} px, images a second, oneDNN off and on in turns, median of {chosen.rounds} rounds.",
        ("network and batch", "off", "on", "ratio"),
        rows,
    )


def measured() -> dict[str, float]:
    """Images a second of each network and batch, in this process."""
    import numpy as np

    from frostline.models import backbones, backend, graph

    with backend.quiet():
        import tensorflow as tf

    plain = backbones.build("MobileNetV2", "none", SIDE).model
    networks = {"plain": plain, "folded": graph.inference_twin(plain.input, plain.output)}
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, SIDE, SIDE, 3), dtype=np.uint8)
    rates = {}
    for way in WAYS:
        call = tf.function(networks[way], reduce_retracing=True)
        for batch in BATCHES:
            rates[f"{way}, {batch} images"] = best(call, images, batch)
    return rates


def best(call: Callable[..., Any], images: Any, batch: int) -> float:
    """Images a second of the best of three passes."""
    call(images[:batch], training=False)
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        for start in range(0, len(images), batch):
            call(images[start : start + batch], training=False)
        seconds.append(time.perf_counter() - started)
    return len(images) / min(seconds)


if __name__ == "__main__":
    main()
