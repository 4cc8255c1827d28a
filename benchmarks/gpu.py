"""Extraction, frozen, half and full fine-tuning on a GPU against plain Keras `fit`, on generated images.

    PYTHONPATH=src python benchmarks/gpu.py [--backbone MobileNetV2] [--size 224] [--images 4096] [--batch 128]

Needs nothing but Keras, NumPy and Keras's backend (`KERAS_BACKEND=jax` wants only jax beside Keras); the weights are
random. What is shown: images/s of both sides, and which share of the matrix-product rate that this device reaches in
the same precision the arithmetic of the network's convolutions and dense layers makes up. Without a GPU it runs on the
processor, and its caption says so.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from frostline.features.prefix import IMAGES, FeatureSource, Prefix, Rows
from frostline.models import assembly, backbones, backend, freezing, heads
from frostline.models.freeze_rules import Band
from frostline.params.schedules import Flat
from frostline.training import batching, loop, phases

CLASSES = 10


@dataclass(frozen=True)
class Held:
    """Rows that lie in memory."""

    array: np.ndarray

    def __len__(self) -> int:
        return len(self.array)

    def take(self, rows: np.ndarray) -> np.ndarray:
        return self.array[rows]


def device() -> str:
    """The device that Keras computes on, in words."""
    if keras.backend.backend() == "jax":
        import jax

        return str(jax.devices()[0].device_kind)
    import tensorflow as tf

    found = tf.config.list_physical_devices("GPU")
    return tf.config.experimental.get_device_details(found[0])["device_name"] if found else "cpu"


def ceiling(precision: str) -> float:
    """Operations a second of large matrix products."""
    side = 8192 if backend.has_gpu() else 1024
    dtype = "bfloat16" if precision == "mixed_bfloat16" else "float32"
    rng = np.random.default_rng(0)
    a, b = (keras.ops.cast(rng.normal(size=(side, side)).astype(np.float32), dtype) for _ in range(2))
    one = keras.Input((side,), dtype=dtype, batch_size=side)
    model = keras.Model(one, keras.ops.matmul(one, b))
    seconds = []
    for _ in range(6):
        start = time.perf_counter()
        x = a
        for _ in range(10):
            x = model(x, training=False)
        np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(x[0, 0], "float32")))
        seconds.append(time.perf_counter() - start)
    return 10 * 2 * side**3 / min(seconds[1:])


def operations(model: keras.Model, first: int, last: int) -> float:
    """Multiplications and additions of the convolutions and dense layers in layers[first:last], for one image."""
    total = 0.0
    for layer in model.layers[first:last]:
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            total += 2 * np.prod(layer.kernel.shape[:2]) * np.prod(layer.output.shape[1:])
        elif isinstance(layer, keras.layers.Conv2D):
            total += 2 * np.prod(layer.kernel.shape[:3]) * np.prod(layer.output.shape[1:])
        elif isinstance(layer, keras.layers.Dense):
            total += 2 * np.prod(layer.kernel.shape) * np.prod(layer.output.shape[1:-1])
    return float(total)


def seconds_of(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def epochs_of_fit(model: keras.Model, images: np.ndarray, targets: np.ndarray, batch: int, rounds: int) -> list[float]:
    """Seconds of each epoch of Keras's own loop."""
    return [seconds_of(lambda: model.fit(images, targets, batch_size=batch, verbose=0)) for _ in range(rounds)]


