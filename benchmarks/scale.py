"""How the memory and the time of `prepare`, of filling the store and of an epoch grow with the number of images.

    python benchmarks/scale.py [--images 3000 30000 300000 1000000] [--stages prepare features epoch]

The images are drawn by a formula: 12x12 random colours, enlarged to 64 pixels and saved as JPEG, in tars, in ten
classes. So nothing is a near-copy, and decoding is quick: what is measured is what each image costs beside its pixels.
Each measurement is a process of its own:

- prepare: the stage, from listing the tars to the written shards and the report, near-copies searched for;
- features: `frostline features` of frostnet's last layer for all splits, from an empty store, its table included;
- epoch: stage `finetune` with everything frozen for one epoch of the head, on the features that are stored then.

Peak memory is that of the process, as the kernel counts it, and of its largest worker. To seconds and bytes a line
a + b * images is fitted, by least squares of the relative errors; the table says how far the worst point lies from it.
What is finished is a line of results/scale.jsonl and is not run again: kill and start again as you like.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import resource
import subprocess
import sys
import tarfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from table import RESULTS, machine, show
from workspace import params, workspace

LINES = RESULTS / "scale.jsonl"
SIZE, CLASSES, PER_TAR = 64, 10, 10_000
STAGES = ("prepare", "features", "epoch")
WHAT = {"prepare": "prepare", "features": "filling the store", "epoch": "one epoch on stored features"}


def drawn(job: tuple[Path, int, int]) -> None:
    """Write a tar with the images of some numbers."""
    path, first, last = job
    with tarfile.open(path, "w") as tar:
        for number in range(first, last):
            colours = np.random.default_rng(number).integers(0, 256, (12, 12, 3), dtype=np.uint8)
            file = io.BytesIO()
            image = Image.fromarray(colours).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
            image.save(file, "JPEG", quality=85)
            for suffix, content in (("jpg", file.getvalue()), ("cls", b"%d" % (number % CLASSES))):
                info = tarfile.TarInfo(f"{number:08d}.{suffix}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


def draw(folder: Path, count: int) -> None:
    folder.mkdir()
    starts = range(0, count, PER_TAR)
    jobs = [(folder / f"images-{start // PER_TAR:05d}.tar", start, min(start + PER_TAR, count)) for start in starts]
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), get_context("spawn")) as pool:
        list(pool.map(drawn, jobs))


def settings() -> Any:
    return params(
        {
            "data.source": "images",
            "data.image_size": SIZE,
            "data.train_per_class": None,
            "data.split": {"train": 0.8, "val": 0.1, "test": 0.1},
            "augment.copies": 0,
            "finetune.freeze": "all",
            "finetune.head_epochs": 1,
            "finetune.epochs": 0,
            "finetune.batch_size": 256,
            "cache.mode": "always",
            "cache.disk_gb": 50,
        }
    )


def run_stage(stage: str) -> None:
    if stage == "prepare":
        from frostline.stages import prepare

        print(prepare.run(settings()))
    elif stage == "features":
        from frostline.commands import features
        from frostline.models import backbones

        print(
            features.run(
                settings(),
                backbones.of_section(settings().backbone, str, SIZE).model.layers[-1].name,
                "all",
                Path("features.parquet"),
            )
        )
    else:
        from frostline.stages import finetune

        print(finetune.run(settings()))


def measured(stage: str) -> dict[str, float]:
    """Seconds and peaks of memory of a stage in this process, imports included, as the stage runs."""
    start = time.perf_counter()
    run_stage(stage)
    seconds = time.perf_counter() - start
    # Not ru_maxrss of this process: that begins with what the process had that started it.
    own = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text(encoding="ascii"))
    worker = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return {"seconds": seconds, "process": 1024 * int(own[1]), "worker": 1024 * worker}


def measured_alone(stage: str) -> dict[str, float]:
    """`measured` in a process of its own. The variable is what `frostline prepare` sets for itself."""
    environment = os.environ | ({"ARROW_DEFAULT_MEMORY_POOL": "system"} if stage == "prepare" else {})
    command = [sys.executable, __file__, "--measure", stage]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    print(done.stdout, flush=True)
    return json.loads(done.stdout.splitlines()[-1])


def points(count: int, stages: list[str]) -> None:
    """Measure the stages that are missing for a number of images; `prepare` runs anyway, as the others need it."""
    if all((count, stage) in finished() for stage in stages):
        return
    with workspace() as folder:
        draw(folder / "images", count)
        for stage in STAGES:
            if stage == "epoch":
                (folder / "data/augmented").mkdir()
            if stage != "prepare" and stage not in stages:
                continue
            load = waiting()
            found = measured_alone(stage)
            if (count, stage) not in finished():
                line = {"images": count, "stage": stage, "machine": machine(), "load": load, **found}
                with LINES.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")


def waiting() -> int:
    """The number of processes and threads that run or wait for a core, without this one."""
    return int(Path("/proc/loadavg").read_text(encoding="ascii").split()[3].split("/")[0]) - 1


def finished() -> dict[tuple[int, str], dict[str, Any]]:
    lines = LINES.read_text(encoding="utf-8").splitlines() if LINES.is_file() else []
    return {(found["images"], found["stage"]): found for found in map(json.loads, lines)}


def fitted(images: NDArray[np.float64], values: NDArray[np.float64]) -> tuple[float, float, float]:
    """a and b of a + b * images with the least relative errors, and the largest relative error."""
    design = np.stack([1 / values, images / values], axis=1)
    (a, b), *_ = np.linalg.lstsq(design, np.ones(len(values)), rcond=None)
    return float(a), float(b), float(np.abs((a + b * images) / values - 1).max())


def tables() -> None:
    found = finished()
    counts = sorted({count for count, _ in found})
    rows = []
    for stage in STAGES:
        for count in counts:
            if each := found.get((count, stage)):
                worker = f"{each['worker'] / 1e6:,.0f} MB" if stage == "prepare" else ""
                time_and_rate = f"{each['seconds']:,.1f} s", f"{count / each['seconds']:,.0f}/s"
                rows.append(
                    [
                        WHAT[stage],
                        f"{count:,}",
                        *time_and_rate,
                        f"{each['process'] / 1e6:,.0f} MB",
                        worker,
                        str(each["load"]),
                    ]
                )
    caption = (
        f"Images of {SIZE} px drawn by a formula, in tars, each stage in a process of its own, imports included: a "
        "lower limit for photos, which take longer to decode. Peak memory of the process and of its largest worker. "
        "`load`: the processes that wanted a core just before, ours aside; above 0 the time is longer than it need be."
    )
    show("scale", caption, ["stage", "images", "time", "speed", "process", "largest worker", "load"], rows)
    fits = []
    for stage in STAGES:
        lines = [found[count, stage] for count in counts if (count, stage) in found]
        if len(lines) < 3:
            continue
        alone = [line for line in lines if line["load"] <= 1]
        cells = []
        for key, unit, scale, points in (("seconds", "s", 1.0, alone), ("process", "MB", 1e6, lines)):
            images = np.array([line["images"] for line in points], float)
            a, b, error = fitted(images, np.array([line[key] for line in points], float) / scale)
            line = f"{a:,.3g} {unit} + {1e6 * b:,.4g} {unit} a million images"
            off = f"{error:.0%}" if len(points) > 2 else "two points"
            cells += [line, f"{int(images[0]):,} to {int(images[-1]):,}", off]
        fits.append([WHAT[stage], *cells])
    caption = (
        "Lines fitted to the points of scale.md, by least squares of the relative errors; times to those points at "
        "which at most one other process wanted a core. `off`: the largest relative error at such a point."
    )
    header = ["stage", "time", "images", "off", "memory of the process", "images", "off"]
    show("scale_model", caption, header, fits)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[3_000, 30_000, 300_000])
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--measure", choices=STAGES, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.measure:
        print(json.dumps(measured(chosen.measure)))
        return
    for count in chosen.images:
        points(count, chosen.stages)
    tables()


if __name__ == "__main__":
    main()
