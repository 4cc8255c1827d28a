"""Stage `prepare` on real photos: against the bare decoding limit and Keras's reader, and from 3,000 to 30,000 photos.

    FROSTLINE_TEST_ASSETS=.../assets python benchmarks/prepare.py [--rounds 5]

Contestants on clothing-small at 160 pixels, taking turns, imports aside, files in the page cache:
- bare: Pillow's decode, crop and resize alone, in as many processes as cores, nothing checked, kept or written;
- keras: one pass over `keras.utils.image_dataset_from_directory`, which checks and keeps nothing either;
- frostline: stage `prepare` as it is called, from listing the files to the written shards and the report, the start of
  its worker processes included.

Then `prepare` alone, in a process of its own, on 3,000 photos and on 30,000, which are those with a few pixels changed:
time, and the peak memory of the process and of its largest worker, as the kernel counts them.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from table import show
from workspace import params, workspace

from frostline.paths import DATA_REPORT
from frostline.stages import prepare

SIZE = 160
CORES = len(os.sched_getaffinity(0))


def settings(source: Path) -> dict[str, object]:
    return {
        "data.source": str(source),
        "data.image_size": SIZE,
        "data.resize": "crop",
        "data.train_per_class": None,
        "data.split": {"train": 0.8, "val": 0.1, "test": 0.1},
    }


def decode(paths: list[Path]) -> None:
    for path in paths:
        with Image.open(path) as image:
            ImageOps.fit(image.convert("RGB"), (SIZE, SIZE), Image.Resampling.BILINEAR)


def bare(pool: ProcessPoolExecutor, source: Path) -> float:
    paths = sorted(source.glob("*/*/*.jpg"))
    start = time.perf_counter()
    list(pool.map(decode, [paths[first : first + 32] for first in range(0, len(paths), 32)]))
    return time.perf_counter() - start


def keras_pass(source: Path) -> float:
    from keras.utils import image_dataset_from_directory

    start = time.perf_counter()
    for split in ("train", "validation"):
        images = image_dataset_from_directory(
            source / split,
            image_size=(SIZE, SIZE),
            batch_size=32,
            crop_to_aspect_ratio=True,
            shuffle=False,
            verbose=False,
        )
        for _ in images:
            pass
    return time.perf_counter() - start


def ours(source: Path) -> float:
    with workspace():
        return measured_alone(source)["seconds"]


def measured_alone(source: Path) -> dict[str, float]:
    """`measured` in a process of its own, as the stage runs. `frostline prepare` sets the variable for itself."""
    command = [sys.executable, __file__, "--measure", str(source)]
    environment = os.environ | {"ARROW_DEFAULT_MEMORY_POOL": "system"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def race(source: Path, rounds: int) -> None:
    with ProcessPoolExecutor(CORES, get_context("spawn")) as pool:
        list(pool.map(decode, [[]] * CORES))  # started and imported
        contestants: dict[str, Callable[[], float]] = {
            "bare decode and resize": lambda: bare(pool, source),
            "keras.utils.image_dataset_from_directory": lambda: keras_pass(source),
            "**frostline prepare**": lambda: ours(source),
        }
        seconds: dict[str, list[float]] = {name: [] for name in contestants}
        for number in range(rounds + 1):
            for name, run in contestants.items():
                found = run()
                if number:  # the first round warms the page cache
                    seconds[name].append(found)
                print(number, name, f"{found:.2f} s", flush=True)
    count = len(list(source.glob("*/*/*.jpg")))
    limit = seconds["bare decode and resize"]
    rows = []
    for name, found in seconds.items():
        ratio = statistics.median(bound / own for bound, own in zip(limit, found, strict=True))
        rate = count / statistics.median(found)
        rows.append([name, f"{statistics.median(found):.2f} s", f"{rate:,.0f}/s", f"{ratio:.2f}"])
    caption = (
        f"clothing-small, {count:,} photos at {SIZE} px, median of {rounds} alternating rounds, imports aside. `of the "
        "limit`: speed over that of the bare decoding of the same round."
    )
    show("prepare", caption, ["", "time", "photos", "of the limit"], rows)


def changed(job: tuple[Path, Path, int]) -> None:
    """A copy of a photo with a few pixels of its own."""
    source, target, seed = job
    image = Image.open(source).convert("RGB")
    pixels = np.array(image)
    rng = np.random.default_rng(seed)
    pixels[rng.integers(0, pixels.shape[0], 20), rng.integers(0, pixels.shape[1], 20)] ^= 7
    target.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(target, quality=90)


def grown(source: Path, count: int, folder: Path) -> None:
    """So many photos in class folders."""
    photos = sorted(source.glob("*/*/*.jpg"))[:3000]
    jobs = [
        (photo, folder / photo.parent.name / f"{number // len(photos)}-{photo.stem}.jpg", number)
        for number, photo in ((number, photos[number % len(photos)]) for number in range(count))
    ]
    with ProcessPoolExecutor(CORES, get_context("spawn")) as pool:
        list(pool.map(changed, jobs, chunksize=64))


def measured(source: Path) -> dict[str, float]:
    """Seconds and peaks of memory of a `prepare` in this process."""
    import pyarrow.parquet  # noqa: F401  imports aside
    import scipy.sparse.csgraph  # noqa: F401

    start = time.perf_counter()
    prepare.run(params(settings(source)))
    seconds = time.perf_counter() - start
    # Not ru_maxrss of this process: that begins with what the process had that started it.
    own = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text(encoding="ascii"))
    worker = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return {"seconds": seconds, "process": 1024 * int(own[1]), "worker": 1024 * worker}


def scale(source: Path) -> None:
    rows = []
    first: dict[str, float] = {}
    for count in (3_000, 30_000):
        with workspace() as folder:
            grown(source, count, folder / "photos")
            found = measured_alone(folder / "photos")
            report = json.loads(DATA_REPORT.read_text(encoding="utf-8"))
        first = first or found
        prepared = sum(report["images"].values())
        peaks = [f"{found[who] / 1e6:.0f} MB ({found[who] / first[who] - 1:+.1%})" for who in ("process", "worker")]
        rate = count / found["seconds"]
        rows.append([f"{count:,}", f"{prepared:,}", f"{found['seconds']:.1f} s", f"{rate:,.0f}/s", *peaks])
        print(rows[-1], flush=True)
    caption = (
        f"`prepare` at {SIZE} px on clothing-small's first 3,000 photos, and on ten copies of each with a few pixels "
        "changed: near-copies, which are looked for and found. Peak memory of the process and of its largest worker."
    )
    show("prepare_scale", caption, ["photos", "prepared", "time", "speed", "process", "largest worker"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=["race", "scale"])
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.measure:
        print(json.dumps(measured(chosen.measure)))
        return
    named = os.environ.get("FROSTLINE_TEST_ASSETS")
    if not named:
        sys.exit("FROSTLINE_TEST_ASSETS is not set: the photos are not part of this repository")
    source = Path(named).resolve() / "clothing-small"
    if chosen.only != "scale":
        race(source, chosen.rounds)
    if chosen.only != "race":
        scale(source)


if __name__ == "__main__":
    main()
