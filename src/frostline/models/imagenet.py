"""Whether Keras can get the ImageNet weights of a backbone, found out in seconds, without loading Keras."""

from __future__ import annotations

import os
import re
import urllib.error
import urllib.request
from pathlib import Path

from frostline.errors import WeightsError

ORIGIN = "https://storage.googleapis.com/tensorflow/keras-applications/"  # BASE_WEIGHTS_PATH of keras.applications
PATIENCE = 5  # seconds to wait for an answer


def require(name: str) -> None:
    """Raise WeightsError if the weights of a Keras application are neither in Keras's cache nor can be downloaded."""
    cache = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "models"
    if _is_cached(cache, name):
        return
    try:
        urllib.request.urlopen(urllib.request.Request(ORIGIN, method="HEAD"), timeout=PATIENCE).close()
    except urllib.error.HTTPError as error:
        if error.code < 500 and error.code != 407:  # the server answers; the address is that of a folder
            return
        reason = str(error)
    except OSError as error:
        reason = str(getattr(error, "reason", None) or error)
    else:
        return
    raise WeightsError(
        f"{name}'s ImageNet weights are not in {cache} and can't be downloaded ({reason}); connect once, or set "
        "backbone.weights to a *_notop.h5 file"
    )


def _is_cached(cache: Path, name: str) -> bool:
    """Whether a file without the top is there. The files have the name of the backbone in several spellings."""
    wanted = re.compile(rf"(weights)?{name.lower()}(?!v\d).*notop")
    files = cache.glob("*.h5") if cache.is_dir() else ()
    return any(wanted.match(re.sub(r"[^a-z0-9]", "", file.name.lower())) for file in files)
