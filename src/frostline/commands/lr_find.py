"""`frostline lr-find`: a useful range of learning rates for the settings in params.yaml."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pandas as pd

from frostline import paths
from frostline.core import atomic
from frostline.errors import ParamsError
from frostline.evaluation.plots import save
from frostline.models import backend
from frostline.params.schema import Params
from frostline.search import lr_range, plots
from frostline.tracking import model_uris
from frostline.training import inputs


def run(params: Params, low: float, high: float, steps: int, as_json: bool) -> str:
    """Train `steps` batches at rates from low to high, and plot the losses. Returns a few lines that name a range.

    Raises ParamsError if the rates do not rise.
    """
    if not 0 < low < high:
        raise ParamsError(f"--low {low:g} and --high {high:g}: the rates must rise from above 0; fix them")
    locate = model_uris.locator(params.tracking)
    inputs.check(params, locate)
    training_inputs = inputs.open_all(params)
    with backend.quiet():
        from frostline.training.trainer import Trainer

    rates = lr_range.rates(low, high, steps)
    losses = np.asarray(
        Trainer(training_inputs.features, locate).range_test(params, training_inputs.data, rates, lr_range.is_over)
    )
    span = lr_range.find(rates[: len(losses)], losses)
    table = pd.DataFrame({"learning_rate": rates[: len(losses)], "loss": losses})
    with atomic.folder(paths.LR_FIND) as folder:
        table.to_csv(folder / "losses.csv", index=False, float_format="%.9g")
        save(plots.learning_rates(rates[: len(losses)], losses, span), folder / "losses.png")
    key = "learning_rate" if params.finetune.epochs else "head_learning_rate"
    if as_json:
        limits = asdict(span) if span else None
        return json.dumps({"key": f"finetune.{key}", "range": limits, "steps": len(losses)}, indent=2)
    if span is None:
        return (
            f"lr-find: no range found: the loss did not fall clearly in {len(losses)} batches from {low:g} to "
            f"{rates[len(losses) - 1]:.2g}, perhaps because the head fits already; look at {paths.LR_FIND}/losses.png"
        )
    return (
        f"lr-find: the loss falls between {span.low:.1e} and {span.high:.1e}, fastest at {span.steepest:.1e}; "
        f"look at {paths.LR_FIND}/losses.png\n"
        f"next     sweep.space finetune.{key}: {{low: {span.low:.1e}, high: {span.high:.1e}, log: true}}"
    )
