"""`frostline features`: the output of a backbone's layer for the prepared images, as a table for other tools."""

from __future__ import annotations

from pathlib import Path

from frostline import paths
from frostline.core import atomic
from frostline.core.executors import Executor
from frostline.data import shards
from frostline.errors import DataError, UserError
from frostline.features import store
from frostline.models import backbones, backend
from frostline.params.schema import Params
from frostline.tracking import model_uris

SPLITS = ("train", "val", "test")


def run(params: Params, layer: str, split: str, out: Path, executor: Executor | None = None) -> str:
    """Write the vectors of one split, or of `all`, to a Parquet file. Returns a line that describes it.

    executor: where vectors that go through the store are computed, None for this process.

    Raises UserError for another kind of file or an unknown split, ParamsError if the layer does not exist or its
    vectors are too long, and DataError if there are no prepared images.
    """
    if out.suffix != ".parquet":
        raise UserError(f"--out: {out} is not the name of a Parquet file; give one that ends in .parquet")
    if out.is_dir():
        raise UserError(f"--out: {out} is a folder; give the name of a file")
    if split not in {"all", *SPLITS}:
        raise UserError(f"--split: {split} is unknown; use one of all, {', '.join(SPLITS)}")
    settings, locate = params.backbone, model_uris.locator(params.tracking)
    backbones.check(settings.name, locate(settings.weights), params.data.image_size, settings.alpha)
    features = store.opened(params.cache, executor)
    names = SPLITS if split == "all" else (split,)
    images = {name: shards.open_folder(paths.PREPARED / name, features.memory) for name in names}
    images = {name: each for name, each in images.items() if len(each)}
    if not images:
        raise DataError(f"{paths.PREPARED}: split {split} has no image; give another --split")
    with backend.quiet():
        from frostline.features import extraction

    size, pooling = next(iter(images.values())).layout.image_size, params.head.pooling
    backbone = backbones.of_section(settings, locate, size)
    extractor = extraction.extractor(backbone, layer, pooling)
    about = {**settings.model_dump(), "layer": layer, "pooling": pooling, "image_size": size}
    source = None if params.cache.mode == "never" else features
    with atomic.file(out) as path:
        vectors = {name: extractor.rows(each, source) for name, each in images.items()}
        rows = extraction.write(path, vectors, images, about)
    return f"features: {rows:,} images, {extractor.width:,} numbers each, of {layer} of {settings.name}: {out}"
