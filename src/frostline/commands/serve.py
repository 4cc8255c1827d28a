"""`frostline serve`: a classifier over HTTP, for programs and for a person with a browser."""

from __future__ import annotations

import sys
import threading
from collections.abc import Collection
from dataclasses import asdict, dataclass
from io import BytesIO
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from frostline.errors import UserError
from frostline.models import account
from frostline.params.schema import Params
from frostline.serving import app, guarding, inputs, listening, loading, scoring
from frostline.tracking import model_uris

if TYPE_CHECKING:
    from starlette.types import ASGIApp


@dataclass(frozen=True)
class ServerSettings:
    """How to serve.

    allow_paths: whether who asks may name files of this machine, a list of which the answers would give away;
    allow_hosts: names that requests may be sent to (the header Host). On a loopback address, which only this machine
    reaches, the loopback names are accepted besides these and nothing else, so that no web page that is open in a
    browser here can pass for the server; on any other address all names are accepted, unless some are given.
    megapixels: of one image.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    allow_paths: bool = False
    allow_hosts: tuple[str, ...] = ()
    megapixels: float = inputs.MEGAPIXELS

    @property
    def hosts(self) -> Collection[str] | None:
        """The names that are accepted; None for all. Raises UserError for what is no name."""
        given = []
        for each in self.allow_hosts:
            if (name := guarding.host_name(each)) is None:
                raise UserError(f"--allow-host {each}: is no name of a host; write it as in example.org")
            given.append(name)
        if is_loopback(self.host):
            return guarding.LOOPBACK | {self.host.lower(), *given}
        return {*given} or None

    @property
    def limits(self) -> inputs.Limits:
        """Of what is read. Raises UserError for a bound that can't be kept."""
        try:
            return inputs.Limits(inputs.pixels_of(self.megapixels), inputs.ROWS, self.allow_paths)
        except ValueError as reason:
            raise UserError(f"--max-megapixels: {reason}") from None


def run(params: Params | None, model: str, settings: ServerSettings) -> None:
    """Serve a bundle's folder or a registered model until interrupted. Raises StateError where the port is taken.

    It is this code that answers, not the model's own copy of it, as `frostline predict` does: nothing is unpacked, and
    no code of a registered model runs.
    """
    host, port = settings.host, settings.port
    hosts, limits = settings.hosts, settings.limits
    listening.require_free(host, port)
    folder = model_uris.bundle_folder(params.tracking if params else None, model)
    made = application(folder, model, hosts, limits)
    if settings.allow_paths:
        print(
            "warning: --allow-paths: who reaches this server can have any image file here classified", file=sys.stderr
        )
    with listening.listening(made, host, port) as listener:
        print(f"serve: {model} on http://{f'[{host}]' if ':' in host else host}:{port} (Ctrl-C ends it)", flush=True)
        listener.wait()
    print("serve: stopped", flush=True)


def application(
    folder: Path,
    model: str,
    hosts: Collection[str] | None,
    limits: inputs.Limits,
    bounds: app.Bounds | None = None,
) -> ASGIApp:
    """The web application of a bundle's folder, ready to answer. Raises DataError where it holds none."""
    scorer = loading.scorer_of(folder, limits)
    return app.application(scorer, about(folder, model), explainer(folder, scorer), hosts, bounds)


def explainer(folder: Path, scorer: scoring.Scorer) -> app.Explain:
    """The bytes of an image -> PNG of it, as a bundle's network sees it, under the heat map of its label.

    scorer: of the same bundle.
    """
    from frostline.evaluation import gradcam
    from frostline.models import bundles

    heat_of, one_by_one = gradcam.GradCam(bundles.load(folder)), threading.Lock()

    def explain(data: bytes) -> bytes:
        images = scorer.prepare(data)[None]
        label = scorer.probabilities(images).argmax(axis=1)
        with one_by_one:
            shown = gradcam.overlay(images, heat_of(images, label))[0]
        stream = BytesIO()
        Image.fromarray(shown).save(stream, "PNG")
        return stream.getvalue()

    return explain


def about(folder: Path, model: str) -> dict[str, Any]:
    """What GET /about says: of a folder its name alone, not where it lies."""
    name = model if model.startswith("models:/") else folder.resolve().name
    return {"model": name, **asdict(account.peek(folder).layout)}


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server on that address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
