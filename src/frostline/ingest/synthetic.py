"""Formula-driven images: what the embedded backbone is pretrained on, and test data without a download.

Two families, each image a pure function of (seed, class, instance):

- fractals of iterated function systems, after FractalDB (Kataoka et al., "Pre-training without Natural Images",
  ACCV 2020), with the singular values of the maps drawn so that every system contracts (Anderson and Farrell,
  "Improving Fractal Pre-training", WACV 2022);
- letters (Latin, Greek, Cyrillic; no digits) in the fonts that matplotlib ships, bent, thickened and blurred.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from frostline.data.images import Pixels

LATIN = "ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghijmnqrty"
GREEK = "ΓΔΘΛΞΠΣΦΨΩαβγδεζηθλμξπρστφχψω"
CYRILLIC = "БДЖЗИЛФЦЧШЩЫЭЮЯ"
LETTERS = LATIN + GREEK + CYRILLIC

FONTS = (
    "DejaVuSans.ttf",
    "DejaVuSans-Bold.ttf",
    "DejaVuSans-Oblique.ttf",
    "DejaVuSansMono.ttf",
    "DejaVuSerif.ttf",
    "DejaVuSerif-Italic.ttf",
    "DejaVuSerif-Bold.ttf",
    "STIXGeneral.ttf",
    "STIXGeneralItalic.ttf",
    "STIXGeneralBol.ttf",
)


@dataclass(frozen=True)
class Synthetic:
    """What to generate.

    fractals: number of fractal classes; letters: number of letter classes (at most `len(LETTERS)`);
    size: side in pixels; seed: any integer. Two equal objects give equal images.
    """

    fractals: int
    letters: int
    size: int
    seed: int

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, fractals first, in label order."""
        letters = (f"letter-{ord(c):04x}" for c in LETTERS[: self.letters])
        return (*(f"fractal-{i:04d}" for i in range(self.fractals)), *letters)

    def image(self, label: int, instance: int) -> Pixels:
        """The image of one class, uint8 of shape (size, size, 3)."""
        rng = np.random.default_rng([self.seed, label, instance])
        if label < self.fractals:
            mask = _fractal(_system(self.seed, label), self.size, rng)
        else:
            mask = _letter(LETTERS[label - self.fractals], self.size, rng)
        return _paint(mask, rng)


