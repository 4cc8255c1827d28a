"""`frostline features`: what a layer of the backbone makes of the prepared images, as a table for other tools."""

from __future__ import annotations

from pathlib import Path

from frostline import paths
from frostline.core import atomic
from frostline.data import shards
from frostline.errors import DataError, UserError
from frostline.features import store
from frostline.models import backbones, backend
from frostline.params.schema import Params
from frostline.tracking import model_uris

SPLITS = ("train", "val", "test")


def run(params: Params, layer: str, split: str, out: Path) -> str:
    """Write the vectors of one split, or of `all`, into a Parquet file; a line that says what is in it.

    Raises UserError for another kind of file or an unknown split, ParamsError for a layer that is not there, or whose
    vectors are too long, and DataError where nothing is prepared.
    """
    if out.suffix != ".parquet":
        raise UserError(f"--out: {out} would be no Parquet file; name one that ends in .parquet")
    if out.is_dir():
        raise UserError(f"--out: {out} is a folder; name a file")
    if split not in {"all", *SPLITS}:
        raise UserError(f"--split: {split} is unknown; use one of all, {', '.join(SPLITS)}")
    named, locate = params.backbone, model_uris.locator(params.tracking)
    backbones.check(named.name, locate(named.weights), params.data.image_size, named.alpha)
    kept = store.opened(params.cache)
    wanted = SPLITS if split == "all" else (split,)
    images = {name: shards.open_folder(paths.PREPARED / name, kept.memory) for name in wanted}
    images = {name: each for name, each in images.items() if len(each)}
    if not images:
        raise DataError(f"{paths.PREPARED}: split {split} holds no image; name another --split")
    with backend.quiet():
        from frostline.features import extraction

    size, pooling = next(iter(images.values())).layout.image_size, params.head.pooling
    backbone = backbones.of_section(named, locate, size)
    extractor = extraction.extractor(backbone, layer, pooling)
    about = {**named.model_dump(), "layer": layer, "pooling": pooling, "image_size": size}
    source = None if params.cache.mode == "never" else kept
    with atomic.file(out) as path:
        vectors = {name: extractor.rows(each, source) for name, each in images.items()}
        rows = extraction.write(path, vectors, images, about)
    return f"features: {rows:,} images, {extractor.width:,} numbers each, of {layer} of {named.name}: {out}"
