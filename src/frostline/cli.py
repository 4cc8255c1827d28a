"""The command line: it parses, calls the library, and turns errors into one line and an exit code."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand

from frostline import paths
from frostline.core import temporary
from frostline.core.escaping import PlainText
from frostline.errors import DataError, FrostlineError, of_system

if TYPE_CHECKING:
    from frostline.params.schema import Params


app = typer.Typer(
    help="Transfer learning on a folder of images, with every run reproducible and tracked.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class _Command(TyperCommand):
    """A command that lets no error through that is not one line."""

    def invoke(self, ctx: Any) -> Any:
        with _errors(ctx.find_root().params["debug"]):
            return super().invoke(ctx)


command = partial(app.command, cls=_Command)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"frostline {version('frostline')}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """What holds for all commands."""


@command()
def prepare() -> None:
    """Decode data.source into shards; say what is wrong with it."""
    from frostline.stages import prepare as stage

    print(stage.run(_params()))


@command()
def augment() -> None:
    """Make the seeded variants of the training split."""
    from frostline.stages import augment as stage

    print(stage.run(_params()))


@command()
def finetune() -> None:
    """Train: the head first, then everything above the freeze line."""
    from frostline.stages import finetune as stage

    print(stage.run(_params()))


@command()
def evaluate() -> None:
    """Measure the classifier on the test split."""
    from frostline.stages import evaluate as stage

    print(stage.run(_params()))


@command()
def sweep(
    apply: Annotated[bool, typer.Option("--apply", help="Write the best values into params.yaml.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Search freeze depth, learning rate and what you like."""
    from frostline.commands import sweep as stage

    print(stage.run(_params(), apply, as_json))


