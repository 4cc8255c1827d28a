"""`frostline choose` and `frostline probe`: which body, and how deep, by what frozen features are worth."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from typing import Any

from frostline import paths
from frostline.choice import bodies, measuring, plots, verdict
from frostline.choice.measuring import Measured
from frostline.choice.verdict import Verdict
from frostline.core import atomic, digest
from frostline.errors import ParamsError
from frostline.evaluation.plots import save
from frostline.models import backbones
from frostline.params import edit
from frostline.params.schema import Params
from frostline.tracking import model_uris, run_log, tracker


def run(params: Params, names: str | None, models: Sequence[str], apply: bool, as_json: bool) -> str:
    """Measure bodies at every depth and say which to use, how deep, and how to train it.

    names: of bodies, with commas between, None for those whose weights are at hand; models: URIs of one's own
    registered models, which are measured as well; apply: write the recommended settings into params.yaml. Raises
    ParamsError for an unknown body, and DataError if there are no prepared images.
    """
    locate = model_uris.locator(params.tracking)
    given = [each.strip() for each in names.split(",")] if names else None
    chosen = bodies.at_hand(params.backbone) if given is None else bodies.named(given, params.backbone)
    chosen = [*chosen, *bodies.registered(models, locate)]
    if not chosen:
        raise ParamsError("--bodies: names no body; `frostline backbones` lists them")
    for each in [*chosen, bodies.floor()]:
        section = each.section
        backbones.check(section.name, locate(section.weights), params.data.image_size, section.alpha)
        backbones.require(section.name, section.weights)
    start = time.monotonic()
    measured = measuring.measure(params, chosen, locate)
    result = verdict.of(measured.bodies, measured.situation, params.finetune)
    record = _record(measured, result)
    with atomic.folder(paths.CHOOSE) as folder:
        (folder / "choose.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        save(plots.curves(measured.bodies, measured.situation.floors, result), folder / "depths.png")
    _log(params, record)
    if apply:
        _apply(params, result)
    if as_json:
        return json.dumps(record, indent=2)
    return _text(measured, result, time.monotonic() - start, apply)


def probe(params: Params, apply: bool, as_json: bool) -> str:
    """The same for the body that params.yaml names."""
    return run(params, "params", [], apply, as_json)


def _record(measured: Measured, result: Verdict) -> dict[str, Any]:
    return {
        "scenario": result.scenario,
        "body": result.body.candidate.name,
        "depth": result.body.best.layer,
        "settings": result.settings,
        "sweep.space": result.space,
        "reasons": result.reasons,
        "images_per_class": round(measured.situation.per_class, 1),
        "floors": {name: round(value, 4) for name, value in measured.situation.floors},
        "bodies": [
            {
                "name": body.candidate.name,
                "imagenet_top1": body.candidate.top1,
                "multiply_adds": body.candidate.multiply_adds,
                "images": body.last.ridge.images,
                "depths": [
                    {
                        "layer": depth.layer,
                        "share_of_compute": round(depth.share, 4),
                        "ridge": round(depth.ridge.accuracy, 4),
                        "ridge_ci95": [round(end, 4) for end in depth.ridge.interval],
                        "nearest": round(depth.nearest.accuracy, 4),
                    }
                    for depth in body.depths
                ],
            }
            for body in measured.bodies
        ],
    }


def _log(params: Params, record: dict[str, Any]) -> None:
    """Keep what was measured as a run in MLflow: once, however often it is measured.

    The curves of a body are metrics over the percents of its compute below a depth.
    """
    name = f"{run_log.data_name(params.data.source)} choose"
    with tracker.tracker(params.tracking).choice(digest.of_value(record), name) as run:
        if run.state.has_ended:  # the same was measured before
            return
        run.params({"scenario": record["scenario"], "body": record["body"], **record["settings"]})
        for body in record["bodies"]:
            for depth in body["depths"]:
                values = {f"{kind}/{body['name']}": depth[kind] for kind in ("ridge", "nearest")}
                metrics = {re.sub(r"[^\w./ -]", "_", key): value for key, value in values.items()}
                run.metrics(metrics, step=round(100 * depth["share_of_compute"]))
        run.files(sorted(paths.CHOOSE.iterdir()), "choose")


def _apply(params: Params, result: Verdict) -> None:
    values = dict(result.settings)
    if params.finetune.train is not None:
        values["finetune.train"] = None
    if params.finetune.soup is not None:  # its lines are those of another body
        values["finetune.soup"] = None
    if not params.head.is_dense and values["finetune.freeze"] != "all":
        values["head.classifier"] = "dense"
    edit.change(paths.PARAMS, values)


def _text(measured: Measured, result: Verdict, seconds: float, is_applied: bool) -> str:
    count = f"{measured.situation.images:,}"
    ranked = sorted(measured.bodies, key=lambda each: -each.best.ridge.accuracy)
    rows = [("body", "best depth", "of compute", "ridge", "kNN", "last depth")]
    for body in ranked:
        best = body.best
        numbers = (f"{best.share:.0%}", f"{best.ridge.accuracy:.4f}", f"{body.nearest:.4f}")
        rows.append((body.candidate.name, best.layer, *numbers, f"{body.last.ridge.accuracy:.4f}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines = [
        f"choose: {len(measured.bodies)} bodies, {count} images of train and val, in {seconds:.0f} s",
        *(f"  {line}" for line in table),
        "  floors: " + ", ".join(f"{name} {value:.4f}" for name, value in measured.situation.floors),
        f"verdict  {result.scenario} ({'; '.join(result.reasons)})",
        f"report   {paths.CHOOSE}/depths.png, {paths.CHOOSE}/choose.json",
    ]
    early = [body for body in ranked if body.last.ridge.images < measured.situation.images]
    if early:
        named = ", ".join(f"{body.candidate.name} ({body.last.ridge.images:,} images)" for body in early)
        lines.insert(-2, f"  clearly worse on the first images, and not measured on all: {named}")
    if is_applied:
        return "\n".join([*lines, f"applied  {paths.PARAMS} has these settings now; `dvc repro` trains with them"])
    settings = [f"           {key}: {_value(value)}" for key, value in result.settings.items()]
    space = [f"           sweep.space {key}: {_value(value)}" for key, value in result.space.items()]
    return "\n".join([*lines, "next     `frostline choose --apply` writes", *settings, *space])


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_value(each)}" for key, each in value.items()) + "}"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
