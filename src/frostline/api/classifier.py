"""A trained classifier for notebooks and scripts: predictions, features and explanations of images in any form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from frostline import paths
from frostline.api import pages
from frostline.data import images as decoding
from frostline.data.images import Pixels
from frostline.errors import DataError, UserError
from frostline.models import account
from frostline.params.schema import TrackingSection
from frostline.params.schema import load as load_params
from frostline.serving import inputs, loading
from frostline.tracking import model_uris

if TYPE_CHECKING:
    from PIL import Image

    from frostline.evaluation.gradcam import GradCam
    from frostline.models.bundles import Bundle
    from frostline.serving.scoring import Scorer

    # The path of a file, pixels uint8 (height, width, 3), or an image of Pillow.
    Picture = str | Path | NDArray[np.uint8] | Image.Image


def load(model: str | Path) -> Classifier:
    """See `frostline.load`."""
    settings = load_params(paths.PARAMS).tracking if paths.PARAMS.is_file() else None
    settings = settings or TrackingSection(uri="auto", experiment="frostline")
    return Classifier(model_uris.bundle_folder(settings, str(model)))


class Predictions(pd.DataFrame):
    """A table of predictions, which Jupyter shows with the images. Parts of it are plain tables.

    Columns: image (the path, or the number of the image), label, probability, set (a list) and unknown if the bundle
    says them, and the probability of each class. See `scoring.Prediction`.
    """

    _metadata: ClassVar = ["pictures", "classes"]
    pictures: Sequence[Pixels] = ()
    classes: Sequence[str] = ()

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame

    def _repr_html_(self) -> str:
        return pages.predictions(self, self.pictures, self.classes)


@dataclass(frozen=True, repr=False)
class Explanation:
    """Where a classifier looks.

    image: as the network sees it, uint8 (size, size, 3); heat: float32 (size, size) in [0, 1], how much each pixel
    speaks for the label; method: how the heat was computed, None if the head allows none.
    """

    image: Pixels
    heat: NDArray[np.float32]
    label: str
    probability: float
    method: str | None

    @property
    def overlay(self) -> Image.Image:
        """The image in grey, covered by its heat from yellow to red."""
        from PIL import Image

        from frostline.evaluation import gradcam

        return Image.fromarray(gradcam.overlay(self.image[None], self.heat[None])[0])

    def __repr__(self) -> str:
        return f"Explanation of {self.label} ({self.probability:.3f}) by {self.method or 'nothing'}"

    def _repr_html_(self) -> str:
        return pages.explanation(self.image, np.asarray(self.overlay), repr(self))


class Classifier:
    """A trained classifier. Objects can be used from several threads.

    classes: names in the order of the probabilities; image_size: side of the images that the network gets, in pixels.
    """

    def __init__(self, folder: Path) -> None:
        """Load a bundle's folder. Raises DataError if it is none."""
        self.folder = folder
        self._scorer: Scorer = loading.scorer_of(folder)
        self.classes = self._scorer.classes
        self.image_size = self._scorer.image_size

    def predict(self, images: Picture | Sequence[Picture]) -> Predictions:
        """The predictions for one image or several, in their order.

        Raises DataError for an image that can't be read; it names the file or the number of the image.
        """
        pictures = _listed(images)
        pixels = self._prepared(pictures)
        found = self._scorer.predictions(pixels)
        names = [str(each) if isinstance(each, str | Path) else place for place, each in enumerate(pictures)]
        table = Predictions(
            {
                "image": names,
                "label": [each.label for each in found],
                "probability": np.array([each.probability for each in found], np.float32),
                **{name: [getattr(each, name) for each in found] for name in self._scorer.says},
                **{name: np.array([each.probabilities[name] for each in found], np.float32) for name in self.classes},
            }
        )
        table.pictures, table.classes = pixels, self.classes
        return table

    def features(self, images: Picture | Sequence[Picture], layer: str | None = None) -> NDArray[np.float32]:
        """The vector of each image at a layer of the backbone, pooled as the head does: float32 (n, width).

        layer: None for the last one, whose vector the head gets. Raises DataError for an image that can't be read, and
        ParamsError for a layer that the backbone does not have.
        """
        from frostline.features import extraction
        from frostline.models import bundles

        backbone, _ = bundles.parts(self._bundle)
        pooling = str(self._bundle.made_from.head["pooling"])
        pixels = self._prepared(_listed(images))
        extractor = extraction.extractor(backbone, layer or backbone.model.operations[-1].name, pooling)
        return extractor.vectors(np.stack(pixels)) if pixels else np.empty((0, extractor.width), np.float32)

    def explain(self, image: Picture, label: str | None = None) -> Explanation:
        """Where the classifier looks in an image. label: the class to explain, None for the predicted one.

        Raises DataError for an image that can't be read, and UserError for a label that is no class.
        """
        if label is not None and label not in self.classes:
            raise UserError(f"{label!r} is no class of {self.folder}; use one of {', '.join(self.classes)}")
        pixels = self._prepared([image])
        probabilities = self._scorer.probabilities(pixels)[0]
        number = int(probabilities.argmax()) if label is None else self.classes.index(label)
        heat = self._explainer(np.stack(pixels), np.array([number]))[0]
        method = self._explainer.method
        return Explanation(pixels[0], heat, self.classes[number], float(probabilities[number]), method)

    def __repr__(self) -> str:
        names = ", ".join(self.classes[:5]) + (", ..." if len(self.classes) > 5 else "")
        origin = account.read(self.folder).made_from.backbone
        return f"Classifier of {len(self.classes)} classes ({names}), {origin.name}, {self.image_size} pixels"

    def _repr_html_(self) -> str:
        return pages.classifier(repr(self), account.read(self.folder))

    @cached_property
    def _bundle(self) -> Bundle:
        from frostline.models import bundles

        return bundles.load(self.folder)

    @cached_property
    def _explainer(self) -> GradCam:
        from frostline.evaluation import gradcam

        return gradcam.GradCam(self._bundle)

    def _prepared(self, pictures: Sequence[Any]) -> list[Pixels]:
        return [self._prepare(picture, place) for place, picture in enumerate(pictures)]

    def _prepare(self, picture: Any, place: int) -> Pixels:
        if isinstance(picture, str | Path):
            try:
                return self._scorer.prepare(Path(picture))
            except decoding.UnreadableImageError as error:
                raise DataError(f"{picture}: {error}") from None
        try:
            pixels = np.asarray(picture.convert("RGB")) if hasattr(picture, "convert") else picture
            pixels = inputs.array(pixels, decoding.MAX_PIXELS)
        except inputs.UnusableInputError as error:
            raise DataError(f"image {place}: {error}") from None
        return decoding.resize(pixels, self.image_size, self._scorer.resize)


def _listed(images: Any) -> list[Any]:
    """Images as a list: an array of four dimensions holds several, and so does any sequence that is no path."""
    if isinstance(images, np.ndarray):
        return list(images) if images.ndim == 4 else [images]
    is_one = isinstance(images, str | Path) or hasattr(images, "convert") or not hasattr(images, "__iter__")
    return [images] if is_one else list(images)
