"""The options of `frostline serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from frostline import paths
from frostline.cli_app import params_here
from frostline.core import machine


def serve(
    model: Annotated[str, typer.Argument(help="A bundle's folder or models:/NAME@ALIAS.")] = str(paths.BUNDLE),
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    allow_paths: Annotated[bool, typer.Option("--allow-paths", help="Let requests name image files here.")] = False,
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", metavar="NAME", help="Accept this name in Host and Origin; repeatable."),
    ] = None,
    max_megapixels: Annotated[float, typer.Option(help="Of one image.")] = 50.0,
    max_body: Annotated[float, typer.Option(help="MiB of one request.")] = 32.0,
    max_requests: Annotated[int, typer.Option(help="Requests at a time; more get 429.")] = 200,
    max_seconds: Annotated[float, typer.Option(help="For a body, then for its answer.")] = 60.0,
    access_log: Annotated[
        str | None, typer.Option(metavar="FILE|-", help="A line of JSON a request; - for stderr.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Serve the new version when the alias moves.")] = False,
    follow_seconds: Annotated[float, typer.Option(help="Between two looks.")] = 10.0,
    neighbours: Annotated[
        bool, typer.Option("--neighbours", help="Show training images to other machines too.")
    ] = False,
    feedback: Annotated[Path | None, typer.Option(metavar="FILE.csv", help="Keep what people say images are.")] = None,
    max_feedback: Annotated[int, typer.Option(help="Images that are kept.")] = 10_000,
    max_feedback_mb: Annotated[float, typer.Option(help="MiB of images that are kept.")] = 1024.0,
) -> None:
    """Answer over HTTP, with a web page at /."""
    machine.share_memory_between_threads()  # before NumPy is imported, which begins some
    from frostline.commands import serve as stage

    settings = stage.ServerSettings(
        host,
        port,
        allow_paths,
        tuple(allow_host or ()),
        max_megapixels,
        max_body,
        max_requests,
        max_seconds,
        access_log,
        follow,
        follow_seconds,
        neighbours,
        feedback,
        max_feedback,
        max_feedback_mb,
    )
    stage.run(params_here(), model, settings)
