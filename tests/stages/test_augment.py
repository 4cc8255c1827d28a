"""The stage augment, in its own project folder."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import make_params
from PIL import Image

from frostline import paths
from frostline.core import digest
from frostline.data import augmentation, shards
from frostline.errors import DataError
from frostline.params.schema import Params
from frostline.stages import augment

SIZE = 12


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def params(**settings: Any) -> Params:
    changes = {"copies": 3, "horizontal_flip": True} | settings
    return make_params(**{f"augment__{key}": value for key, value in changes.items()})


def prepare(count: int, size: int = SIZE) -> shards.Shards:
    """A prepared training split. Its first images are the same for every count."""
    folder = paths.PREPARED / "train"
    folder.mkdir(parents=True, exist_ok=True)
    images = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    index = pd.DataFrame(
        {
            "path": [f"{i}.png" for i in range(count)],
            "label": [i % 2 for i in range(count)],
            "sha256": [digest.of_array(image) for image in images],
        }
    )
    return shards.write(folder, shards.Layout(("ant", "bee"), size, "stretch"), index, images)


def variants() -> list[shards.Shards]:
    return [shards.open_folder(folder) for folder in sorted(paths.AUGMENTED.iterdir())]


def pixels(split: shards.Shards) -> Any:
    return split.take(np.arange(len(split)))


def test_every_training_image_has_the_given_number_of_variants() -> None:
    train = prepare(70)  # more images than are read at once
    text = augment.run(params())
    assert text.startswith("augment: 3 variants of 70 training images")
    stored = variants()
    assert [shard.folder.name for shard in stored] == ["variant-00001", "variant-00002", "variant-00003"]
    policy = augmentation.Policy.of(params().augment)
    for number, variant in enumerate(stored, 1):
        assert variant.layout == train.layout
        names = ["path", "label", "sha256", "together"]
        pd.testing.assert_frame_equal(variant.index.frame(names), train.index.frame(names))
        for row in (0, 63, 64, 69):
            draw = augmentation.draw(policy, train.index["sha256"][row], number, params().seed)
            expected = augmentation.apply(pixels(train)[row], draw, policy.fill_mode)
            np.testing.assert_array_equal(pixels(variant)[row], expected)
    assert len({shard.digest for shard in [train, *stored]}) == 4


def test_a_variant_has_its_own_digest() -> None:
    train = prepare(6)
    augment.run(params())
    digests = set(train.index["digest"])
    for variant in variants():
        assert list(variant.index["digest"]) == [
            hashlib.sha256(image.tobytes()).hexdigest() for image in pixels(variant)
        ]
        assert variant.index["sha256"].tolist() == train.index["sha256"].tolist()
        assert digests.isdisjoint(variant.index["digest"])


def test_two_runs_give_identical_bytes() -> None:
    prepare(10)
    digests = []
    for _ in range(2):
        augment.run(params())
        digests.append((digest.of_folder(paths.AUGMENTED), digest.of_file(paths.CONTACT_SHEET)))
    assert digests[0] == digests[1]


def test_a_variant_depends_neither_on_other_images_nor_on_the_number_of_copies() -> None:
    prepare(6)
    augment.run(params())
    before = [pixels(variant) for variant in variants()]
    prepare(9)
    augment.run(params(copies=4))
    after = [pixels(variant)[:6] for variant in variants()]
    assert len(after) == 4
    np.testing.assert_array_equal(np.stack(before), np.stack(after[:3]))


def test_another_seed_makes_other_variants() -> None:
    prepare(4)
    augment.run(params())
    before = digest.of_folder(paths.AUGMENTED)
    augment.run(params().model_copy(update={"seed": 8}))
    assert digest.of_folder(paths.AUGMENTED) != before


def test_without_variants_the_folder_is_empty_and_the_sheet_shows_originals() -> None:
    prepare(4)
    augment.run(params(copies=2))
    augment.run(params(copies=0))
    assert list(paths.AUGMENTED.iterdir()) == []
    with Image.open(paths.CONTACT_SHEET) as sheet:
        assert sheet.width < sheet.height
        assert sheet.format == "PNG"


def test_an_error_names_the_missing_stage() -> None:
    with pytest.raises(DataError, match=r"data/prepared/train: holds no prepared images .*dvc repro"):
        augment.run(params())
    assert not paths.AUGMENTED.exists()
