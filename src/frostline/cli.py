"""The command line: it parses arguments, calls the library and prints the answer."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from frostline import cli_serve, paths
from frostline.cli_app import AsJson, Ray, app, command, executor, params, params_here
from frostline.core import temporary
from frostline.core.escaping import PlainText


@command()
def prepare(ray: Ray = None) -> None:
    """Decode data.source into shards; list its problems."""
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")  # Arrow's own, chosen at its import, keeps 13 MB more
    from frostline.stages import prepare as stage

    with executor(ray) as elsewhere:
        print(stage.run(params(), elsewhere))


@command()
def augment(ray: Ray = None) -> None:
    """Write the seeded variants of the training split."""
    from frostline.stages import augment as stage

    with executor(ray) as elsewhere:
        print(stage.run(params(), elsewhere))


@command()
def finetune(ray: Ray = None) -> None:
    """Train: the head first, then everything above the freeze line."""
    from frostline.stages import finetune as stage

    with executor(ray) as elsewhere:
        print(stage.run(params(), elsewhere))


@command()
def evaluate(ray: Ray = None) -> None:
    """Measure the classifier on the test split."""
    from frostline.stages import evaluate as stage

    with executor(ray) as elsewhere:
        print(stage.run(params(), elsewhere))


@command()
def sweep(
    apply: Annotated[bool, typer.Option("--apply", help="Write the best values into params.yaml.")] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Processes that search; default: this one.")
    ] = None,
    ray: Ray = None,
    as_json: AsJson = False,
) -> None:
    """Search freeze depth, learning rate and other keys."""
    from frostline.commands import sweep as stage

    print(stage.run(params(), apply, as_json, workers, ray))


@command(name="lr-find")
def lr_find(
    low: Annotated[float, typer.Option(help="The first learning rate.")] = 1e-7,
    high: Annotated[float, typer.Option(help="The last one, if training does not diverge before.")] = 1.0,
    steps: Annotated[int, typer.Option(min=20, help="Batches.")] = 150,
    as_json: AsJson = False,
) -> None:
    """Plot loss against learning rate; print a range to search."""
    from frostline.commands import lr_find as stage

    print(stage.run(params(), low, high, steps, as_json))


@command()
def features(
    layer: Annotated[str, typer.Option(help="Any layer of the backbone, by its name.")],
    out: Annotated[Path, typer.Option(metavar="F.parquet", help="The table: path, label, split, f0, f1, ...")],
    split: Annotated[str, typer.Option(help="all, train, val or test.")] = "all",
    ray: Ray = None,
) -> None:
    """Write the features of a layer as a table."""
    from frostline.commands import features as stage

    with executor(ray) as elsewhere:
        print(stage.run(params(), layer, split, out, elsewhere))


@command()
def choose(
    names: Annotated[
        str | None, typer.Option("--bodies", metavar="A,B", help="Default: those whose weights are here.")
    ] = None,
    models: Annotated[list[str] | None, typer.Option("--registry", help="A registered model, by its URI.")] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Write the settings into params.yaml.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say which body to use, and how deep, before training."""
    from frostline.commands import choose as stage

    print(stage.run(params(), names, models or [], apply, as_json))


@command()
def probe(
    apply: Annotated[bool, typer.Option("--apply", help="Write the settings into params.yaml.")] = False,
    as_json: AsJson = False,
) -> None:
    """The same for the backbone that params.yaml names."""
    from frostline.commands import choose as stage

    print(stage.probe(params(), apply, as_json))


@command()
def register() -> None:
    """Register the trained classifier, as the challenger."""
    from frostline.commands import register as stage

    print(stage.run(params()))


@command()
def promote(
    version: Annotated[str | None, typer.Argument(help="Number or alias of the version; default: challenger.")] = None,
    reevaluate: Annotated[bool, typer.Option("--reevaluate", help="Test both on the present test split.")] = False,
) -> None:
    """Make a version the champion, if it is at least as good."""
    from frostline.commands import promote as stage

    print(stage.promote(params(), version, reevaluate))


@command()
def rollback(
    reason: Annotated[str, typer.Option("--reason", "-m", help="Why; it is recorded.")] = "no reason given",
) -> None:
    """Give the alias champion back to the version before."""
    from frostline.commands import promote as stage

    print(stage.rollback(params(), reason))


