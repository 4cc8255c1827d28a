"""The rivals of sweep.py: searches with Optuna and with Keras Tuner around the Keras guide's way of training.

Each takes a `Run` and learns from the images in the folder `photos`. Only sweep.py calls them, each in a process of
its own; Keras is imported before the clock starts.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import optuna
import tensorflow as tf

from frostline.models import backbones

if TYPE_CHECKING:
    from sweep import Outcome, Run

TRIALS_PER_ITERATION = 10  # that Keras Tuner's Hyperband makes with 8 epochs and factor 3: 5 of 3 epochs, 2 + 3 of 8

Sets = dict[str, tf.data.Dataset]


class Clock:
    """Seconds that a contestant worked: stands still while the file that SWEEP_HOLD names exists.

    A sweep of the guide takes over an hour; what else has to run on the machine meanwhile must not count as its time.
    """

    def __init__(self) -> None:
        self.held = 0.0
        self.hold = Path(os.environ["SWEEP_HOLD"]) if "SWEEP_HOLD" in os.environ else None

    def now(self) -> float:
        return time.perf_counter() - self.held

    def rest(self) -> None:
        """Wait while we are held; called between epochs, where nothing is under way."""
        begun = time.perf_counter()
        while self.hold and self.hold.exists():
            time.sleep(1)
        self.held += time.perf_counter() - begun


CLOCK = Clock()


class Rest(keras.callbacks.Callback):
    """Waits after every epoch while the machine is needed elsewhere."""

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        CLOCK.rest()


@dataclass
class Ledger:
    """What came of each trial; the clock runs from when this is made. weights: of the best completed trial's model."""

    start: float = field(default_factory=CLOCK.now)
    trials: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] | None = None
    weights: list[np.ndarray] = field(default_factory=list)

    def add(self, begun: float, state: str, scores: list[float], searched: dict[str, Any]) -> bool:
        """Note a trial that ends now. scores: validation accuracy of its epochs. True where it is the best so far."""
        now = CLOCK.now()
        trial = {
            "number": len(self.trials),
            "state": state,
            "value": max(scores, default=None),
            "epochs": len(scores),
            "seconds": now - begun,
            "finished": now - self.start,
            **searched,
        }
        self.trials.append(trial)
        if state != "complete" or (self.best is not None and self.best["value"] >= trial["value"]):
            return False
        self.best = trial
        return True

    def outcome(self, test: Callable[[], float]) -> Outcome:
        """The sweep ends now. test: measures the best model's test accuracy, after the clock was read."""
        seconds = CLOCK.now() - self.start
        return {"seconds": seconds, "test": test(), "results": self.trials}


class Reporter(keras.callbacks.Callback):
    """Tells Optuna the validation accuracy after every epoch, and ends what is to be pruned."""

    def __init__(self, trial: optuna.Trial) -> None:
        super().__init__()
        self.trial, self.scores = trial, []

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.scores.append((logs or {})["val_accuracy"])
        self.trial.report(self.scores[-1], step=epoch + 1)
        if self.trial.should_prune():
            raise optuna.TrialPruned


def guide(run: Run, pruner: optuna.pruners.BasePruner) -> Outcome:
    """Optuna's TPE around the guide's script: what one writes who has both."""
    keras.utils.set_random_seed(run.seed)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    ledger = Ledger()
    sets = load(run, "train", "val")

    def objective(trial: optuna.Trial) -> float:
        begun = CLOCK.now()
        keras.backend.clear_session()
        cut = trial.suggest_categorical("cut", run.about.cuts)
        rate = trial.suggest_float("rate", *run.about.rates, log=True)
        model = build(run, cut, rate)
        reporter = Reporter(trial)
        callbacks = [stopping(), Rest(), reporter]
        try:
            model.fit(sets["train"], validation_data=sets["val"], epochs=run.epochs, callbacks=callbacks, verbose=0)
        except optuna.TrialPruned:
            ledger.add(begun, "pruned", reporter.scores, trial.params)
            raise
        if ledger.add(begun, "complete", reporter.scores, trial.params):
            ledger.weights = model.get_weights()
        return max(reporter.scores)

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=run.seed), pruner=pruner)
    study.optimize(objective, n_trials=run.trials)

    def test() -> float:
        model = build(run, study.best_params["cut"], study.best_params["rate"])
        model.set_weights(ledger.weights)
        return accuracy(run, model)

    return ledger.outcome(test)


