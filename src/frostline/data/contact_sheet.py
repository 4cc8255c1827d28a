"""The contact sheet of `augment`: training images beside their variants, with labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from frostline.core import fonts, labels
from frostline.data import augmentation, shards
from frostline.data.images import Pixels
from frostline.params.schema import AugmentSection

ROWS, VARIANTS = 8, 7  # at most
LEAST_SIDE = 96  # pixels on the sheet; smaller images are enlarged
LARGEST_SIDE = 256  # images of twice this side or more are reduced
GAP = 4  # pixels
LINES = 7  # of text, as high as an image: the text keeps its share of the sheet, which viewers scale to the screen
INK = (31, 41, 51)


def draw(settings: AugmentSection, train: shards.Shards, seed: int) -> Image.Image:
    """A sheet with one row for each of a few images from all classes: the class, the original, its variants."""
    variants = range(1, 1 + (VARIANTS if settings.mode == "live" else min(settings.copies, VARIANTS)))
    order = np.argsort(train.labels, kind="stable")
    rows = order[np.linspace(0, len(order) - 1, min(ROWS, len(order))).astype(int)]
    function = augmentation.own(settings)
    lines = []
    digests = train.index["sha256"].iloc[rows]
    for sha256, pixels in zip(digests, train.take(rows), strict=True):
        varied = (augmentation.variant(pixels, settings, function, sha256, number, seed) for number in variants)
        lines.append([pixels, *varied])
    names = labels.labels(train.layout.classes)
    columns = ["original", *(f"variant {number}" for number in variants)]
    return _with_labels(lines, [names[train.labels[row]] for row in rows], columns)


def _with_labels(lines: list[list[Pixels]], names: list[str], columns: list[str]) -> Image.Image:
    """A grid of images, one list for each line, with the names on the left and the columns above."""
    size = len(lines[0][0])
    step, scale = max(1, size // LARGEST_SIDE), -(-LEAST_SIDE // size)
    side = len(range(0, size, step)) * scale
    height = side // LINES
    left = max(_width(name, height) for name in names) + 4 * GAP
    top = 2 * height
    cell = side + GAP
    sheet = Image.new("RGB", (left + cell * len(columns), top + cell * len(lines)), "white")
    for number, column in enumerate(columns):
        _write(sheet, (left + cell * number, top // 2), column, height)
    for row, (line, name) in enumerate(zip(lines, names, strict=True)):
        _write(sheet, (left - 2 * GAP - _width(name, height), top + cell * row + side // 2), name, height)
        for number, pixels in enumerate(line):
            image = Image.fromarray(np.ascontiguousarray(pixels[::step, ::step]))
            image = image.resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(image, (left + cell * number, top + cell * row))
    return sheet


def _write(sheet: Image.Image, place: tuple[int, int], text: str, height: int) -> None:
    """Write a text that begins at a place (x, y), with y in the middle of the line."""
    x, y = place
    for path, run in fonts.installed().runs(text):
        font = _font(path, run, height)
        ImageDraw.Draw(sheet).text((x, y), run, fill=INK, font=font, anchor="lm")
        x += int(font.getlength(run))


def _width(text: str, height: int) -> int:
    return sum(int(_font(path, run, height).getlength(run)) for path, run in fonts.installed().runs(text))


def _font(path: Path, run: str, height: int) -> ImageFont.FreeTypeFont:
    """A font that writes the same pixels on every machine where that is possible: the layout of scripts that join their
    letters depends on a library that a machine may have or not."""
    return ImageFont.truetype(path, height, layout_engine=ImageFont.Layout.BASIC if run.isascii() else None)
