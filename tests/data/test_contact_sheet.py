"""The contact sheet shows the original and its variants in a row, and says what each row and column is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import make_params, make_shards
from PIL import Image, ImageDraw, ImageFont

from frostline.core import fonts
from frostline.data import augmentation, contact_sheet
from frostline.data.augmentation import Policy

SEED = 7


def settings(**changes: Any) -> Any:
    return make_params(**{f"augment__{key}": value for key, value in changes.items()}).augment


def cut(pixels: np.ndarray) -> np.ndarray:
    """A grey image without its white margins."""
    rows, columns = np.nonzero(pixels < 200)
    return pixels[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


def written(text: str, height: int) -> np.ndarray:
    """A text in the font of the sheet."""
    page = Image.new("RGB", (height * len(text) + 9, 3 * height), "white")
    ((path, _),) = fonts.installed().runs(text)
    font = ImageFont.truetype(path, height, layout_engine=ImageFont.Layout.BASIC)
    ImageDraw.Draw(page).text((4, height), text, fill=contact_sheet.INK, font=font, anchor="lm")
    return cut(np.asarray(page.convert("L")))


class Sheet:
    """A sheet in its parts. Each cell is an image of `side` pixels."""

    def __init__(self, image: Image.Image, side: int, columns: int) -> None:
        self.pixels, self.side, self.cell = np.asarray(image), side, side + contact_sheet.GAP
        self.left = image.width - columns * self.cell
        self.top = image.height % self.cell
        self.grey = np.asarray(image.convert("L"))

    def image(self, row: int, column: int) -> np.ndarray:
        y, x = self.top + row * self.cell, self.left + column * self.cell
        return self.pixels[y : y + self.side, x : x + self.side]

    def name(self, row: int) -> np.ndarray:
        y = self.top + row * self.cell
        return cut(self.grey[y : y + self.side, : self.left])

    def head(self, column: int) -> np.ndarray:
        x = self.left + column * self.cell
        return cut(self.grey[: self.top, x : x + self.cell])


@pytest.mark.parametrize(("size", "side"), [(8, 96), (32, 96), (65, 130), (224, 224), (515, 258)])
def test_rows_are_named_by_class_and_columns_by_variant(size: int, side: int, tmp_path: Path) -> None:
    train = make_shards(tmp_path / "train", 12, size, 2, names=("ant", "bee"))
    copies = 9 if size < 100 else 1
    columns = 1 + min(copies, contact_sheet.VARIANTS)
    sheet = Sheet(contact_sheet.draw(settings(copies=copies), train, SEED), side, columns)
    height = side // contact_sheet.LINES
    for row in range(8):
        np.testing.assert_array_equal(sheet.name(row), written("ant" if row < 4 else "bee", height))
    np.testing.assert_array_equal(sheet.head(0), written("original", height))
    for variant in range(1, columns):
        np.testing.assert_array_equal(sheet.head(variant), written(f"variant {variant}", height))


def test_a_row_shows_the_original_and_its_variants(tmp_path: Path) -> None:
    train = make_shards(tmp_path / "train", 20, 32, 2)
    sheet = Sheet(contact_sheet.draw(settings(copies=2), train, SEED), 96, 3)
    policy = Policy.of(settings(copies=2))
    (original,) = train.take(np.array([0]))
    np.testing.assert_array_equal(sheet.image(0, 0)[1::3, 1::3], original)
    for variant in (1, 2):
        transform = augmentation.draw(policy, train.index["sha256"][0], variant, SEED)
        expected = augmentation.apply(original, transform, policy.fill_mode)
        np.testing.assert_array_equal(sheet.image(0, variant)[1::3, 1::3], expected)


def test_long_names_and_names_without_a_font_are_labels_too(tmp_path: Path) -> None:
    names = ("a name that is much too long for a label at the left", "\U00017000", "猫", "кошка")
    train = make_shards(tmp_path / "train", 8, 32, 4, names=names)
    sheet = Sheet(contact_sheet.draw(settings(copies=1), train, SEED), 96, 2)
    assert sheet.left < 3 * sheet.side
    assert len({sheet.name(row).tobytes() for row in range(8)}) == 4
