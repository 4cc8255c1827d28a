"""Stage `evaluate`: the classifier on the test split, which nothing has looked at before."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from frostline import paths
from frostline.core import digest
from frostline.data import shards
from frostline.errors import DataError, UnreachableError
from frostline.evaluation import report, summary
from frostline.features import store
from frostline.models import backend
from frostline.models.made_from import MadeFrom
from frostline.params.schema import Params
from frostline.tracking import contact, lineage, run_log, tracker


def run(params: Params) -> str:
    """Evaluate; a few lines that say how good it is and where to look."""
    with backend.quiet():
        from frostline.features import predictor
        from frostline.models import bundles

    features, settings = store.opened(params.cache), params.evaluate
    test = shards.open_folder(paths.PREPARED / "test", features.memory)
    bundle, produced = bundles.load(paths.BUNDLE), digest.of_folder(paths.BUNDLE)
    if bundle.layout != test.layout:
        raise DataError(f"{paths.BUNDLE}: was trained on other classes or sizes than {test.folder}; run `dvc repro`")
    found = report.build(
        bundle,
        produced,
        test,
        predictor.probabilities(bundle, test, features, params.cache.mode),
        data=json.loads(paths.DATA_REPORT.read_text(encoding="utf-8")),
        history=pd.read_csv(paths.HISTORY),
        top_k=settings.top_k,
        resamples=settings.bootstrap,
        seed=params.seed,
    )
    report.write(found)
    record(params, bundle.made_from, produced, found.metrics)
    return summary.text(found.metrics, paths.MODEL_CARD, params.finetune.freeze)


def record(params: Params, made_from: MadeFrom, produced: str, metrics: Mapping[str, Any]) -> None:
    """Tell the run that produced the bundle. The results are in the project by now: a server that is away loses none.

    produced: the bundle's digest.
    """
    try:
        with tracker.tracker(params.tracking).result(produced, run_log.name_of(made_from)) as log:
            if log.state.is_new:  # trained where no tracking was, or its run is gone: what the bundle knows of itself
                log.params(run_log.flat(made_from.recorded()))
                log.tags(lineage.tags(paths.DVC_LOCK, [paths.PREPARED, paths.AUGMENTED], [paths.REPORTS]))
            run_log.evaluated(log, params.data.source, metrics, Path())
    except UnreachableError as error:
        print(
            f"warning: {str(error).removesuffix(contact.FIX)}; the evaluation is in {paths.REPORTS}, and "
            "`frostline sync` records it when the server is back",
            file=sys.stderr,
        )
