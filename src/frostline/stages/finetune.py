"""Stage `finetune`: train the classifier; out comes a bundle and the history of its training."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pandas as pd

from frostline import paths
from frostline.core import atomic, digest
from frostline.data import shards
from frostline.errors import DataError, ParamsError, StateError
from frostline.features import store
from frostline.models import backbones, backend, sklearn_fit
from frostline.params.schema import AugmentSection, Params
from frostline.tracking import lineage, registry, run_log, tracker
from frostline.training import job as jobs

if TYPE_CHECKING:
    from frostline.core.history import HistoryRow
    from frostline.tracking.runs import Run
    from frostline.training.loop import Snapshot


def run(params: Params) -> str:
    """Train; one line that says how it went. Raises StateError where another process trains in this folder."""
    locate = registry.locator(params.tracking)
    named = params.backbone
    backbones.check(named.name, locate(named.weights), params.data.image_size, named.alpha)
    if not params.head.is_dense:
        sklearn_fit.check(params.head.classifier, params.head.classifier_args)
    if params.finetune.callbacks.TensorBoard and find_spec("tensorboard") is None:
        raise ParamsError(
            "params.yaml: finetune.callbacks.TensorBoard needs a package that is not here; "
            "pip install 'frostline[tensorboard]', or remove the key"
        )
    features = store.opened(params.cache)
    train, validation = (shards.open_folder(paths.PREPARED / name, features.memory) for name in ("train", "val"))
    params.head.require_fit(len(train.layout.classes))
    variants = [train, *augmented(train, params.augment)]
    with _alone():
        return _train(params, features, variants, validation, locate)


@contextmanager
def _alone() -> Iterator[None]:
    """One training at a time works in a folder: two would join one run in MLflow and overwrite each other's bundle."""
    lock = paths.training_lock()
    atomic.require_writable(lock.parent)
    with atomic.try_lock(lock) as holder:
        if holder is not None:
            raise StateError(
                f"{paths.BUNDLE}: another training works in this folder ({holder}); wait for its end, or end it"
            )
        yield


def _train(
    params: Params,
    features: store.Store,
    variants: list[shards.Shards],
    validation: shards.Shards,
    locate: Callable[[str], str],
) -> str:
    # Imported here, so that a mistake in params.yaml shows at once and not after TensorFlow's 12 seconds.
    with backend.quiet():
        from frostline.features import predictor
        from frostline.models import bundles, calibration
        from frostline.training import checkpoints, loop, trainer

    job = jobs.key(params, [*variants, validation], locate)
    checkpoint = checkpoints.Checkpoint(paths.checkpoints() / f"{job}{checkpoints.SUFFIX}")
    name = run_log.name(params)
    with tracker.tracker(params.tracking).training(job, name) as log:
        resume = checkpoint.load()
        if resume is not None:
            print(f"finetune: resuming after epoch {resume.position.epoch} of phase {resume.phase}", flush=True)
        log.params(tracker.flat(jobs.settings(params)))
        origin = lineage.tags(paths.DVC_LOCK, [paths.PREPARED, paths.AUGMENTED], [paths.REPORTS])
        log.tags(origin | _origin(job))
        for context, pictures in {"training": variants[0], "validation": validation}.items():
            log.dataset(params.data.source, pictures.source_digest(), context)
        log.epochs(resume.position.history if resume else [])

        def tell(key: str, line: object) -> None:
            print(line, flush=True)
            log.tags({key: str(line)})

        watch = loop.Watch(
            on_epoch=_reporter(params, job, checkpoint.keep, log),
            on_weights=partial(tell, "frostline.weights"),
            on_plan=partial(tell, "frostline.plan"),
        )
        data = trainer.TrainingData(variants, validation)
        result = trainer.Trainer(features, locate).run(params, data, resume, watch)
        bundle = result.bundle
        if params.evaluate.calibrate == "temperature":
            logits = predictor.logits(bundle, validation, features, params.cache.mode)
            bundle = bundle.calibrated(calibration.fit_temperature(logits, validation.labels))
        with atomic.folder(paths.BUNDLE) as folder, atomic.file(paths.HISTORY) as table:
            bundles.save(folder, bundle)
            pd.DataFrame(result.history).to_csv(table, index=False, float_format="%.9g")
        files = [paths.HISTORY, paths.DATA_REPORT, paths.CONTACT_SHEET]
        run_log.trained(log, bundle.made_from, paths.BUNDLE, files)
        log.tags({tracker.BUNDLE: digest.of_folder(paths.BUNDLE)})
    checkpoint.clear()
    audit = result.audit
    return (
        f"finetune: {audit.frozen_layers} of {audit.layers} layers frozen, {audit.trainable_parameters:,} parameters "
        f"trained, {audit.frozen_weights_unchanged} frozen weights proved unchanged; "
        f"val_accuracy {result.kept.val_accuracy:.4f}"
    )


def _origin(job: str) -> dict[str, str]:
    """Which trial of a sweep this training repeats, as tags; none where it repeats none."""
    try:
        known = json.loads((paths.origins() / f"{job}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {f"frostline.{key}": str(value) for key, value in known.items()}


def augmented(train: shards.Shards, settings: AugmentSection) -> list[shards.Shards]:
    """The stored variants of exactly these training pictures, none where they are drawn live. Raises DataError where
    augment has not run for them."""
    copies = settings.copies if settings.stored else 0
    variants = [shards.open_folder(path, train.memory) for path in sorted(paths.AUGMENTED.glob("variant-*"))]
    originals = train.index["sha256"]
    if len(variants) != copies or not all(variant.index["sha256"].equals(originals) for variant in variants):
        raise DataError(
            f"{paths.AUGMENTED}: does not hold augment.copies = {copies} variants of the pictures in "
            f"{train.folder}; run `dvc repro`"
        )
    return variants


def _reporter(
    params: Params, job: str, save: Callable[[Snapshot], None], log: Run
) -> Callable[[HistoryRow, Callable[[], Snapshot]], None]:
    """After every epoch: a line for the person, the numbers for the tracker, a snapshot for the case of a kill."""
    epochs = {"head": params.finetune.head_epochs if params.head.is_dense else 1, "finetune": params.finetune.epochs}
    began = time.monotonic()
    board = _board(params, job)

    def report(row: HistoryRow, snapshot: Callable[[], Snapshot]) -> None:
        nonlocal began
        now = time.monotonic()
        log.epochs([row], seconds=now - began)
        board(row)
        save(snapshot())
        print(
            f"{row.phase:>8} {row.epoch:>3}/{epochs[row.phase]}  loss {row.loss:.4f}  accuracy {row.accuracy:.4f}  "
            f"val_loss {row.val_loss:.4f}  val_accuracy {row.val_accuracy:.4f}  "
            f"{now - began:.1f} s",
            flush=True,
        )
        began = time.monotonic()

    return report


def _board(params: Params, job: str) -> Callable[[HistoryRow], None]:
    """What writes an epoch's numbers for TensorBoard, laid out as Keras's callback does, where params.yaml asks."""
    settings = params.finetune.callbacks.TensorBoard
    if settings is None:
        return lambda row: None
    import tensorflow as tf

    folder = paths.root() / settings.log_dir / job[:12]
    writers = {kind: tf.summary.create_file_writer(str(folder / kind)) for kind in ("train", "validation")}

    def write(row: HistoryRow) -> None:
        for key, value in row.numbers.items():
            writer = writers["validation" if key.startswith("val_") else "train"]
            with writer.as_default():
                tf.summary.scalar(f"epoch_{key.removeprefix('val_')}", value, step=row.step)
            writer.flush()

    return write
