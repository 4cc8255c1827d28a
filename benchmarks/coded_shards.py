"""The bytes and the speed of coded shards against raw ones, at 160 pixels.

    FROSTLINE_TEST_ASSETS=.../assets python benchmarks/coded_shards.py [--rounds 5]

clothing-small is prepared once. Its training split is then written again with each `data.codec`, and read in batches of
32 in random order, as training does, from the page cache. The codecs take turns, and each number is the median of all
rounds. `changed`: the mean difference from the raw pixels, in grey levels of 255.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np
from table import show
from workspace import params, workspace

from frostline import paths
from frostline.data import codecs, shards
from frostline.stages import prepare

SIZE, BATCH = 160, 32


def written(train: shards.Shards, codec: str, folder: Path) -> float:
    """Write the shards with a codec; images a second."""
    folder.mkdir()
    rows = np.arange(len(train))
    images = (image for start in range(0, len(rows), 256) for image in train.take(rows[start : start + 256]))
    start = time.perf_counter()
    shards.write(folder, train.layout, train.index, images, codec=codec)
    return len(rows) / (time.perf_counter() - start)


def read(folder: Path, seed: int) -> float:
    """Read all images in random order; images a second."""
    images = shards.open_folder(folder)
    images.take(np.arange(1))  # opens the first shard, and starts the threads
    order = np.random.default_rng(seed).permutation(len(images))
    start = time.perf_counter()
    for first in range(0, len(order), BATCH):
        images.take(order[first : first + BATCH])
    return len(order) / (time.perf_counter() - start)


def changed(train: shards.Shards, folder: Path) -> float:
    rows = np.arange(0, len(train), 10)
    difference = train.take(rows).astype(int) - shards.open_folder(folder).take(rows)
    return float(np.abs(difference).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    named = os.environ.get("FROSTLINE_TEST_ASSETS")
    if not named:
        sys.exit("FROSTLINE_TEST_ASSETS is not set: the photos are not part of this repository")
    source = Path(named).resolve() / "clothing-small"
    names = (codecs.RAW, *codecs.CODECS)
    with workspace() as folder:
        prepare.run(params({"data.source": str(source), "data.image_size": SIZE, "data.train_per_class": None}))
        train = shards.open_folder(paths.PREPARED / "train")
        speeds: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
        for number in range(rounds):
            for name in names:
                place = folder / f"{name}-{number}"
                speeds[name].append((written(train, name, place), read(place, number)))
                print(number, name, *(f"{speed:,.0f}/s" for speed in speeds[name][-1]), flush=True)
        rows = []
        for name in names:
            place = folder / f"{name}-0"
            size = sum(file.stat().st_size for file in place.glob("images-*")) / len(train)
            writing, reading = (statistics.median(each) for each in zip(*speeds[name], strict=True))
            cells = f"{size / 1000:.1f} KB", f"{size / (SIZE * SIZE * 3):.2f}", f"{changed(train, place):.2f}"
            rows.append([f"`{name}`", *cells, f"{writing:,.0f}/s", f"{reading:,.0f}/s"])
        caption = (
            f"clothing-small's training split, {len(train):,} photos at {SIZE} px, median of {rounds} alternating "
            "rounds, in the page cache. `changed`: mean difference from the raw pixels, in grey levels of 255. Reading "
            "is in random order, in batches of 32, decoded by a thread a core."
        )
        show("coded_shards", caption, ["codec", "an image", "of raw", "changed", "written", "read"], rows)


if __name__ == "__main__":
    main()
