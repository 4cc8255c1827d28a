"""Peak memory of `finetune` on 30,000 images with little and with much `cache.memory_gb`.

    python benchmarks/memory.py

The images are random noise of 64 pixels, the prefix is frostnet's up to block4_out: 2 GB of features. Each run is a
process of its own; its peak is the kernel's VmHWM, of the whole process, mapped files included.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from table import show
from workspace import params, workspace

from frostline.data import shards
from frostline.stages import finetune

SIZE, CLASSES = 64, 10


def write(folder: Path, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    index = pd.DataFrame(
        {
            "path": [f"{label}/{number}.png" for number, label in enumerate(labels)],
            "label": labels,
            "sha256": [f"{seed:08x}{number:056x}" for number in range(count)],
        }
    )
    folder.mkdir(parents=True)
    layout = shards.Layout(tuple("abcdefghij"), SIZE, "crop")
    images = (rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8) for _ in range(count))
    shards.write(folder, layout, index, images)


def train(memory: float, mode: str) -> None:
    """Run the stage in this process; prints the peak in bytes at the end."""
    job = params(
        {
            "augment.copies": 0,
            "finetune.head_epochs": 1,
            "finetune.epochs": 1,
            "finetune.batch_size": 32,
            "cache.memory_gb": memory,
            "cache.mode": mode,
        }
    )
    print(finetune.run(job), file=sys.stderr)
    status = Path("/proc/self/status").read_text(encoding="ascii")
    print(1024 * int(re.search(r"VmHWM:\s+(\d+)", status)[1]))


def main() -> None:
    rows = []
    for count, memory, mode in (
        (300, 0.25, "always"),
        (30_000, 0.25, "always"),
        (30_000, 8.0, "always"),
    ):
        with workspace():
            write(Path("data/prepared/train"), count, 1)
            write(Path("data/prepared/val"), 300, 2)
            command = [sys.executable, __file__, str(memory), mode]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            peak = int(done.stdout.splitlines()[-1]) / 1e9
        rows.append([f"{count:,}", mode, f"{memory:g}", f"{peak:.2f} GB"])
        rows[-1].append(f"{peak - float(rows[0][3].split()[0]):+.2f} GB")
        print(rows[-1], flush=True)
    caption = (
        "Peak resident memory of stage `finetune`: random images of 64 px, frostnet frozen up to block4_out (66 KB of "
        "features an image, 2 GB for 30,000), one epoch of the head and one of the rest. The first row is what "
        "TensorFlow, the network and its training take by themselves; the last column is what the others need more."
    )
    show("memory", caption, ["images", "cache.mode", "cache.memory_gb", "peak", "more than the first row"], rows)


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        train(float(sys.argv[1]), sys.argv[2])
