"""What `frostline choose` costs: all depths of a body against one pass, and 24 candidates together against one by one.

    FROSTLINE_TEST_ASSETS=.../assets python benchmarks/choose.py [depths|candidates]

All depths: photos at 160 px in batches of 48, the functions compiled before, the ways in turn. The plain pass is the
body as Keras has it and its average pool; the folded one has batch norms folded, as all features of frostline.

Candidates: six bodies, and of each four descendants with other weights behind a share of the layers. All depths are
measured, one body by one and all together, each way from an empty store and from built models on: digests, compiling,
computing and storing; then again without compiling, which is what counts where there are many photos. Weights are
random; they take as long as trained ones.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import keras
import numpy as np
import pandas as pd
from table import show

from frostline.core.mapped import Memory
from frostline.data import images, shards
from frostline.data.shards import Shards
from frostline.features import depths
from frostline.features.store import Store
from frostline.ingest.folders import IMAGES
from frostline.models import backbones, backend, freezing, graph
from frostline.models.backbones import Backbone

SIDE, PHOTOS, ROUNDS = 160, 512, 3
TIMED = [("EfficientNetLite0", None), ("MobileNetV2", None), ("frostnet", None)]
SMALL_SIDE, FEW_PHOTOS, DESCENDANTS = 96, 128, 4
BODIES = [
    ("frostnet", None),
    ("MobileNet", 0.25),
    ("MobileNetV2", 0.35),
    ("MobileNetV3Small", None),
    ("EfficientNetLite0", None),
    ("EfficientNetB0", None),
]
SHARED = (0.5, 0.9)


def prepared(folder: Path, source: Path, count: int, size: int) -> Shards:
    """Photos at one size, as `prepare` would write them."""
    files = sorted(path for path in source.rglob("*") if path.suffix.lower() in IMAGES)
    chosen = [files[place] for place in np.random.default_rng(0).permutation(len(files))[:count]]
    table = pd.DataFrame({"path": list(map(str, chosen)), "label": 0, "sha256": [f"{n:064x}" for n in range(count)]})
    folder.mkdir()
    pixels = (images.fit(images.load(path, size).image, size, "crop") for path in chosen)
    return shards.write(folder, shards.Layout(("a",), size, "crop"), table, map(np.asarray, pixels))


def new_store(folder: Path) -> Store:
    return Store(Path(tempfile.mkdtemp(dir=folder)), 1e10, Memory(1e9))


def pooled(backbone: Backbone, is_folded: bool) -> keras.Model:
    """A model from images to the body's pooled features."""
    pixels = keras.Input(backbone.model.input.shape[1:], dtype="uint8")
    body = backbone.model
    body = graph.inference_twin(body.input, body.output) if is_folded else body
    return keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(body(backbone.preprocess(pixels))))


def seconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def all_depths(photos: Shards, folder: Path, name: str, alpha: float | None) -> list[str]:
    """A row of the table: seconds of three ways to get features of a body."""
    backbone = backbones.build(name, "none", SIDE, alpha=alpha)
    one_pass = depths.Pass([backbone], "choose")
    rows = backend.batch_rows()

    def predicted(model: keras.Model) -> None:
        for start in range(0, len(photos), rows):
            backend.predict(model, photos.take(np.arange(start, min(start + rows, len(photos)))), rows)

    plain, folded = pooled(backbone, False), pooled(backbone, True)
    ways: list[Callable[[], Any]] = [
        lambda: predicted(plain),
        lambda: predicted(folded),
        lambda: one_pass.vectors(photos, np.arange(len(photos)), new_store(folder)),
    ]
    for way in ways:
        way()
    times = np.array([[seconds(way) for way in ways] for _ in range(ROUNDS)])
    middle = [median(times[:, place]) for place in range(len(ways))]
    return [
        name if alpha is None else f"{name}, alpha {alpha}",
        str(len(one_pass.depths[0])),
        *(f"{each:.2f} s" for each in middle),
        f"{middle[2] / middle[0]:.2f}x",
        f"{middle[2] / middle[1]:.2f}x",
    ]


