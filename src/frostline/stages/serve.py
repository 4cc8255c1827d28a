"""`frostline serve`: a classifier over HTTP, for programs and for a person with a browser."""

from __future__ import annotations

import json
import os
import socket
import tempfile
import threading
from contextlib import ExitStack
from io import BytesIO
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from PIL import Image

from frostline import engine, packaging, registry, scoring, serving
from frostline.errors import StateError
from frostline.params import Params


def run(params: Params | None, model: str, host: str, port: int) -> None:
    """Serve a bundle's folder or a registered model until interrupted. Raises StateError where the port is taken."""
    _require_free(host, port)
    folder = registry.bundle_folder(params.tracking if params else None, model)
    with engine.quiet():
        import keras  # noqa: F401
        import uvicorn
    with ExitStack() as stack:
        if not is_loopback(host):
            os.environ[scoring.NO_PATHS] = "1"  # who asks from elsewhere must not learn what files are here
        place = folder.parent.parent  # of the MLflow model that a registered bundle lies in
        if not model.startswith("models:/"):
            place = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "model"
            packaging.save(folder, place)
        loaded = packaging.load(place)
        explain = explainer(folder, loaded.unwrap_python_model().scorer)
        application = serving.application(loaded, about(folder, model), explain)
        print(f"serve: {model} on http://{host}:{port} (Ctrl-C ends it)", flush=True)
        uvicorn.run(application, host=host, port=port, log_level="warning")


def explainer(folder: Path, scorer: scoring.Scorer) -> serving.Explain:
    """Encoded picture -> PNG of the picture, as a bundle's network sees it, under the heat map of its label.

    scorer: of the same bundle.
    """
    from frostline import classifier, explaining

    heat_of, one_by_one = explaining.GradCam(classifier.load(folder)), threading.Lock()

    def explain(data: bytes) -> bytes:
        pictures = scorer.picture(data)[None]
        label = scorer.probabilities(pictures).argmax(axis=1)
        with one_by_one:
            shown = explaining.overlay(pictures, heat_of(pictures, label))[0]
        stream = BytesIO()
        Image.fromarray(shown).save(stream, "PNG")
        return stream.getvalue()

    return explain


def about(folder: Path, model: str) -> dict[str, Any]:
    """What GET /about says."""
    bundle = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    return {"model": model, **{key: bundle[key] for key in ("classes", "image_size", "resize")}}


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server on that address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _require_free(host: str, port: int) -> None:
    """Before anything is loaded, which takes seconds."""
    try:
        with socket.create_server((host, port)):
            pass
    except OSError as error:
        raise StateError(f"{host}:{port}: can't be listened on ({error.strerror}); choose another --port") from error
