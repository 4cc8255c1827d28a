"""How surely near-copies are found: planted copies of real photos, resized, recompressed, made brighter or darker.

    FROSTLINE_TEST_ASSETS=.../assets python benchmarks/near_copies.py

Of each data set 500 photos get a copy of each kind. Two photos count as found together when `prepare` puts them in one
set of near-copies. Recall: of the copies, those in a set with their original. Precision: of the pairs in one set, those
of one original; exact copies among the originals themselves are left out beforehand, as `prepare` does.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from io import BytesIO
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from table import show

from frostline.core import digest
from frostline.data import images
from frostline.ingest import near_copies, thumbnails
from frostline.ingest.folders import IMAGES

SIZE, COPIED = 160, 500


def resized(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    scale = rng.uniform(0.4, 1.6)
    return image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)


def recompressed(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=int(rng.integers(25, 85)))
    return images.load(buffer).image


def brightened(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(rng.uniform(0.65, 1.35))


def everything(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return recompressed(brightened(resized(image, rng), rng), rng)


KINDS: dict[str, Callable[[Image.Image, np.random.Generator], Image.Image]] = {
    "resized (0.4 to 1.6)": resized,
    "recompressed (JPEG 25 to 85)": recompressed,
    "brightness (0.65 to 1.35)": brightened,
    "all three": everything,
}


def thumbnail(image: Image.Image) -> NDArray[np.uint8]:
    return thumbnails.draw(images.fit(image, SIZE, "crop"))


def measured(name: str, folder: Path) -> list[list[str]]:
    rng = np.random.default_rng(0)
    different: dict[str, Path] = {}
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGES):
        different.setdefault(digest.of_array(images.decode(path)), path)
    paths = list(different.values())
    originals = [thumbnail(images.load(path, SIZE).image) for path in paths]
    chosen = rng.choice(len(paths), min(COPIED, len(paths)), replace=False)
    copies = {
        kind: [thumbnail(make(images.load(paths[row]).image, rng)) for row in chosen] for kind, make in KINDS.items()
    }

    rows = []
    for kind, made in {**copies, "together": [copy for several in copies.values() for copy in several]}.items():
        table = np.stack([*originals, *made])
        source = np.concatenate([np.arange(len(paths)), np.tile(chosen, len(made) // len(chosen))])
        start = time.perf_counter()
        pairs = near_copies.find(len(table), lambda places, table=table: table[places])
        seconds = time.perf_counter() - start
        sets = grouped(len(table), pairs)
        hits = sum(sets[len(paths) + number] == sets[row] for number, row in enumerate(source[len(paths) :]))
        members: dict[int, list[int]] = {}
        for row, number in enumerate(sets):
            members.setdefault(number, []).append(row)
        found = [source[a] == source[b] for several in members.values() for a, b in combinations(several, 2)]
        wrong = len(found) - sum(found)
        shares = [f"{hits / len(made):.4f}", f"{np.mean(found):.4f}"]
        rows.append([name, kind, f"{len(made):,}", *shares, str(wrong), f"{seconds:.2f} s"])
        print(rows[-1], flush=True)
    return rows


def grouped(count: int, pairs: NDArray[np.int64]) -> list[int]:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return connected_components(graph, directed=False)[1].tolist()


def main() -> None:
    named = os.environ.get("FROSTLINE_TEST_ASSETS")
    if not named:
        sys.exit("FROSTLINE_TEST_ASSETS is not set: the photos are not part of this repository")
    rows = []
    for name in ("clothing-small", "sign-digits"):
        rows += measured(name, Path(named) / name)
    caption = f"Near-copies among real photos, compared by thumbnails of {thumbnails.SIDE}x{thumbnails.SIDE} pixels."
    header = ["photos", "copies", "planted", "recall", "precision", "wrong pairs", "time"]
    show("near_copies", caption, header, rows)


if __name__ == "__main__":
    main()
