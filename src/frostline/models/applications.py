"""The classifiers of keras.applications as backbones. Their ImageNet weights are downloaded by Keras, once."""

from __future__ import annotations

import os
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from frostline.errors import ParamsError, WeightsError
from frostline.models.family import Family, Whereabouts, reason, why_unreachable

if TYPE_CHECKING:
    import keras

ORIGIN = "https://storage.googleapis.com/tensorflow/keras-applications/"  # BASE_WEIGHTS_PATH of keras.applications


def build(name: str, weights: str, size: int, alpha: float | None) -> keras.Model:
    """A Keras application without its top. weights: `imagenet` or `none`."""
    import keras

    from frostline.models import keras_internals

    constructor = partial(getattr(keras.applications, name), include_top=False, input_shape=(size, size, 3))
    if alpha is not None:
        constructor = partial(constructor, alpha=alpha)
    with keras_internals.names_from_one():
        if weights == "none":
            try:
                return constructor(weights=None)
            except ValueError as error:  # a layer without channels
                if alpha is None:
                    raise
                raise ParamsError(
                    f"params.yaml: backbone.alpha {alpha:g} is not a width of {name} ({reason(error)}); "
                    "use a larger one"
                ) from error
        try:
            return constructor(weights=weights)
        except Exception as error:  # keras.utils.get_file raises a bare Exception if the download fails
            raise WeightsError(
                f"{name}'s ImageNet weights are not available ({reason(error)}); connect once, "
                "or set backbone.weights to a *_notop.h5 file"
            ) from error


def require(name: str) -> None:
    """Raise WeightsError if the weights are neither in Keras's cache nor can be downloaded."""
    cache = _cache()
    if _is_cached(cache, name):
        return
    if (why := why_unreachable(ORIGIN)) is None:
        return
    raise WeightsError(
        f"{name}'s ImageNet weights are not in {cache} and can't be downloaded ({why}); connect once, or set "
        "backbone.weights to a *_notop.h5 file"
    )


def whereabouts(name: str) -> Whereabouts:
    """Whether the weights are in Keras's cache. Those of another image size or width count too."""
    return "cached" if _is_cached(_cache(), name) else "download"


def _cache() -> Path:
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "models"


def _is_cached(cache: Path, name: str) -> bool:
    """Whether a file without the top is there. The files have the name of the backbone in several spellings."""
    wanted = re.compile(rf"(weights)?{name.lower()}(?!v\d).*notop")
    files = cache.glob("*.h5") if cache.is_dir() else ()
    return any(wanted.match(re.sub(r"[^a-z0-9]", "", file.name.lower())) for file in files)


FAMILY = Family(("imagenet",), build, require=require, whereabouts=whereabouts)
