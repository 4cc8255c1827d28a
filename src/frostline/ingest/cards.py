"""Cards as sources: small YAML files that name a built-in, generated or downloaded data set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from frostline.core import plain_yaml
from frostline.data.deep_grey import GreyRange
from frostline.data.images import Pixels
from frostline.errors import DataError
from frostline.ingest import reading, synthetic
from frostline.ingest.listing import ListedImage, ListedImages, Listing
from frostline.ingest.reading import ReadImage
from frostline.params.schema import SplitSection

MOST = 10_000_000  # images of one card


@dataclass(frozen=True)
class ArrayReader:
    """Reads images from an array, uint8 (n, height, width, 3). A path ends with the number of the image."""

    pixels: Pixels

    def read(self, path: str, least: int | None, grey_range: GreyRange = None) -> ReadImage:
        """See `reading.SourceReader.read`."""
        return ReadImage.of_pixels(self._image(path))

    def coded(self, path: str) -> bytes:
        """See `reading.SourceReader.coded`."""
        return reading.as_png(self._image(path))

    def _image(self, path: str) -> Image.Image:
        return Image.fromarray(self.pixels[int(path.rpartition("/")[2])])


@dataclass(frozen=True)
class SyntheticReader:
    """Generates images when they are read. A path is the class and the number of the image."""

    images: synthetic.Synthetic

    def read(self, path: str, least: int | None, grey_range: GreyRange = None) -> ReadImage:
        """See `reading.SourceReader.read`."""
        return ReadImage.of_pixels(self._image(path))

    def coded(self, path: str) -> bytes:
        """See `reading.SourceReader.coded`."""
        return reading.as_png(self._image(path))

    def _image(self, path: str) -> Image.Image:
        label, _, number = path.rpartition("/")
        return Image.fromarray(self.images.image(self.images.classes.index(label), int(number)))


class _Card(BaseModel):
    """What every card may say: the `data.split` and `data.train_per_class` for it, if params.yaml says nothing."""

    model_config = ConfigDict(extra="forbid", strict=True)

    split: SplitSection | None = None
    train_per_class: Annotated[int, Field(ge=1)] | None = None


class DigitsCard(_Card):
    """`kind: digits`: scikit-learn's 1,797 handwritten digits (8x8, UCI Optical Recognition of Handwritten Digits)."""

    kind: Literal["digits"]

    def open(self) -> tuple[Listing, ArrayReader]:
        """The images of the card, and their reader."""
        from sklearn.datasets import load_digits

        digits = load_digits()
        grey = np.round(digits.images * (255 / 16)).astype(np.uint8)
        pixels = np.repeat(grey[..., None], 3, axis=-1)
        rows = (ListedImage(f"digits/{number:04d}", str(label)) for number, label in enumerate(digits.target))
        return Listing(ListedImages(rows)), ArrayReader(pixels)


class SyntheticCard(_Card):
    """`kind: synthetic`: fractals and letters. The unit of `size` is pixels."""

    kind: Literal["synthetic"]
    fractals: Annotated[int, Field(ge=0, le=100_000)]
    letters: Annotated[int, Field(ge=0, le=len(synthetic.LETTERS))]
    images_per_class: Annotated[int, Field(ge=1, le=1_000_000)]
    size: Annotated[int, Field(ge=8, le=4096)]
    seed: Annotated[int, Field(ge=0, lt=2**63)]

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if (self.fractals + self.letters) * self.images_per_class > MOST:
            raise ValueError(f"classes times images_per_class must not be more than {MOST:,}")
        return self

    def open(self) -> tuple[Listing, SyntheticReader]:
        """The images of the card, and their reader."""
        images = synthetic.Synthetic(self.fractals, self.letters, self.size, self.seed)
        rows = (ListedImage(f"{name}/{i:05d}", name) for name in images.classes for i in range(self.images_per_class))
        return Listing(ListedImages(rows)), SyntheticReader(images)


class KaggleCard(_Card):
    """`kind: kaggle`: a data set of kaggle.com, `owner/name`, or `owner/name/versions/3` for a fixed version."""

    kind: Literal["kaggle"]
    dataset: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+(/versions/\d+)?$")]

    def fetch(self) -> Path:
        """Download the files with kagglehub, which caches them. Returns their folder. Raises DataError on failure."""
        try:
            import kagglehub
        except ImportError:
            raise DataError(
                f"{self.dataset}: kagglehub is missing; install the extra, `pip install 'frostline[kaggle]'`"
            ) from None
        try:
            return Path(kagglehub.dataset_download(self.dataset))
        except Exception as error:  # the network, the service or its answer may fail
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DataError(
                f"{self.dataset}: can't be fetched from Kaggle ({reason}); check the name, the network, and "
                "KAGGLE_API_TOKEN or ~/.kaggle/kaggle.json"
            ) from error


Card = DigitsCard | SyntheticCard | KaggleCard

CARDS: dict[str, type[DigitsCard] | type[SyntheticCard] | type[KaggleCard]] = {
    "digits": DigitsCard,
    "synthetic": SyntheticCard,
    "kaggle": KaggleCard,
}


def load(path: Path) -> Card:
    """Read a card. Raises DataError, naming the file and the key, if it is not a valid card."""
    from ruamel.yaml.error import YAMLError

    try:
        values: Any = plain_yaml.read(path)
    except YAMLError as error:
        raise DataError(f"{path}: is not YAML; fix it") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: is not a card ({getattr(error, 'strerror', None) or error}); fix it") from error
    kind = values.get("kind") if isinstance(values, dict) else None
    if not isinstance(kind, str) or kind not in CARDS:
        raise DataError(f"{path}: kind is {repr(kind)[:40]}; use one of {', '.join(CARDS)}")
    try:
        return CARDS[kind].model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part)[:40] for part in first["loc"]) or "images_per_class"
        raise DataError(f"{path}: {key}: {first['msg'].lower()}; fix that key") from None