def epochs_of_ours(
    model: keras.Model, learned: batching.Examples, checked: batching.Examples, batch: int, rounds: int
) -> list[float]:
    """Seconds of each epoch of `training.Learner`, the first left out because it compiles."""
    ended: list[float] = []
    settings = phases.Phase("finetune", rounds + 1, range(rounds + 1), batch, "adam", 1e-5, Flat(), seed=1)
    learner = loop.Learner(model, settings.rule)
    watch = loop.Watch(lambda row, snapshot: ended.append(time.perf_counter()))
    learner.fit(settings, learned, checked, [], watch=watch)
    return [float(seconds) for seconds in np.diff(ended)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="MobileNetV2")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", default="float32", choices=["float32", "mixed_bfloat16"])
    chosen = parser.parse_args()
    backend.make_deterministic(1)
    keras.config.set_dtype_policy(chosen.precision)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (chosen.images, chosen.size, chosen.size, 3), dtype=np.uint8)
    labels = np.arange(chosen.images) % CLASSES
    one_hot = np.eye(CLASSES, dtype=np.float32)[labels]
    backbone = backbones.build(chosen.backbone, "none", chosen.size)
    body = backbone.model
    head = heads.build(body.output.shape[1:], CLASSES, "avg", [], "relu", False)
    layers = len(body.layers)
    top = ceiling(chosen.precision)
    a_few = batching.Examples([Held(images[: chosen.batch])], labels[: chosen.batch])
    rows = []

    def show(name: str, ours: list[float], keras_: list[float], operations_each: float) -> None:
        rates = [chosen.images / statistics.median(values) for values in (ours, keras_)]
        shares = [f"{100 * rate * operations_each / top:.1f}%" for rate in rates]
        rows.append([name, f"{rates[1]:,.0f}", f"{rates[0]:,.0f}", f"{rates[0] / rates[1]:.2f}x", shares[1], shares[0]])
        print(rows[-1], flush=True)

    # Extraction of pooled features of the whole body.
    freezing.freeze(body, Band.above(layers, len(body.layers)), False)
    source = FeatureSource(backbone, head)
    stops = source.stops("float32")
    prefix = Prefix(source, stops[-1:])
    plain = keras.Model(*_plain(backbone, head, pooled=True))
    plain.predict(images[: chosen.batch], batch_size=chosen.batch, verbose=0)
    prefix.run(IMAGES, 0, images[: chosen.batch])
    ours, theirs = [], []
    for _ in range(chosen.rounds):
        theirs.append(seconds_of(lambda: plain.predict(images, batch_size=chosen.batch, verbose=0)))
        ours.append(seconds_of(lambda: prefix.run(IMAGES, 0, images)))
    show("extraction", ours, theirs, operations(body, 0, layers))

    # An epoch of training: here on stored features of what is frozen, there through the whole graph.
    for name, depth in (("frozen", layers), ("half", layers // 2), ("full", 0)):
        freezing.freeze(body, Band.above(depth, len(body.layers)), False)
        cut = freezing.deepest_cut(body, depth)
        stored: Rows = Held(images)
        if cut is not None:
            prefix = Prefix(source, [stop for stop in stops if stop.cut.layer == cut.layer])
            stored = Held(prefix.run(IMAGES, 0, images))
        model = assembly.suffix(backbone, head, cut)
        learned = batching.Examples([stored], labels)
        checked = batching.Examples([Held(stored.take(np.arange(chosen.batch)))], a_few.labels)
        whole = keras.Model(*_plain(backbone, head, pooled=False))
        whole.compile("adam", keras.losses.CategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
        whole.fit(images[: chosen.batch], one_hot[: chosen.batch], batch_size=chosen.batch, verbose=0)
        theirs = epochs_of_fit(whole, images, one_hot, chosen.batch, chosen.rounds)
        ours = epochs_of_ours(model, learned, checked, chosen.batch, chosen.rounds)
        show(name, ours, theirs, 3 * operations(body, depth, layers))

    where = device() if backend.has_gpu() else f"no GPU: {os.cpu_count()} processor cores"
    caption = (
        f"{chosen.backbone} at {chosen.size} px, {chosen.images:,} generated images, batches of {chosen.batch}, "
        f"{chosen.precision}, Keras {keras.__version__} on {keras.backend.backend()}, device: {where}. Images a second "
        f"of an epoch, medians of {chosen.rounds}; matrix products reach {top / 1e12:.2f} Tera-operations/s here. The "
        "shares count what has to be computed when features are stored: forward for extraction, three times forward "
        "for what is trained; plain Keras computes the frozen layers on top of that."
    )
    header = ["case", "Keras images/s", "frostline images/s", "ratio", "Keras share", "frostline share"]
    lines = [" | ".join(header), " | ".join("---" for _ in header), *(" | ".join(row) for row in rows)]
    text = f"{caption}\n\n" + "\n".join(f"| {line} |" for line in lines) + "\n"
    print(text)
    results = Path(__file__).with_name("results")
    results.mkdir(exist_ok=True)
    (results / "gpu.md").write_text(text, encoding="utf-8")


def _plain(backbone: backbones.Backbone, head: heads.Head, pooled: bool) -> tuple[Any, Any]:
    """Images -> pooled vector or logits, as one would write it with Keras alone."""
    inputs = keras.Input(backbone.model.input.shape[1:], dtype="uint8")
    x = head.pool(backbone.model(backbone.preprocess(inputs)))
    return inputs, x if pooled else head.top(x)


if __name__ == "__main__":
    main()