@cache
def _system(seed: int, label: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The iterated function system of a class: maps (n, 2, 2) and offsets (n, 2), with a shape that fills its box.

    Systems that draw little more than a few dots are drawn again, as FractalDB does (filling rate at least 0.15).
    """
    rng = np.random.default_rng([seed, label])
    while True:
        n = int(rng.integers(2, 7))
        turn, back = rng.uniform(-np.pi, np.pi, (2, n))
        singular = np.sort(rng.uniform(0.2, 0.85, (n, 2)), axis=1)[:, ::-1] * rng.choice([-1.0, 1.0], (n, 2))
        maps = _rotation(turn) @ (singular[:, :, None] * _rotation(back))
        offsets = rng.uniform(-1, 1, (n, 2))
        if (_fractal((maps, offsets), 32, np.random.default_rng(0)) > 0).mean() >= 0.15:
            return maps, offsets


def _rotation(angle: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotation matrices (n, 2, 2) for angles (n,) in radians."""
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([np.stack([c, -s], -1), np.stack([s, c], -1)], -2)


def _fractal(
    system: tuple[NDArray[np.float64], NDArray[np.float64]], size: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Play the chaos game with many walkers at once; the density of visits, float32 in [0, 1], (size, size)."""
    maps, offsets = system
    maps = maps * rng.uniform(0.85, 1.1, maps.shape)  # the instance: every coefficient of the class a little off
    weight = np.abs(np.linalg.det(maps)) + 0.01
    walkers, warm_up, steps = 1500, 12, 36
    choice = rng.choice(len(maps), (steps, walkers), p=weight / weight.sum())
    points = np.zeros((walkers, 2))
    visits = np.empty((steps - warm_up, walkers, 2))
    for step, which in enumerate(choice):
        points = np.einsum("wij,wj->wi", maps[which], points) + offsets[which]
        if step >= warm_up:
            visits[step - warm_up] = points
    cloud = visits.reshape(-1, 2)
    cloud = cloud[np.isfinite(cloud).all(axis=1)] @ _rotation(rng.uniform(-0.4, 0.4, 1))[0]
    low, high = np.quantile(cloud, [0.005, 0.995], axis=0)
    scale = max(float((high - low).max()), 1e-6)
    place = (cloud - (low + high) / 2) / scale * rng.uniform(0.65, 1.0) + 0.5 + rng.uniform(-0.08, 0.08, 2)
    hits, _, _ = np.histogram2d(place[:, 1], place[:, 0], bins=size, range=[[0, 1], [0, 1]])
    return np.minimum(np.log1p(hits) / np.log(8.0), 1.0).astype(np.float32)


@cache
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    spec = find_spec("matplotlib")
    assert spec is not None
    assert spec.origin is not None
    return ImageFont.truetype(Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / name, size)


def _letter(char: str, size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """A letter bent by a random affine and a smooth random field; float32 in [0, 1], (size, size)."""
    from scipy.ndimage import map_coordinates, zoom

    big = 2 * size
    page = Image.new("L", (big, big), 0)
    font = _font(str(rng.choice(FONTS)), big * 5 // 8)
    stroke = int(rng.integers(0, max(2, size // 16)))
    ImageDraw.Draw(page).text((big / 2, big / 2), char, fill=255, font=font, anchor="mm", stroke_width=stroke)
    box = page.getbbox()
    if box is not None:  # fill the frame, so that a full stop of a letter is no smaller than a capital
        page = page.crop(box)
    height, width = page.height, page.width
    # Output pixel -> position on the letter, in units of its longer side.
    grid = (np.mgrid[0:size, 0:size].astype(np.float64) + 0.5) / size - 0.5
    angle, shear = rng.normal(0, 0.16), rng.normal(0, 0.18)
    stretch = rng.uniform(0.85, 1.2, 2) / rng.uniform(0.62, 0.95)
    turn = _rotation(np.array([angle]))[0] @ np.array([[1.0, shear], [0.0, 1.0]]) @ np.diag(stretch)
    y, x = np.tensordot(turn, grid, axes=1) + rng.uniform(-0.07, 0.07, (2, 1, 1))
    field = zoom(rng.normal(0, rng.uniform(0, 0.055), (2, 5, 5)), (1, size / 5, size / 5), order=3)
    longer = max(height, width)
    at = np.stack([(y + field[0]) * longer + height / 2, (x + field[1]) * longer + width / 2])
    soft = np.asarray(page.filter(ImageFilter.GaussianBlur(1.2)), np.float32) / 255
    mask: NDArray[np.float32] = map_coordinates(soft, at, order=1, mode="constant")
    return mask


def _paint(mask: NDArray[np.float32], rng: np.random.Generator) -> Pixels:
    """Turn a mask into a colour image: coarsen, shade, choose two colours, add noise."""
    size = mask.shape[0]
    if rng.random() < 0.6:  # the look of a small image enlarged: from an eighth of the side up
        side = int(rng.integers(size // 8, size))
        small = Image.fromarray((mask * 255).astype(np.uint8)).resize((side, side), Image.Resampling.BOX)
        mask = np.asarray(small.resize((size, size), Image.Resampling.BILINEAR), np.float32) / np.float32(255)
    mask = np.power(mask, rng.uniform(0.6, 1.6), dtype=np.float32)
    if rng.random() < 0.5:  # grey on grey
        ink, paper = np.repeat(rng.uniform(0, 255, (2, 1)), 3, axis=1)
    else:
        ink, paper = rng.uniform(0, 255, (2, 3))
    if np.abs(ink - paper).max() < 90:
        ink = np.where(paper < 128, 255.0, 0.0)
    ramp = np.linspace(-1, 1, size)[:, None, None] * rng.uniform(-25, 25, 3)
    image = paper + ramp + mask[..., None] * (ink - paper) + rng.normal(0, rng.uniform(0, 12), (size, size, 3))
    return np.clip(image, 0, 255).astype(np.uint8)