@command(name="lr-find")
def lr_find(
    low: Annotated[float, typer.Option(help="The first learning rate.")] = 1e-7,
    high: Annotated[float, typer.Option(help="The last, if training does not break before.")] = 1.0,
    steps: Annotated[int, typer.Option(min=20, help="Batches.")] = 150,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Draw loss against learning rate; name a range to search."""
    from frostline.commands import lr_find as stage

    print(stage.run(_params(), low, high, steps, as_json))


@command()
def features(
    layer: Annotated[str, typer.Option(help="Any layer of the backbone, by its name.")],
    out: Annotated[Path, typer.Option(metavar="F.parquet", help="The table: path, label, split, f0, f1, ...")],
    split: Annotated[str, typer.Option(help="all, train, val or test.")] = "all",
) -> None:
    """Write what a layer makes of the images, as a table."""
    from frostline.commands import features as stage

    print(stage.run(_params(), layer, split, out))


@command()
def register() -> None:
    """Register the trained classifier, as the challenger."""
    from frostline.commands import register as stage

    print(stage.run(_params()))


@command()
def promote(
    version: Annotated[str | None, typer.Argument(help="Number or alias of the version; default: challenger.")] = None,
    reevaluate: Annotated[bool, typer.Option("--reevaluate", help="Test both on the present test split.")] = False,
) -> None:
    """Make a version the champion, if it is at least as good."""
    from frostline.commands import promote as stage

    print(stage.promote(_params(), version, reevaluate))


@command()
def rollback(
    reason: Annotated[str, typer.Option("--reason", "-m", help="Why; it is recorded.")] = "no reason given",
) -> None:
    """Give the alias champion back to who had it before."""
    from frostline.commands import promote as stage

    print(stage.rollback(_params(), reason))


@command()
def predict(
    images: Annotated[list[str], typer.Argument(metavar="PATH...|-", help="Files, folders, globs; - for stdin.")],
    model: Annotated[str, typer.Option(help="A bundle's folder or models:/NAME@ALIAS.")] = str(paths.BUNDLE),
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
) -> None:
    """Say what the classifier sees in images."""
    from frostline.commands import predict as stage

    stage.run(_params_here(), images, model, "json" if as_json else "csv" if as_csv else "table", sys.stdout)


@command()
def serve(
    model: Annotated[str, typer.Argument(help="A bundle's folder or models:/NAME@ALIAS.")] = str(paths.BUNDLE),
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    allow_paths: Annotated[bool, typer.Option("--allow-paths", help="Let requests name image files here.")] = False,
    allow_host: Annotated[
        list[str] | None, typer.Option("--allow-host", metavar="NAME", help="Accept this Host header too; repeatable.")
    ] = None,
    max_megapixels: Annotated[float, typer.Option(help="Refuse images that have more.")] = 50.0,
) -> None:
    """Answer over HTTP, with a page for a person at /."""
    from frostline.commands import serve as stage

    settings = stage.ServerSettings(host, port, allow_paths, tuple(allow_host or ()), max_megapixels)
    stage.run(_params_here(), model, settings)


@command()
def export(
    target: Annotated[Path, typer.Argument(help="A new folder.")],
    model: Annotated[str, typer.Option(help="A bundle's folder or models:/NAME@ALIAS.")] = str(paths.BUNDLE),
    form: Annotated[str, typer.Option("--format", help="saved_model, litert or onnx.")] = "saved_model",
) -> None:
    """Write the classifier's network for another runtime."""
    from frostline.commands import export as stage

    print(stage.run(_params_here(), model, form, target))


@command()
def lineage(
    model: Annotated[str, typer.Argument(help="models:/NAME@ALIAS or models:/NAME/VERSION.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what a version was made from, and the way back there."""
    from frostline.commands import lineage as stage

    print(stage.run(_params(), model, as_json))


@command()
def sync(
    revisions: Annotated[
        list[str] | None, typer.Argument(metavar="[REVISION]...", help="Commits or DVC experiments; default: here.")
    ] = None,
) -> None:
    """Give a state that MLflow does not know its run."""
    from frostline.commands import sync as stage

    print(stage.run(_params(), revisions or []))


@command()
def report(as_json: Annotated[bool, typer.Option("--json", help="Print reports/metrics.json.")] = False) -> None:
    """Say again what the last evaluation found."""
    from frostline.evaluation import summary

    if not paths.METRICS.is_file():
        raise DataError(f"{paths.METRICS}: not found; run `dvc repro` first")
    text = paths.METRICS.read_text(encoding="utf-8")
    if as_json:
        print(text.rstrip())
    else:
        freeze = _params().finetune.freeze
        print(summary.text(json.loads(text), paths.MODEL_CARD, freeze))


@command()
def recipe(
    name: Annotated[str | None, typer.Argument(help="Default: list them all.")] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Make it params.yaml; data: stays.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask before params.yaml is overwritten.")] = False,
    image_size: Annotated[bool, typer.Option("--image-size", help="Take the recipe's data.image_size too.")] = False,
) -> None:
    """List recipes, show one, or make it params.yaml."""
    from frostline.commands import recipe as stage

    print(stage.run(name, apply, yes, image_size))


@command()
def backbones(as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array.")] = False) -> None:
    """List the backbones, with their sizes."""
    from frostline.commands import backbones as stage

    print(stage.run(as_json))


@command()
def doctor() -> None:
    """Check params.yaml, its files and places before anything runs."""
    from frostline.commands import doctor

    print(doctor.check(_params()))


def _params() -> Params:
    """What params.yaml says; imported here, so that `--help` need not wait for the schema."""
    from frostline.params.schema import load

    return load(paths.PARAMS)


def _params_here() -> Params | None:
    """params.yaml where there is one: a bundle's folder can be used without."""
    return _params() if paths.PARAMS.is_file() else None


@contextmanager
def _errors(debug: bool) -> Iterator[None]:
    """Turn errors into one line on standard error and the exit code: 2 the user's mistake, 1 ours, 130 interrupted."""
    try:
        yield
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except BrokenPipeError:  # whoever read the output has seen enough: `frostline predict photos | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)  # as a shell says of SIGPIPE
    except Exception as error:
        if debug:
            raise
        if isinstance(error, FrostlineError):
            _fail(str(error), error.exit_code)
        if isinstance(error, OSError):
            _fail(of_system(error), 2)
        _fail(f"frostline's own mistake: {type(error).__name__}: {error}; please report it with --debug's traceback", 1)


def _fail(message: str, code: int) -> NoReturn:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)


def main() -> None:
    """Entry point."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):  # what is printed may hold names of a stranger's files
            setattr(sys, name, PlainText(stream))
    with temporary.of_this_process():
        app()
