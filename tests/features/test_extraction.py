"""`frostline features` against the plain Keras model that ends at the layer."""

import os
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from conftest import in_process_tier, make_params, make_shards

from frostline import paths
from frostline.commands import features
from frostline.data import shards
from frostline.errors import DataError, ParamsError, UserError
from frostline.features import store
from frostline.models import backbones

COUNTS = {"train": 100, "val": 9, "test": 12}


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    for seed, (name, count) in enumerate(COUNTS.items()):
        make_shards(tmp_path / "data" / "prepared" / name, count, seed=seed)
    return tmp_path


def extract(layer="block4_out", split="all", out="out/f.parquet", **changes):
    out = Path(out)
    params = make_params(**{"data__image_size": 32, **changes})
    return params, features.run(params, layer, split, out)


def expected(layer, split, pooling):
    """By the layer's own model, pooled by NumPy."""
    backbone = backbones.build("frostnet", "builtin", 32)
    images = keras.Input((32, 32, 3), dtype="uint8")
    body = keras.Model(backbone.model.input, backbone.model.get_layer(layer).output)
    model = keras.Model(images, body(backbone.preprocess(images)))
    given = shards.open_folder(paths.PREPARED / split)
    maps = model.predict(given.take(np.arange(len(given))), verbose=0)
    return {"avg": maps.mean((1, 2)), "max": maps.max((1, 2)), "flatten": maps.reshape(len(maps), -1)}[pooling]


# A cut point, a convolution that BatchNorm follows inside a block, and the end, whose vectors training stores too.
@pytest.mark.parametrize(
    ("layer", "pooling", "mode"),
    [
        ("block4_out", "avg", "auto"),
        in_process_tier("block5_1_conv", "max", "never"),
        in_process_tier("block8_out", "flatten", "auto"),
    ],
)
def test_a_row_an_image_as_the_layer_itself_gives_it(project, layer, pooling, mode):
    params, said = extract(layer, cache__mode=mode, head__pooling=pooling)
    table = pd.read_parquet("out/f.parquet")
    assert list(table.columns[:4]) == ["path", "label", "split", "f0"]
    assert table["split"].value_counts().to_dict() == COUNTS
    assert set(table["label"]) == {"a", "b", "c"}
    assert table.attrs["layer"] == layer
    for split in COUNTS:
        rows = table[table["split"] == split].filter(regex=r"^f\d+$")
        assert set(rows.dtypes) == {np.dtype(np.float32)}
        np.testing.assert_allclose(rows.to_numpy(), expected(layer, split, pooling), atol=1e-4)
    assert "121 images" in said
    held = store.opened(params.cache).usage()
    assert sum(each.images for each in held) == (0 if mode == "never" else 121)
    before = (project / "out" / "f.parquet").read_bytes()
    extract(layer, cache__mode=mode, head__pooling=pooling)
    assert (project / "out" / "f.parquet").read_bytes() == before


def test_row_groups_are_of_bounded_size_and_in_order(project, monkeypatch):
    from pyarrow import parquet

    from frostline.features import extraction
    from frostline.models import backend

    extract(split="train")
    whole = pd.read_parquet("out/f.parquet")
    monkeypatch.setattr(extraction, "GROUP_BYTES", 1)
    extract(split="train")
    assert parquet.ParquetFile("out/f.parquet").num_row_groups == -(-COUNTS["train"] // backend.batch_rows())
    pd.testing.assert_frame_equal(pd.read_parquet("out/f.parquet"), whole)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (
            {"layer": "block4_ou"},
            ParamsError,
            r"--layer: 'block4_ou' is not a layer of frostnet; did you mean block4_out",
        ),
        ({"layer": "frostnet_input"}, ParamsError, "is not a layer of frostnet"),
        ({"layer": "block6_out", "backbone__until": "block4_out"}, ParamsError, "is not a layer of frostnet; did you"),
        ({"out": "f.csv"}, UserError, "f.csv is not the name of a Parquet file; give one that ends in .parquet"),
        ({"out": "data"}, UserError, "is not the name of a Parquet file"),
        ({"split": "training"}, UserError, "training is unknown; use one of all, train, val, test"),
        ({"layer": "stem_relu", "head__pooling": "flatten", "size": 128}, ParamsError, "head.pooling flatten makes"),
    ],
    ids=str,
)
def test_mistakes_are_one_line_and_leave_nothing(project, given, error, message):
    size = given.pop("size", 32)
    if size != 32:
        make_shards(project / "large" / "data" / "prepared" / "train", 3, size=size)
        os.chdir(project / "large")  # `project` goes back
        given = {**given, "split": "train", "data__image_size": size}
    with pytest.raises(error, match=message) as raised:
        extract(**given)
    assert "\n" not in str(raised.value)
    assert not list(project.rglob("*.parquet.part*")) + list(project.rglob("f.parquet"))


def test_nothing_prepared_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="run `dvc repro`"):
        extract()
