"""What a family of backbones is: one way to build bodies, and one place where their weights come from."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from frostline.models import account, weights
from frostline.models.made_from import LoadedWeights

if TYPE_CHECKING:
    import keras

    from frostline.models.preprocessing import Preprocess

PATIENCE = 5  # seconds to wait for an answer of a server

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
    whereabouts: where the weights of a name are that were trained on large data, ImageNet's in general, None if there
    are none. It does not load Keras.
    preprocess: the preprocessing of a name; None if the row of the table says it.
    """

    keywords: tuple[str, ...]
    build: Callable[[str, str, int, float | None], keras.Model]
    load: Callable[[keras.Model, str, Path], LoadedWeights | None] = weights.load
    require: Callable[[str], None] = lambda name: None
    whereabouts: Callable[[str], Whereabouts | None] = lambda name: None
    preprocess: Callable[[str], Preprocess] | None = None


def reason(error: Exception) -> str:
    """The first line of an error that a library raised, short enough to be part of a message of ours."""
    return account.first_line(error).strip()[:160].rstrip(" .")


def why_unreachable(address: str) -> str | None:
    """Why a server does not answer; None if it does. address: of any page there, existing or not."""
    try:
        urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=PATIENCE).close()
    except urllib.error.HTTPError as error:
        if error.code < 500 and error.code != 407:  # the server answers, a proxy would say 407
            return None
        return str(error)
    except OSError as error:
        return str(getattr(error, "reason", None) or error)
    return None
