"""The command line: it parses, calls the library, and turns errors into one line and an exit code."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from frostline import catalog
from frostline.errors import FrostlineError
from frostline.params import Params, load

app = typer.Typer(
    help="Transfer learning on a folder of images, with every run reproducible and tracked.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

debug = False


@app.callback()
def _options(
    show_traceback: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    global debug
    debug = show_traceback


@app.command()
def prepare() -> None:
    """Decode data.source into shards per split; report what is wrong with it."""
    from frostline.stages import prepare as stage

    _run(stage.run)


@app.command()
def augment() -> None:
    """Make the seeded variants of the training split."""
    from frostline.stages import augment as stage

    _run(stage.run)


@app.command()
def finetune() -> None:
    """Train: the head first, then everything above the freeze line."""
    from frostline.stages import finetune as stage

    _run(stage.run)


@app.command()
def evaluate() -> None:
    """Measure the classifier on the test split."""
    from frostline.stages import evaluate as stage

    _run(stage.run)


@app.command()
def report(as_json: Annotated[bool, typer.Option("--json", help="Print reports/metrics.json.")] = False) -> None:
    """Say again what the last evaluation found."""
    from frostline import summary
    from frostline.errors import DataError

    if not catalog.METRICS.is_file():
        raise DataError(f"{catalog.METRICS}: not found; run `dvc repro` first")
    text = catalog.METRICS.read_text(encoding="utf-8")
    print(text.rstrip() if as_json else summary.text(json.loads(text), catalog.MODEL_CARD))


def _run(stage: Callable[[Params], str]) -> None:
    print(stage(load(catalog.PARAMS)), flush=True)


def main() -> None:
    """Entry point. Exit codes: 0 well, 1 our mistake, 2 the user's, 130 interrupted."""
    try:
        app()
    except FrostlineError as error:
        if debug:
            raise
        _fail(str(error), error.exit_code)
    except OSError as error:
        if debug:
            raise
        place = f"{error.filename}: " if error.filename else ""
        _fail(f"{place}{error.strerror or error}; mend its permissions, free some space or choose another place", 2)
    except KeyboardInterrupt:
        _fail("interrupted", 130)


def _fail(message: str, code: int) -> None:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)
