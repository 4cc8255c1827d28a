"""Stage `augment`: seeded variants of the training split, and a contact sheet of what they look like."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from frostline import paths
from frostline.core import atomic, machine, progress
from frostline.data import augmentation, shards
from frostline.data.augmentation import Policy
from frostline.params.schema import Params

SHEET_ROWS, SHEET_VARIANTS = 8, 7
SHEET_SIDE = 256  # pictures of twice that side and more are thinned out on the sheet


def run(params: Params) -> str:
    """Make the variants; one line that says what came out."""
    settings = params.augment
    train = shards.open_folder(paths.PREPARED / "train")
    with atomic.folder(paths.AUGMENTED) as folder:
        policy = write(params, train, folder)
        with atomic.file(paths.CONTACT_SHEET) as sheet:
            shown = SHEET_VARIANTS if settings.mode == "live" else min(settings.copies, SHEET_VARIANTS)
            _contact_sheet(train, policy, range(1, shown + 1), params.seed).save(sheet, format="PNG")
    if settings.mode == "live":
        return f"augment: nothing to store, variants are drawn live; {paths.CONTACT_SHEET} shows what they look like"
    return f"augment: {settings.copies} variants of {len(train)} training images; look at {paths.CONTACT_SHEET}"


def write(params: Params, train: shards.Shards, folder: Path) -> Policy:
    """Make the variants of the training split in an empty folder; by which policy."""
    policy = Policy.of(params.augment)
    for variant in range(1, (params.augment.copies if params.augment.stored else 0) + 1):
        (folder / f"variant-{variant:05d}").mkdir()
        made = progress.track(_variants(train, policy, variant, params.seed), len(train), f"augment {variant}")
        shards.write(folder / f"variant-{variant:05d}", train.layout, train.index, made)
    return policy


def _variants(train: shards.Shards, policy: Policy, variant: int, seed: int) -> Iterator[NDArray[np.uint8]]:
    """One variant of every training image, in the order of the shards."""
    digests = train.index["sha256"].tolist()

    def make(row: int, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        drawn = augmentation.draw(policy, digests[row], variant, seed)
        return augmentation.apply(pixels, drawn, policy.fill_mode)

    with ThreadPoolExecutor(machine.cores()) as pool:  # SciPy lets go of the interpreter lock
        for start in range(0, len(train), 64):
            rows = np.arange(start, min(start + 64, len(train)))
            yield from pool.map(make, rows.tolist(), train.take(rows))


def _contact_sheet(train: shards.Shards, policy: Policy, variants: range, seed: int) -> Image.Image:
    """A row an image, spread over the classes: the original first, then its variants."""
    rows = np.argsort(train.labels, kind="stable")
    rows = rows[np.linspace(0, len(rows) - 1, min(SHEET_ROWS, len(rows))).astype(int)]
    step = max(1, train.layout.image_size // SHEET_SIDE)
    lines = []
    for row, pixels in zip(rows, train.take(rows), strict=True):
        drawn = [augmentation.draw(policy, train.index["sha256"].iat[row], v, seed) for v in variants]
        made = [pixels, *(augmentation.apply(pixels, d, policy.fill_mode) for d in drawn)]
        line = [picture[::step, ::step] for picture in made]
        lines.append(np.concatenate([np.pad(p, ((2, 2), (2, 2), (0, 0)), constant_values=255) for p in line], axis=1))
    sheet = Image.fromarray(np.concatenate(lines))
    scale = max(1, round(96 / train.layout.image_size))
    return sheet.resize((sheet.width * scale, sheet.height * scale), Image.Resampling.NEAREST)
