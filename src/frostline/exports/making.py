"""Make an export: write the file, compare it with `predict`, write its card. All of it appears, or nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from frostline.core import atomic, digest
from frostline.data.shards import Layout, Shards
from frostline.errors import DataError, RefusedError, StateError, UserError
from frostline.evaluation import gate
from frostline.exports import checking, formats, graph, quantizing, samples
from frostline.exports.card import Checked, ExportCard, MeasuredFile
from frostline.exports.checking import Trial
from frostline.exports.formats import FORMATS, Format
from frostline.models import account
from frostline.params.schema import GateSection
from frostline.serving.originals import Originals

LABELS, CARD, REPORT = "labels.json", "export.md", "export.json"
TAKES = {
    "image": "uint8 RGB (height, width, 3) of any size, upright",
    "bytes": "the bytes of a JPEG or PNG file",
}


@dataclass(frozen=True)
class Order:
    """What is asked for.

    form: one of `FORMATS`; takes: what the graph takes, `image` or `bytes`; is_int8: the network in 8 bits; tolerance:
    the share of test images, from 0 to 1, on which the label may differ from that of `predict`.
    """

    form: str
    takes: str = "image"
    is_int8: bool = False
    tolerance: float = 0.0


@dataclass(frozen=True)
class Bench:
    """What an export is compared on: the test split, the originals of its images if they are at hand, the training
    split, from which INT8 is calibrated, and the rule by which INT8 may be worse."""

    test: Shards
    originals: Originals | None
    training: Shards
    rule: GateSection
    seed: int


def make(folder: Path, order: Order, target: Path, bench: Bench | None) -> str:
    """Write the export of a bundle's folder to a new folder, and say what it is.

    bench: None to compare nothing. Raises UserError if the order can't be filled, or needs a package that is not
    installed; RefusedError if the file answers otherwise than `predict`, or if INT8 loses too much; DataError if the
    target has other content. A target that already has the same export is not changed.
    """
    form = _form(order, bench)
    layout = account.read(folder).layout
    about = {
        "format": order.form,
        "takes": order.takes,
        "int8": order.is_int8,
        "compared": bench is not None,
        "bundle": digest.of_folder(folder),
    }
    if target.exists():
        if about.items() <= _labels(target).items():
            return f"export: {target / form.file} already has this classifier"
        raise DataError(f"{target}: exists and has other content; give a new folder")
    with atomic.folder(target) as output, TemporaryDirectory() as scratch:
        made = graph.of_bundle(folder, form.takes[order.takes])
        files = _written(form, order, made, bench, output, Path(scratch))
        checked = _checked(form, order, files, folder, layout, bench) if bench else None
        note = form.notes.get(order.takes, "")
        card = ExportCard(form.file, about, TAKES[order.takes], note, tuple(made.serve.structured_outputs), checked)
        atomic.write_json(output / LABELS, layout.recorded() | about)
        atomic.write_json(output / REPORT, card.as_json())
        (output / CARD).write_text(card.as_markdown(), encoding="utf-8")
    return f"export: {target / form.file}; takes {TAKES[order.takes]}; {_said(checked)}, see {target / CARD}"


def _said(checked: Checked | None) -> str:
    if checked is None:
        return "not compared with predict"
    agreed = (checked.int8 or checked.float).agreement
    return f"the label of predict on {agreed.labels:.2%} of {agreed.images} {checked.text}"


def _form(order: Order, bench: Bench | None) -> Format:
    """The format of an order. Raises UserError if it does not have what is asked for."""
    if order.form not in FORMATS:
        raise UserError(f"--format: {order.form} is unknown; use one of {', '.join(FORMATS)}")
    form = FORMATS[order.form]
    if order.takes not in form.takes:
        able = " or ".join(name for name, each in FORMATS.items() if order.takes in each.takes)
        raise UserError(f"--bytes: {order.form} can't decode images; use --format {able}, or leave --bytes away")
    if not order.is_int8:
        return form
    if form.quantize is None:
        able = " or ".join(name for name, each in FORMATS.items() if each.quantize)
        raise UserError(f"--int8: {order.form} is written in float alone; use --format {able}")
    if order.takes != "image":
        raise UserError("--int8: an export in 8 bits takes images; leave --bytes away")
    if bench is None:
        raise UserError(
            "--int8: needs data/prepared, to calibrate it and to test what is lost; run this where the classifier was "
            "trained, without --no-check"
        )
    return form


def _written(
    form: Format, order: Order, made: graph.Graph, bench: Bench | None, output: Path, scratch: Path
) -> Mapping[str, Path]:
    """Write the files, the one to keep into `output`: their paths by `float` and `int8`."""
    plain = (scratch if order.is_int8 else output) / form.file
    try:
        with formats.quiet():
            form.write(made, plain)
            if not order.is_int8 or form.quantize is None or bench is None:
                return {"float": plain}
            samples.require_alike(bench.training.layout, made.layout)
            images = quantizing.calibration(bench.training, bench.seed)
            form.quantize(made, plain, output / form.file, images)
    except ImportError as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"--format: {order.form} needs another package ({reason}); {form.install}") from error
    return {"float": plain, "int8": output / form.file}


def _checked(
    form: Format, order: Order, files: Mapping[str, Path], folder: Path, layout: Layout, bench: Bench
) -> Checked:
    """Compare the files with `predict`. Raises RefusedError if they may not be shipped."""
    images = samples.of_split(bench.test, bench.originals, layout, bench.seed)
    with formats.quiet():
        runs = {name: form.load(path) for name, path in files.items()}
    trial = checking.tried(runs, order.takes, folder, images)
    found = {name: _variant(trial, name, path) for name, path in files.items()}
    agreed = found["float"].agreement
    if 1 - agreed.labels > order.tolerance + 1e-12:
        raise RefusedError(
            f"export: {form.file} gives another label than predict on {1 - agreed.labels:.2%} of {agreed.images} "
            f"{images.text} (largest difference of probabilities: {agreed.largest:.2g}); nothing was written, "
            "--tolerance SHARE allows it"
        )
    lost = _lost(trial, bench) if "int8" in files else None
    if lost and not lost.passed:
        raise RefusedError(
            f"export: INT8 loses too much, {lost.text}; nothing was written, export without --int8, or raise "
            "registry.gate.margin"
        )
    return Checked(images.text, form.version, found["float"], found.get("int8"), lost)


def _variant(trial: Trial, name: str, path: Path) -> MeasuredFile:
    answered = trial.answered[name]
    is_known = bool((trial.labels >= 0).all())
    accuracy = float((answered.probabilities.argmax(1) == trial.labels).mean()) if is_known else None
    size = sum(each.stat().st_size for each in path.parent.rglob("*") if each.is_file())
    return MeasuredFile(size, answered.milliseconds, accuracy, trial.agreement(name))


def _lost(trial: Trial, bench: Bench) -> gate.Comparison:
    """The gate's test of INT8 against float."""
    if (trial.labels < 0).any():
        raise StateError("data/prepared/test: has classes that the classifier does not know; run `dvc repro`")
    rule = bench.rule
    ours, theirs = (trial.answered[name].probabilities for name in ("int8", "float"))
    return gate.compare(trial.labels, ours, theirs, rule.metric, rule.margin, rule.confidence, bench.seed)


def _labels(target: Path) -> dict[str, Any]:
    """The labels.json of an earlier export; empty if there is none."""
    try:
        content = json.loads((target / LABELS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
