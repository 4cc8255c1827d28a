"""Stage `evaluate`: measure the classifier on the test split, which training never reads."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from frostline import paths
from frostline.core import digest
from frostline.core.executors import Executor
from frostline.data import data_report, shards
from frostline.errors import DataError, UnreachableError
from frostline.evaluation import report, summary
from frostline.evaluation.scores import Scores
from frostline.features import store
from frostline.models import backend
from frostline.models.made_from import MadeFrom
from frostline.params.schema import Params
from frostline.tracking import contact, lineage, run_log, tracker


def run(params: Params, executor: Executor | None = None) -> str:
    """Evaluate the classifier. Returns a few lines with its accuracy and the place of the report.

    executor: where the network is applied, None for this process.
    """
    with backend.quiet():
        from frostline.features import predictor
        from frostline.models import bundles

    features, settings = store.opened(params.cache, executor), params.evaluate
    test = shards.open_folder(paths.PREPARED / "test", features.memory)
    bundle, bundle_digest = bundles.load(paths.BUNDLE), digest.of_folder(paths.BUNDLE)
    if bundle.layout != test.layout:
        raise DataError(
            f"{paths.BUNDLE}: was trained on other classes or another image size than {test.folder}; run `dvc repro`"
        )
    results = report.build(
        bundle,
        bundle_digest,
        test,
        predictor.answers(bundle, test, features, params.cache.mode),
        data=data_report.read(paths.DATA_REPORT),
        history=pd.read_csv(paths.HISTORY),
        top_k=settings.top_k,
        resamples=settings.bootstrap,
        seed=params.seed,
        own=settings.metrics or (),
    )
    report.write(results)
    view = record(params, bundle.made_from, len(bundle.layout.classes), bundle_digest, results.scores)
    return summary.text(results.scores, paths.MODEL_CARD, params, view)


def record(params: Params, made_from: MadeFrom, classes: int, bundle_digest: str, scores: Scores) -> str | None:
    """Record the evaluation in the run that produced the bundle. Returns where to look at it, if it is recorded.

    classes: how many. The results are already written to the project, so an unreachable server is only a warning.
    """
    try:
        run_tracker = tracker.tracker(params.tracking)
        name = run_log.name_of(made_from, params.data.source, lineage.running_experiment())
        with run_tracker.result(bundle_digest, name) as log:
            if log.state.is_new:  # it was trained without tracking, or its run was deleted: log what the bundle records
                read = lineage.inputs(paths.DVC_LOCK, [paths.PREPARED, paths.AUGMENTED])
                run_log.without_training(log, made_from, read, lineage.tags(paths.DVC_LOCK, [paths.REPORTS]))
            run_log.evaluated(log, params.data.source, classes, scores, Path())
            return run_tracker.view(log)
    except UnreachableError as error:
        print(
            f"warning: {str(error).removesuffix(contact.FIX)}; the evaluation is in {paths.REPORTS}, and "
            "`frostline sync` records it when the server is back",
            file=sys.stderr,
        )
        return None
