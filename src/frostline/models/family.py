"""What a family of backbones is: one way to build bodies, and one place where their weights come from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from frostline.models import account, weights
from frostline.models.made_from import LoadedWeights

if TYPE_CHECKING:
    import keras

# Where ImageNet weights are: in a package that is installed, in Keras's cache, or only on a server.
Whereabouts = Literal["installed", "cached", "download"]


@dataclass(frozen=True)
class Family:
    """What the rows of one family share.

    keywords: what `backbone.weights` can be besides `none` and a path.
    build: (name, keyword or `none`, side of an image in pixels, width or None) -> the body, a functional model without
    classification layers. It raises WeightsError if it can't get the weights, ParamsError for a width that can't be.
    load: (body, name, path) sets the weights of a body from a file or a folder. It returns None if all layers were set,
    and raises the errors of `weights.load`.
    require: raises WeightsError if `build` could not get the weights of a name. It does not load Keras.
    whereabouts: where the ImageNet weights of a name are, None if there are none. It does not load Keras.
    """

    keywords: tuple[str, ...]
    build: Callable[[str, str, int, float | None], keras.Model]
    load: Callable[[keras.Model, str, Path], LoadedWeights | None] = weights.load
    require: Callable[[str], None] = lambda name: None
    whereabouts: Callable[[str], Whereabouts | None] = lambda name: None


def reason(error: Exception) -> str:
    """The first line of an error that a library raised, short enough to be part of a message of ours."""
    return account.first_line(error).strip()[:160].rstrip(" .")