def plain(run: Run) -> Outcome:
    """Every trial is trained to its end."""
    return guide(run, optuna.pruners.NopPruner())


def pruned(run: Run) -> Outcome:
    """With successive halving as Optuna has it."""
    return guide(run, optuna.pruners.SuccessiveHalvingPruner())


def hyperband(run: Run) -> Outcome:
    """Keras Tuner's Hyperband, with as many iterations as make about as many trials."""
    import keras_tuner

    keras.utils.set_random_seed(run.seed)
    ledger = Ledger()

    class Timed(keras_tuner.Hyperband):
        def run_trial(self, trial: Any, *arguments: Any, **named: Any) -> Any:
            begun = CLOCK.now()
            histories = super().run_trial(trial, *arguments, **named)
            ledger.add(begun, "complete", histories[0].history["val_accuracy"], trial.hyperparameters.values)
            return histories

        def _configure_tensorboard_dir(self, *arguments: Any) -> None:
            """Would import TensorBoard, which TensorFlow no longer brings along; no callback here needs it."""

    def model(hp: Any) -> keras.Model:
        low, high = run.about.rates
        cut = hp.Choice("cut", list(run.about.cuts), ordered=True)
        return build(run, cut, hp.Float("rate", low, high, sampling="log"))

    with tempfile.TemporaryDirectory() as folder:
        sets = load(run, "train", "val")
        tuner = Timed(
            model,
            objective="val_accuracy",
            max_epochs=run.epochs,
            factor=3,
            hyperband_iterations=max(1, round(run.trials / TRIALS_PER_ITERATION)),
            seed=run.seed,
            directory=folder,
            project_name="sweep",
        )
        tuner.search(sets["train"], validation_data=sets["val"], callbacks=[stopping(), Rest()], verbose=0)
        return ledger.outcome(lambda: accuracy(run, tuner.get_best_models(1)[0]))


def load(run: Run, *splits: str) -> Sets:
    """The splits of `photos`, decoded in their first epoch and in memory ever after."""
    size = (run.about.size, run.about.size)
    return {
        split: keras.utils.image_dataset_from_directory(
            Path("photos") / split, image_size=size, batch_size=run.about.batch, seed=run.seed, verbose=False
        )
        .cache()
        .prefetch(tf.data.AUTOTUNE)
        for split in splits
    }


def build(run: Run, cut: int, rate: float) -> keras.Model:
    """The guide's model with the first `cut` layers of its body frozen, compiled."""
    about = run.about
    base = backbones.build(about.backbone, about.weights, about.size).model  # a Keras application as Keras gives it
    base.trainable = True
    for place, layer in enumerate(base.layers):
        if place < cut or isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
    inputs = keras.Input((about.size, about.size, 3))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    x = keras.layers.GlobalAveragePooling2D()(base(x, training=False))
    model = keras.Model(inputs, keras.layers.Dense(about.classes)(keras.layers.Dropout(about.dropout)(x)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
    return model


def stopping() -> keras.callbacks.EarlyStopping:
    """Nothing is stopped within 8 epochs, but the best of them is kept."""
    return keras.callbacks.EarlyStopping(monitor="val_accuracy", patience=8, restore_best_weights=True)


def accuracy(run: Run, model: keras.Model) -> float:
    """A model's accuracy on the test split."""
    return model.evaluate(load(run, "test")["test"], verbose=0, return_dict=True)["accuracy"]