@command()
def predict(
    images: Annotated[list[str], typer.Argument(metavar="PATH...|-", help="Files, folders, globs; - for stdin.")],
    model: Annotated[str, typer.Option(help="A bundle's folder or models:/NAME@ALIAS.")] = str(paths.BUNDLE),
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    ray: Ray = None,
) -> None:
    """Print what the classifier says of images."""
    from frostline.commands import predict as stage

    with executor(ray) as elsewhere:
        form = stage.form(as_json, as_csv)
        stage.run(params_here(), images, model, form, sys.stdout, elsewhere)


command()(cli_serve.serve)


@command()
def export(
    target: Annotated[Path, typer.Argument(help="A new folder.")],
    model: Annotated[str, typer.Option(help="A bundle's folder or models:/NAME@ALIAS.")] = str(paths.BUNDLE),
    form: Annotated[str, typer.Option("--format", help="saved_model, onnx, litert or openvino.")] = "saved_model",
    takes_bytes: Annotated[
        bool, typer.Option("--bytes", help="It decodes JPEG and PNG files; saved_model, onnx.")
    ] = False,
    int8: Annotated[bool, typer.Option("--int8", help="The network in 8 bits; onnx, litert.")] = False,
    check: Annotated[
        bool | None, typer.Option("--check/--no-check", help="Compare it with predict; default: if data is here.")
    ] = None,
    tolerance: Annotated[float, typer.Option(min=0, max=1, help="Share of test images whose label may differ.")] = 0.0,
) -> None:
    """Write the classifier for another runtime."""
    from frostline.commands import export as stage

    print(stage.run(params_here(), model, target, form, stage.Wishes(takes_bytes, int8, check, tolerance)))


@command()
def lineage(
    model: Annotated[str, typer.Argument(help="models:/NAME@ALIAS or models:/NAME/VERSION.")],
    as_json: AsJson = False,
    full: Annotated[bool, typer.Option("--full", help="List the digests of all files of the stages.")] = False,
) -> None:
    """Show what a version was made from, and how to restore it."""
    from frostline.commands import lineage as stage

    print(stage.run(params(), model, as_json, full))


@command()
def sync(
    revisions: Annotated[
        list[str] | None, typer.Argument(metavar="[REVISION]...", help="Commits or DVC experiments; default: here.")
    ] = None,
    moved: Annotated[bool, typer.Option("--moved", help="Only correct mlflow.db after the project was moved.")] = False,
) -> None:
    """Record states in MLflow that it does not have."""
    from frostline.commands import sync as stage

    print(stage.moved(params()) if moved else stage.run(params(), revisions or []))


@command()
def report(
    as_json: AsJson = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown, for a merge request.")] = False,
    against: Annotated[str | None, typer.Option(metavar="REV", help="Compare with a git revision.")] = None,
) -> None:
    """Print the numbers of the last evaluation."""
    from frostline.commands import report as stage

    if as_markdown or against is not None:
        print(stage.as_markdown(params(), against))
    else:
        print(stage.run(params() if not as_json else None))


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
def init(
    folder: Annotated[Path | None, typer.Argument(metavar="DIR", help="A new folder, or an existing project.")] = None,
    data: Annotated[
        Path | None, typer.Option(readable=False, help="The images: a folder, a table, an archive or a card.")
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="Default: one that fits the images.")] = None,
    body: Annotated[str | None, typer.Option(help="The backbone; default: that of the recipe.")] = None,
    update: Annotated[bool, typer.Option("--update", help="Bring a project to this version of frostline.")] = False,
) -> None:
    """Make a project of your own, with git and DVC."""
    from frostline.commands import init as stage

    print(stage.update(folder, data, recipe, body) if update else stage.run(folder, data, recipe, body))


@command()
def backbones(as_json: AsJson = False) -> None:
    """List the backbones, with their sizes."""
    from frostline.commands import backbones as stage

    print(stage.run(as_json))


@command()
def doctor() -> None:
    """Check params.yaml and the paths it names."""
    from frostline.commands import doctor

    print(doctor.check(params()))


def main() -> None:
    """Entry point."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):  # printed lines may hold file names with control characters
            setattr(sys, name, PlainText(stream))
    with temporary.of_this_process():
        app()
