"""`frostline serve`: a classifier over HTTP, for programs and for browsers."""

from __future__ import annotations

import sys
import threading
from contextlib import nullcontext
from dataclasses import dataclass
from io import BytesIO
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from frostline import paths
from frostline.core import digest, machine
from frostline.errors import UserError
from frostline.models import account
from frostline.params.schema import Params
from frostline.serving import app, guarding, inputs, listening, loading, metrics, recording, scoring
from frostline.serving.bounds import MEBIBYTE, Bounds
from frostline.serving.feedback import Feedback, Kept
from frostline.serving.following import Follower
from frostline.serving.neighbours import Neighbours
from frostline.serving.served import Current, Explain, Served
from frostline.tracking import model_uris

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from frostline.models.bundles import Bundle


@dataclass(frozen=True)
class ServerSettings:
    """The settings of a server.

    allow_paths: whether clients may name files of this machine; the answers then show which files exist. allow_hosts:
    host names that requests may be sent to (the header Host), and whose pages may send them (the header Origin). On a
    loopback address, which only this machine reaches, only these and the loopback names are accepted, to stop hostile
    web pages in a browser on this machine (see `guarding.Guard`); on any other address all names are accepted, unless
    some are given. megapixels: of one image, at most; body_mb: MiB of one request, at most; requests: answered at a
    time; seconds: for the body of a request, and again for its answer; access_log: a file, or `-` for standard error;
    follow: whether to serve another version when the alias of the model moves; follow_seconds: between two looks;
    neighbours: whether clients see training images, as on a loopback address they always do; feedback: a table for what
    people say an image is; max_feedback, max_feedback_mb: images and MiB that are kept.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    allow_paths: bool = False
    allow_hosts: tuple[str, ...] = ()
    megapixels: float = inputs.MEGAPIXELS
    body_mb: float = Bounds.body / MEBIBYTE
    requests: int = Bounds.requests
    seconds: float = Bounds.seconds
    access_log: str | None = None
    follow: bool = False
    follow_seconds: float = 10.0
    neighbours: bool = False
    feedback: Path | None = None
    max_feedback: int = Kept.images
    max_feedback_mb: float = Kept.size / MEBIBYTE

    @property
    def allowed(self) -> guarding.Allowed:
        """Whose requests are answered. Raises UserError for an invalid name."""
        names = set()
        for each in self.allow_hosts:
            if (name := guarding.host_name(each)) is None:
                raise UserError(f"--allow-host {each}: is not a host name; write it like example.org")
            names.add(name)
        if is_loopback(self.host):
            return guarding.Allowed(guarding.LOOPBACK | {self.host.lower()} | names, names)
        return guarding.Allowed(names or None, names)

    @property
    def limits(self) -> inputs.Limits:
        """The limits of a table. Raises UserError for an invalid number of megapixels."""
        try:
            return inputs.Limits(inputs.pixels_of(self.megapixels), inputs.ROWS, self.allow_paths)
        except ValueError as reason:
            raise UserError(f"--max-megapixels: {reason}") from None

    @property
    def bounds(self) -> Bounds:
        """The limits of requests. Raises UserError for a number that is out of range."""
        for option, value, low, high in (
            ("--max-body", self.body_mb, 0.01, 4096),
            ("--max-requests", self.requests, 1, 10_000),
            ("--max-seconds", self.seconds, 0.1, 3600),
            ("--follow-seconds", self.follow_seconds, 0.1, 86_400),
            ("--max-feedback", self.max_feedback, 1, 1_000_000),
            ("--max-feedback-mb", self.max_feedback_mb, 1, 1_000_000),
        ):
            if not low <= value <= high:
                raise UserError(f"{option}: {value:g}; give a number from {low:g} to {high:g}")
        body = int(self.body_mb * MEBIBYTE)
        return Bounds(body, max(body, Bounds.bodies), self.requests, self.seconds)

    @property
    def training_images(self) -> Path | None:
        """The folder of the training images that clients may see."""
        return paths.PREPARED / "train" if self.neighbours or is_loopback(self.host) else None

    @property
    def kept(self) -> Feedback | None:
        """Where the answers of people are kept. Raises UserError or StateError if that is not possible."""
        if self.feedback is None:
            return None
        return Feedback(self.feedback, Kept(self.max_feedback, int(self.max_feedback_mb * MEBIBYTE)))


def run(params: Params | None, model: str, settings: ServerSettings) -> None:
    """Serve a bundle's folder or a registered model until interrupted. Raises StateError if the port is in use.

    As in `frostline predict`, the code of this package answers, not its copy in a registered model: no code of a
    registered model runs.
    """
    host, port = settings.host, settings.port
    require_valid(model, settings)
    listening.require_free(host, port)
    tracking = params.tracking if params else None
    look = model_uris.pointer(tracking, model)

    def load_version(name: str) -> Served:
        return load(model_uris.bundle_folder(tracking, name), name, settings)

    current = Current(load_version(look()), metrics.Metrics(app.ROUTES))
    follower = Follower(current, look, load_version, settings.follow_seconds)
    if settings.allow_paths:
        print(
            "warning: --allow-paths: every client of this server can classify any image file of this machine",
            file=sys.stderr,
        )
    web_application = application(current, settings, settings.bounds)
    with (
        listening.listening(web_application, host, port, settings.requests) as listener,
        follower.following() if settings.follow else nullcontext(),
    ):
        print(f"serve: {model} on http://{f'[{host}]' if ':' in host else host}:{port} (Ctrl-C ends it)", flush=True)
        listener.wait()
    print("serve: stopped", flush=True)


def require_valid(model: str, settings: ServerSettings) -> None:
    """Raise UserError for an invalid setting, before the model is loaded, which takes seconds."""
    _ = settings.allowed, settings.limits, settings.bounds
    if settings.follow and not model_uris.ALIASED.fullmatch(model):
        raise UserError(f"--follow: {model} has no alias that could move; name models:/NAME@ALIAS")


def application(current: Current, settings: ServerSettings, bounds: Bounds) -> ASGIApp:
    """The web application of the current model. Raises UserError or StateError if a file cannot be written."""
    observers = [recording.AccessLog(settings.access_log)] if settings.access_log else []
    return app.application(current, settings.allowed, bounds, observers, settings.kept)


def load(folder: Path, name: str, settings: ServerSettings) -> Served:
    """A bundle's folder, ready to answer. name: as the user or the registry names it.

    Raises DataError if the folder is not a usable bundle.
    """
    from frostline.models.bundles import Bundle

    scorer = loading.scorer_of(folder, settings.limits)
    record = account.peek(folder)
    bundle = Bundle(scorer.network, record.layout, record.made_from)
    shown, bundle_digest = shown_name(folder, name), digest.of_folder(folder)
    about = {"model": shown, "bundle": bundle_digest, **record.layout.recorded()}
    neighbours = Neighbours(bundle, settings.training_images)
    explain = explainer(bundle, scorer)
    machine.give_memory_back()  # what loading and compiling needed
    return Served(scorer, explain, shown, bundle_digest, neighbours, about)


def explainer(bundle: Bundle, scorer: scoring.Scorer) -> Explain:
    """A function: the bytes of an image -> a PNG of the resized image under the heat map of its label.

    scorer: of the same bundle.
    """
    from frostline.evaluation import gradcam

    heat_of, lock = gradcam.GradCam(bundle), threading.Lock()

    def explain(data: bytes) -> bytes:
        images = scorer.prepare(data)[None]
        label = scorer.probabilities(images).argmax(axis=1)
        with lock:
            overlay = gradcam.overlay(images, heat_of(images, label))[0]
        stream = BytesIO()
        Image.fromarray(overlay).save(stream, "PNG")
        return stream.getvalue()

    return explain


def shown_name(folder: Path, model: str) -> str:
    """What clients are told of a model's name: of a folder only the last part, not its place on this machine."""
    return model if model.startswith("models:/") else folder.resolve().name


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server on this address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
