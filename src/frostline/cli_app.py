"""The Typer application, and what all commands of the command line share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated

import typer

from frostline import exit_codes, paths

if TYPE_CHECKING:
    from frostline.core.executors import Executor
    from frostline.params.schema import Params


app = typer.Typer(
    help="Transfer learning on a folder of images, with every run reproducible and tracked.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


command = partial(app.command, cls=exit_codes.Command)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Ray = Annotated[
    str | None,
    typer.Option("--ray", metavar="ADDRESS", envvar="FROSTLINE_RAY", help="Use a Ray cluster; auto: the one here."),
]


def _print_version(is_given: bool) -> None:
    if is_given:
        print(f"frostline {version('frostline')}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """The options of all commands."""


def params() -> Params:
    """The settings of params.yaml. The schema is imported here, so that `--help` does not wait for it."""
    from frostline.params.schema import load

    return load(paths.PARAMS)


@contextmanager
def executor(ray: str | None) -> Iterator[Executor | None]:
    """Where a command's work is done: the Ray cluster at an address, None for this machine."""
    if ray is None:
        yield None
        return
    from frostline.core import ray_cluster

    with ray_cluster.connected(ray) as cluster:
        yield cluster


def params_here() -> Params | None:
    """The settings of params.yaml, or None without that file: the folder of a bundle can be used without it."""
    return params() if paths.PARAMS.is_file() else None
