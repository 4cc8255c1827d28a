"""Grey images with more than 8 bits: one range for the whole source, in `prepare`, in the bundle and in prediction."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import make_bundle, make_params
from PIL import Image
from pydantic import ValidationError

from frostline import paths
from frostline.data import shards
from frostline.data.deep_grey import GreyRange
from frostline.ingest import decoding
from frostline.models import account
from frostline.serving.scoring import Scorer
from frostline.stages import prepare

SIDE = 32


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def paint(low: float, high: float, dtype: type, kind: str = "tif", count: int = 20, folder: str = "scans") -> None:
    """Class folders of random ramps from `low` to `high`, a dark class and a bright one."""
    rng = np.random.default_rng(0)
    for label, (start, end) in {"dark": (0, 0.6), "light": (0.4, 1)}.items():
        place = Path(folder, label)
        place.mkdir(parents=True)
        for number in range(count):
            values = np.sort(rng.uniform(start, end, (SIDE, SIDE)), axis=None).reshape(SIDE, SIDE)
            Image.fromarray((low + values * (high - low)).astype(dtype)).save(place / f"{number}.{kind}")


def run(**data: Any) -> str:
    settings = {"source": "scans", "image_size": SIDE, "resize": "stretch", "train_per_class": None}
    settings["split"] = {"train": 0.5, "val": 0.25, "test": 0.25}
    return prepare.run(make_params(**{f"data__{key}": value for key, value in (settings | data).items()}))


def splits() -> list[shards.Shards]:
    return [shards.open_folder(paths.PREPARED / name) for name in ("train", "val", "test")]


@pytest.mark.parametrize(
    ("low", "high", "dtype", "kind"),
    [
        (0, 4095, np.uint16, "png"),
        (0, 4095, np.uint16, "tif"),
        (-1000, 3000, np.int32, "tif"),
        (-2.5, 7.5, np.float32, "tif"),
    ],
)
def test_one_range_is_measured_over_train_and_all_tones_are_kept(
    low: float, high: float, dtype: type, kind: str
) -> None:
    paint(low, high, dtype, kind)
    line = next(line for line in run().splitlines() if "more than 8 bits" in line)
    assert line.startswith("  40 grey images have more than 8 bits;")
    assert line.endswith("measured over train; data.range: [low, high] sets it")
    found = {split.layout.grey_range for split in splits()}
    (grey_range,) = found
    assert isinstance(grey_range, tuple)
    np.testing.assert_allclose(grey_range, (low, high), atol=0.01 * (high - low))
    assert json.loads(paths.DATA_REPORT.read_text())["grey_range"] == list(grey_range)
    train = splits()[0]
    pixels = train.take(np.arange(len(train)))
    assert len(np.unique(pixels)) == 256
    # The classes keep their difference in brightness, which an own range for each image would remove.
    means = [pixels[train.labels == label].mean() for label in range(2)]
    assert means[1] - means[0] > 60


@pytest.mark.parametrize("given", [None, "dtype", [-500, 2500]])
def test_prediction_sees_the_same_pixels(given: Any, tmp_path: Path) -> None:
    paint(-1000, 3000, np.int32)
    assert f"{2500 if given == [-500, 2500] else ''}" in run(range=given)
    test = splits()[2]
    bundle = make_bundle(tmp_path / "bundle", ("dark", "light"), size=SIDE)
    record = account.read(bundle)
    layout = replace(record.layout, resize="stretch", grey_range=test.layout.grey_range)
    account.write(bundle, account.Account(layout, record.made_from))
    scorer = Scorer(bundle)
    for path, expected in zip(test.index["path"], test.take(np.arange(len(test))), strict=True):
        np.testing.assert_array_equal(scorer.prepare(Path("scans", path)), expected)


def test_a_source_without_deep_images_has_no_range_and_is_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    paint(0, 255, np.uint8, "png")
    calls = 0
    decode = decoding.Decoder.all

    def counted(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        return decode(*arguments)

    monkeypatch.setattr(decoding.Decoder, "all", counted)
    assert "more than 8 bits" not in run()
    assert {split.layout.grey_range for split in splits()} == {None}
    assert "grey_range" not in (paths.PREPARED / "train" / "meta.json").read_text()
    assert calls == 1


def test_images_that_differ_in_their_lower_bits_alone_are_not_copies() -> None:
    paint(0, 90, np.uint16, "png")  # all of them black if divided by 65535
    assert "dropped" not in run(near_duplicates=False)


def test_a_range_that_is_none_is_refused() -> None:
    for wrong in ([5, 5], [1], "auto"):
        with pytest.raises(ValidationError, match="range"):
            run(range=wrong)


def test_a_range_in_a_damaged_bundle_is_refused(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", ("dark", "light"), size=SIDE)
    values = json.loads((bundle / "bundle.json").read_text())
    for wrong in ([1], "own", {"low": 1}):
        (bundle / "bundle.json").write_text(json.dumps(values | {"grey_range": wrong}))
        with pytest.raises(Exception, match="a grey_range that is not"):
            account.read(bundle)
    good: GreyRange = (0.0, 1.0)
    (bundle / "bundle.json").write_text(
        json.dumps({k: v for k, v in values.items() if k != "digest"} | {"grey_range": good})
    )
    assert account.read(bundle).layout.grey_range == good
