"""`frostline choose` and `frostline probe`: which body, and how deep, by what frozen features are worth."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from frostline import paths
from frostline.choice import bodies, plots, probes, verdict
from frostline.choice.bodies import Candidate
from frostline.choice.verdict import BodyProbe, DepthProbe, Verdict
from frostline.core import atomic
from frostline.data import shards
from frostline.data.shards import Shards
from frostline.errors import DataError, ParamsError
from frostline.evaluation.plots import save
from frostline.features import store
from frostline.models import backbones, backend
from frostline.params import edit
from frostline.params.schema import Params
from frostline.tracking import model_uris

if TYPE_CHECKING:
    from frostline.models.backbones import Backbone
    from frostline.models.weights import Locate

PIXELS = "pixels"  # the name of the floor that is the images themselves


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
    found, floors, per_class, count = _measured(params, chosen, locate)
    result = verdict.of(found, floors, per_class)
    record = _record(found, floors, result, per_class)
    with atomic.folder(paths.CHOOSE) as folder:
        (folder / "choose.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        save(plots.curves(found, floors, result), folder / "depths.png")
    if apply:
        _apply(params, result)
    if as_json:
        return json.dumps(record, indent=2)
    return _text(found, floors, result, count, time.monotonic() - start, apply)


def probe(params: Params, apply: bool, as_json: bool) -> str:
    """The same for the body that params.yaml names."""
    return run(params, "params", [], apply, as_json)


def _measured(
    params: Params, chosen: Sequence[Candidate], locate: Locate
) -> tuple[list[BodyProbe], list[tuple[str, float]], float, int]:
    """The probes of all depths, the floors, the images of a class, and the number of images."""
    features = store.opened(params.cache)
    splits = [shards.open_folder(paths.PREPARED / name, features.memory) for name in ("train", "val")]
    splits = [each for each in splits if len(each)]
    labels = np.concatenate([each.labels for each in splits]) if splits else np.empty(0, np.int64)
    if len(np.unique(labels)) < 2:
        raise DataError(f"{paths.PREPARED}: has images of fewer than two classes; run `dvc repro prepare`")
    with backend.quiet():
        from frostline.choice import depths

    together = pd.concat([each.together for each in splits], ignore_index=True)
    fold = probes.folds(labels, together, params.seed)
    if len(np.unique(fold)) < 2:
        raise DataError(f"{paths.PREPARED}: all images of train and val are one group; there is nothing to compare")
    everybody = [*chosen, bodies.floor()]
    one_pass = depths.Pass([_built(each, locate, splits[0].layout.image_size, params.seed) for each in everybody])
    parts = [one_pass.vectors(images, features) for images in splits]
    cache: dict[str, DepthProbe] = {}
    found = []
    for candidate, places in zip(everybody, one_pass.depths, strict=True):
        measured = []
        for depth in places:
            key = depth.entry.key
            if key not in cache:
                vectors = np.concatenate([part[key] for part in parts])
                ridge, nearest = probes.ridge(vectors, labels, fold), probes.nearest(vectors, labels, fold)
                cache[key] = DepthProbe(depth.layer, depth.share, ridge, nearest)
            known = cache[key]
            measured.append(DepthProbe(depth.layer, depth.share, known.ridge, known.nearest))
        found.append(BodyProbe(candidate, measured))
    pixels = np.concatenate([_pixels(each) for each in splits])
    floors = [
        (bodies.RANDOM, found[-1].best.ridge.accuracy),
        (PIXELS, probes.ridge(pixels, labels, fold).accuracy),
    ]
    return found[:-1], floors, len(labels) / len(np.unique(labels)), len(labels)


def _built(candidate: Candidate, locate: Locate, size: int, seed: int) -> Backbone:
    """The body. Random weights are the same every time, so that the store has what is computed with them."""
    backend.make_deterministic(seed)
    return backbones.of_section(candidate.section, locate, size)


def _pixels(images: Shards) -> Any:
    rows = np.arange(len(images))
    chunks = [rows[start : start + 1024] for start in range(0, len(rows), 1024)]
    return np.concatenate([probes.pixels(images.take(chunk)) for chunk in chunks])


def _record(
    found: Sequence[BodyProbe], floors: Sequence[tuple[str, float]], result: Verdict, per_class: float
) -> dict[str, Any]:
    return {
        "scenario": result.scenario,
        "body": result.body.candidate.name,
        "depth": result.body.best.layer,
        "settings": result.settings,
        "sweep.space": result.space,
        "reasons": result.reasons,
        "images_per_class": round(per_class, 1),
        "floors": {name: round(value, 4) for name, value in floors},
        "bodies": [
            {
                "name": body.candidate.name,
                "imagenet_top1": body.candidate.top1,
                "multiply_adds": body.candidate.multiply_adds,
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
            for body in found
        ],
    }


def _apply(params: Params, result: Verdict) -> None:
    values = dict(result.settings)
    if params.finetune.train is not None:
        values["finetune.train"] = None
    if params.finetune.soup is not None:  # its lines are those of another body
        values["finetune.soup"] = None
    if not params.head.is_dense and values["finetune.freeze"] != "all":
        values["head.classifier"] = "dense"
    edit.change(paths.PARAMS, values)


def _text(
    found: Sequence[BodyProbe],
    floors: Sequence[tuple[str, float]],
    result: Verdict,
    count: int,
    seconds: float,
    is_applied: bool,
) -> str:
    ranked = sorted(found, key=lambda each: -each.best.ridge.accuracy)
    rows = [("body", "best depth", "of compute", "ridge", "kNN", "last depth")]
    for body in ranked:
        best = body.best
        numbers = (f"{best.share:.0%}", f"{best.ridge.accuracy:.4f}", f"{body.nearest:.4f}")
        rows.append((body.candidate.name, best.layer, *numbers, f"{body.last.ridge.accuracy:.4f}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines = [
        f"choose: {len(found)} bodies, {count:,} images of train and val, in {seconds:.0f} s",
        *(f"  {line}" for line in table),
        "  floors: " + ", ".join(f"{name} {value:.4f}" for name, value in floors),
        f"verdict  {result.scenario} ({'; '.join(result.reasons)})",
        f"report   {paths.CHOOSE}/depths.png, {paths.CHOOSE}/choose.json",
    ]
    if is_applied:
        return "\n".join([*lines, f"applied  {paths.PARAMS} has these settings now; `dvc repro` trains with them"])
    settings = [f"           {key}: {_value(value)}" for key, value in result.settings.items()]
    space = [f"           sweep.space {key}: {_value(value)}" for key, value in result.space.items()]
    return "\n".join([*lines, "next     `frostline choose --apply` writes", *settings, *space])


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_value(each)}" for key, each in value.items()) + "}"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