def descendants(name: str, alpha: float | None, shared: float) -> list[Backbone]:
    """Bodies with the same weights in a share of the layers, and others behind."""
    keras.utils.set_random_seed(0)
    start = backbones.build(name, "none", SMALL_SIDE, alpha=alpha)
    weights = start.model.get_weights()
    made = []
    for number in range(DESCENDANTS):
        each = backbones.build(name, "none", SMALL_SIDE, alpha=alpha)
        each.model.set_weights(weights)
        for layer in each.model.layers[int(shared * len(each.model.layers)) :]:
            layer.set_weights([value + 0.01 * (number + 1) for value in layer.get_weights()])
        made.append(each)
    return made


def bound(bodies: Sequence[Backbone], shared: float) -> float:
    """How many times less is computed if the shared layers are computed once for the descendants of a start."""
    alone = together = 0.0
    for body in bodies[::DESCENDANTS]:
        work = [freezing.multiply_adds(layer) for layer in body.model.layers]
        below, above = sum(work[: int(shared * len(work))]), sum(work[int(shared * len(work)) :])
        alone, together = alone + DESCENDANTS * (below + above), together + below + DESCENDANTS * above
    return alone / together


def twice(bodies: Sequence[Backbone], photos: Shards, folder: Path) -> tuple[float, float]:
    """Seconds to measure bodies with an empty store, from built models on, and again with compiled networks."""
    start = time.perf_counter()
    one_pass = depths.Pass(bodies, "choose")
    one_pass.vectors(photos, np.arange(len(photos)), new_store(folder))
    first = time.perf_counter() - start
    return first, seconds(lambda: one_pass.vectors(photos, np.arange(len(photos)), new_store(folder)))


def candidates(photos: Shards, folder: Path, shared: float) -> list[str]:
    """A row of the table: seconds one by one and together, with what compiling is of it, and what could be saved."""
    bodies = [body for name, alpha in BODIES for body in descendants(name, alpha, shared)]
    alone, alone_compiled = np.sum([twice([body], photos, folder) for body in bodies], axis=0)
    keras.backend.clear_session()
    together, together_compiled = twice(bodies, photos, folder)
    return [
        f"{shared:.0%} of the layers",
        f"{alone:.1f} s",
        f"{together:.1f} s",
        f"**{alone / together:.2f}x**",
        f"{alone_compiled:.1f} s",
        f"{together_compiled:.1f} s",
        f"{alone_compiled / together_compiled:.2f}x",
        f"{bound(bodies, shared):.2f}x",
    ]


def show_depths(source: Path, folder: Path) -> None:
    photos = prepared(folder / "photos", source, PHOTOS, SIDE)
    header = ["body", "depths", "plain pass", "folded pass", "all depths", "of the plain one", "of the folded one"]
    caption = (
        f"[All depths of a body](../choose.py) against one pass to its pooled features, {PHOTOS} photos, {SIDE} px, "
        f"networks compiled, medians of {ROUNDS} rounds."
    )
    show("choose", caption, header, [all_depths(photos, folder, *body) for body in TIMED])


def show_candidates(source: Path, folder: Path) -> None:
    few = prepared(folder / "few", source, FEW_PHOTOS, SMALL_SIDE)
    header = [
        "shared",
        "one by one",
        "together",
        "",
        "one by one, compiled",
        "together, compiled",
        "",
        "by multiply-adds",
    ]
    caption = (
        f"[{len(BODIES) * DESCENDANTS} candidates](../choose.py): {len(BODIES)} bodies x {DESCENDANTS} descendants "
        f"with other weights behind a share of the layers, {FEW_PHOTOS} photos, {SMALL_SIDE} px, empty stores. With "
        f"{DESCENDANTS} descendants of a start no sharing saves more than {DESCENDANTS}x."
    )
    show("choose_candidates", caption, header, [candidates(few, folder, shared) for shared in SHARED])


def main() -> None:
    named = os.environ.get("FROSTLINE_TEST_ASSETS")
    if not named:
        sys.exit("FROSTLINE_TEST_ASSETS is not set: the photos are not part of this repository")
    parts = {"depths": show_depths, "candidates": show_candidates}
    with tempfile.TemporaryDirectory() as folder:
        for name in sys.argv[1:] or parts:
            parts[name](Path(named) / "clothing-small", Path(folder))


if __name__ == "__main__":
    main()
