"""Stage `finetune`: train the classifier, and write a bundle and the history of the training."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pandas as pd

from frostline import paths
from frostline.core import atomic, digest
from frostline.core.executors import Executor
from frostline.core.history import DIGITS, HistoryRow
from frostline.models import backend, weights
from frostline.params.schema import Params
from frostline.tracking import lineage, model_uris, run_log, tracker
from frostline.tracking.runs import NullRun, Run
from frostline.training import inputs, job, tensorboard
from frostline.training.inputs import Inputs

if TYPE_CHECKING:
    from frostline.models.bundles import Bundle
    from frostline.training.checkpoints import Checkpoint
    from frostline.training.loop import Snapshot, Watch


def run(params: Params, executor: Executor | None = None) -> str:
    """Train. Returns one line about the result. Raises StateError if another process trains in this folder.

    executor: where the features that are stored are computed, None for this process.
    """
    locate = model_uris.locator(params.tracking)
    inputs.check(params, locate)
    tensorboard.require(params)
    training_inputs = inputs.open_all(params, executor)
    with job.alone():
        return _train(params, training_inputs, locate)


def _train(params: Params, training_inputs: Inputs, locate: weights.Locate) -> str:
    # Imported here, so that a mistake in params.yaml shows at once and not after the 12 seconds of TensorFlow's import.
    with backend.quiet():
        from frostline.models import bundles, devices
        from frostline.training import averaging
        from frostline.training.trainer import Trainer

    sets = [*training_inputs.variants, training_inputs.validation]
    number = devices.chosen(params.finetune.devices, params.finetune.batch_size).number
    if number > 1:
        print(f"finetune: {number} devices share each batch", flush=True)
    key = job.key(params, sets, locate)
    run_tracker = tracker.tracker(params.tracking)
    with run_tracker.training(key, run_log.name(params)) as log:
        view = run_tracker.view(log)
        if view is not None and view.startswith("http"):
            print(f"finetune: its run is {view}", flush=True)
        read = lineage.inputs(paths.DVC_LOCK, [paths.PREPARED, paths.AUGMENTED])
        origin = lineage.tags(paths.DVC_LOCK, [paths.REPORTS]) | job.origin(key)
        run_log.started(log, run_log.flat(job.settings(params)), read, origin | {"frostline.devices": str(number)})
        for context, images in {"training": training_inputs.train, "validation": training_inputs.validation}.items():
            counts = run_log.counts(len(images), len(images.layout.classes))
            log.dataset(params.data.source, images.source_digest(), context, counts)
        trainer = Trainer(training_inputs.features, locate)
        trainings = _Trainings(len(params.finetune.trainings), log, lambda settings: job.key(settings, sets, locate))
        result = averaging.train(trainer, params, training_inputs.data, trainings.begin)
        if params.finetune.soup:
            log.epochs([result.final_row])  # which is that of no training
        bundle = _answering(params, training_inputs, _calibrated(params, training_inputs, result.bundle))
        with atomic.folder(paths.BUNDLE) as folder, atomic.file(paths.HISTORY) as table:
            bundles.save(folder, bundle)
            pd.DataFrame(result.history).to_csv(table, index=False, float_format=f"%.{DIGITS}g")
        run_log.trained(log, bundle.made_from, paths.BUNDLE, [paths.HISTORY, paths.DATA_REPORT, paths.CONTACT_SHEET])
        log.tags({tracker.BUNDLE: digest.of_folder(paths.BUNDLE)})
    trainings.forget()
    audit = result.audit
    average = f"average of {len(params.finetune.soup)} trainings; " if params.finetune.soup else ""
    return (
        f"finetune: {average}{audit.frozen_layers} of {audit.layers} layers frozen, "
        f"{audit.trainable_parameters:,} parameters trained, {audit.frozen_weights_unchanged} frozen weights proved "
        f"unchanged; val_accuracy {result.final_row.val_accuracy:.4f}"
    )


def _calibrated(params: Params, training_inputs: Inputs, bundle: Bundle) -> Bundle:
    """The bundle with a temperature that is fitted on the validation split, if params.yaml asks for it."""
    if params.evaluate.calibrate == "none":
        return bundle
    from frostline.features import predictor
    from frostline.models import calibration

    logits = predictor.logits(bundle, training_inputs.validation, training_inputs.features, params.cache.mode)
    return bundle.calibrated(calibration.fit_temperature(logits, training_inputs.validation.labels))


def _answering(params: Params, training_inputs: Inputs, bundle: Bundle) -> Bundle:
    """The bundle with the sets and "none of these" that params.yaml asks for."""
    from frostline.uncertainty import fitting

    images = fitting.Images(training_inputs.train, training_inputs.validation, training_inputs.calibration)
    return fitting.fit(bundle, images, params.evaluate, training_inputs.features, params.cache.mode, params.seed)


class _Trainings:
    """The trainings of a job: one, or one for each ingredient of a soup.

    Each has a snapshot under a key of its own until the whole job is done, so a killed soup continues within its
    ingredient. The run in MLflow has the epochs of the first one.
    """

    def __init__(self, count: int, log: Run, key: Callable[[Params], str]) -> None:
        self.count, self.log, self.key = count, log, key
        self._checkpoints: list[Checkpoint] = []

    def begin(self, settings: Params) -> tuple[Snapshot | None, Watch]:
        """What a training resumes from, and what watches it."""
        from frostline.training import checkpoints, loop

        key = self.key(settings)
        checkpoint = checkpoints.Checkpoint(paths.checkpoints() / f"{key}{checkpoints.SUFFIX}")
        log = NullRun() if self._checkpoints else self.log
        self._checkpoints.append(checkpoint)
        if self.count > 1:
            print(f"finetune: ingredient {len(self._checkpoints)} of {self.count}", flush=True)
        resume = checkpoint.load()
        if resume is not None:
            print(f"finetune: resuming after epoch {resume.position.epoch} of phase {resume.phase}", flush=True)
        log.epochs(resume.position.history if resume else [])
        reporter = _Reporter(settings, key, checkpoint.keep, log)
        return resume, loop.Watch(reporter.epoch, on_weights=reporter.weights, on_plan=reporter.plan)

    def forget(self) -> None:
        """Remove the snapshots."""
        for checkpoint in self._checkpoints:
            checkpoint.clear()


class _Reporter:
    """Reports a training while it runs: lines in the terminal, tags and metrics in MLflow, files for TensorBoard. It
    also saves a snapshot after every epoch, in case the process is killed."""

    def __init__(self, params: Params, key: str, save: Callable[[Snapshot], None], log: Run) -> None:
        self.save, self.log, self.board = save, log, tensorboard.writer(params, key)
        head_epochs = params.finetune.head_epochs if params.head.is_dense else 1  # scikit-learn needs only one
        self.epochs = {"head": head_epochs, "finetune": params.finetune.epochs}
        self.epoch_start = time.monotonic()

    def weights(self, loaded: object) -> None:
        self._report("frostline.weights", str(loaded))

    def plan(self, line: str) -> None:
        self._report("frostline.plan", line)

    def epoch(self, row: HistoryRow, snapshot: Callable[[], Snapshot]) -> None:
        seconds = time.monotonic() - self.epoch_start
        self.log.epochs([row], seconds)
        self.board(row)
        self.save(snapshot())
        print(
            f"{row.phase:>8} {row.epoch:>3}/{self.epochs[row.phase]}  loss {row.loss:.4f}  "
            f"accuracy {row.accuracy:.4f}  val_loss {row.val_loss:.4f}  val_accuracy {row.val_accuracy:.4f}  "
            f"{seconds:.1f} s",
            flush=True,
        )
        self.epoch_start = time.monotonic()

    def _report(self, tag: str, line: str) -> None:
        print(line, flush=True)
        self.log.tags({tag: line})
