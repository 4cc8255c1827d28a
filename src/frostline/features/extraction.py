"""Feature extraction: the output of any layer of a backbone, as one vector for each image."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from frostline.core import progress, suggest
from frostline.data.images import Pixels
from frostline.data.shards import Rows, Shards
from frostline.errors import ParamsError
from frostline.features import prefix
from frostline.features.prefix import IMAGES, ComputedRows, Prefix, StoredRows
from frostline.features.store import Store
from frostline.models import backend, heads, vision_transformer
from frostline.models.backbones import Backbone
from frostline.models.heads import Head

WIDEST = 20_000  # columns; tools that read tables fail with more
GROUP_BYTES = 64 * 2**20  # of a row group of Parquet, which must fit in memory


@dataclass(frozen=True)
class Extractor:
    """Gives the vectors of one layer for images, in inference mode. layer: the name of the layer."""

    layer: str
    _prefix: Prefix

    @property
    def width(self) -> int:
        """The length of a vector."""
        return int(np.prod(self._prefix.stops[0].entry.shape))

    def vectors(self, images: Pixels) -> NDArray[np.float32]:
        """The vectors of prepared images, uint8 (n, size, size, 3): float32 (n, width)."""
        return np.asarray(self._prefix.run(IMAGES, 0, images), np.float32)

    def rows(self, images: Shards, store: Store | None) -> Rows:
        """The vectors of images, float32 (n, width).

        They come from the store, which is filled at the first use. Without a store they are computed for each draw.
        """
        computed = ComputedRows(self._prefix, IMAGES, 0, images)
        if store is None:
            return computed
        return StoredRows(store, self._prefix.stops[0].entry, images.identities, computed, keep=True)


def extractor(backbone: Backbone, layer: str, pooling: str) -> Extractor:
    """The extractor of a layer, or operation such as a sum, by its name.

    pooling: of feature maps, a value of `head.pooling`; vectors are not pooled. The body is cut behind the layer, so
    that any layer is a cut point and only its pooled vector is stored. The vector of the body's last layer is the one
    that training stores as well. Raises ParamsError if no layer has that name, and if a vector has more than 20,000
    numbers.
    """
    body = backbone.model
    operations = {each.name: each for each in body.operations if not isinstance(each, keras.layers.InputLayer)}
    if layer not in operations:
        hint = suggest.hint(layer, operations, cutoff=0.0)
        raise ParamsError(f"--layer: {layer!r} is not a layer of {body.name}; {hint}")
    cut = keras.Model(body.input, operations[layer].output, name=body.name)
    shape = cut.output.shape[1:]
    # Tensors inside of a block are neither a feature map nor tokens.
    way = pooling if len(shape) in (2, 3) else "flatten"
    pool = heads.pool(shape, way, vision_transformer.leading_tokens(cut))
    width = int(np.prod(pool.compute_output_shape((None, *shape))[1:]))
    if width > WIDEST:
        raise ParamsError(
            f"params.yaml: head.pooling {pooling} makes {width:,} columns of {layer}, and a table may have {WIDEST:,}; "
            "set head.pooling to avg or max, or name a deeper --layer"
        )
    part = Backbone(backbone.name, cut, backbone.preprocess, backbone.pretrained)
    head = Head(pool, keras.Sequential(name="head"), width)
    source = prefix.FeatureSource(part, head)
    return Extractor(layer, Prefix(source, source.stops("float32")[-1:]))


def write(path: Path, vectors: Mapping[str, Rows], splits: Mapping[str, Shards], about: Mapping[str, Any]) -> int:
    """Write a Parquet table of the vectors; returns the number of rows.

    vectors, splits: by the names of the splits. Columns: path, label (the class's name), split, and f0, f1, ... in
    float32. about: what pandas shows as `attrs` of the table. The table is written row group by row group, to save
    memory.
    """
    import pyarrow as pa
    from pyarrow import parquet

    first = next(iter(vectors.values())).take(np.arange(1))
    names = [f"f{number}" for number in range(first.shape[1])]
    texts = ["path", "label", "split"]
    fields = [*(pa.field(name, pa.string()) for name in texts), *(pa.field(name, pa.float32()) for name in names)]
    schema = pa.schema(fields, {"PANDAS_ATTRS": json.dumps(dict(about), ensure_ascii=False)})
    total = sum(map(len, splits.values()))
    batch = backend.batch_rows()
    per_group = max(batch, GROUP_BYTES // (4 * len(names)) // batch * batch)
    names_of_files = {split: each.index["path"] for split, each in splits.items()}
    written = 0
    with parquet.ParquetWriter(path, schema, use_dictionary=texts) as writer:
        for split, chunk, numbers in _chunks(vectors, total, per_group, batch):
            files = names_of_files[split].iloc[chunk]
            labels = np.asarray(splits[split].layout.classes, object)[splits[split].labels[chunk]]
            columns = [pa.array(files, pa.string()), pa.array(labels, pa.string())]
            columns += [pa.repeat(pa.scalar(split), len(files)), *map(pa.array, numbers)]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema), row_group_size=per_group)
            written += len(files)
    return written


def _chunks(
    vectors: Mapping[str, Rows], total: int, per_group: int, batch: int
) -> Iterator[tuple[str, slice, NDArray[np.float32]]]:
    """For each row group: the split, the rows in the split, and the columns, float32 (width, rows)."""

    def batches() -> Iterator[tuple[str, int, NDArray[np.float32]]]:
        for split, rows in vectors.items():
            for start in range(0, len(rows), batch):
                yield split, start, rows.take(np.arange(start, min(start + batch, len(rows))))

    vectors_of_group: list[NDArray[np.float32]] = []
    group_start = 0
    for split, start, numbers in progress.track(batches(), total, "features", batch):
        group_start = group_start if vectors_of_group else start
        vectors_of_group.append(numbers)
        end = start + len(numbers)
        if end - group_start >= per_group or end == len(vectors[split]):
            yield split, slice(group_start, end), np.ascontiguousarray(np.concatenate(vectors_of_group).T, np.float32)
            vectors_of_group = []
