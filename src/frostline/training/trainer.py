"""One training from its settings to a bundle, with everything kept that the next training can use again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import keras
import numpy as np
from numpy.typing import NDArray

from frostline.core.history import HistoryRow
from frostline.features.store import Store
from frostline.models import (
    all_depths,
    assembly,
    backbones,
    backend,
    bundles,
    devices,
    freezing,
    heads,
    vision_transformer,
)
from frostline.models import weights as files
from frostline.models.made_from import Audit, BackboneOrigin, MadeFrom, SourceDigests
from frostline.params.schema import Params
from frostline.training import course, examples, sklearn_training, two_phases
from frostline.training.examples import Outcome, TrainingData
from frostline.training.loop import NOBODY, Snapshot, Watch
from frostline.training.networks import Network, Recent

NETWORKS = 4  # at most, that are kept

# Settings of the head that its layers do not depend on.
NOT_BUILT = {"dropout", "classifier", "classifier_args", "features"}


@dataclass(frozen=True)
class Result:
    """bundle: the trained classifier; history: one row for each epoch; final_row: the row of the weights in the bundle;
    audit: the proof that frozen weights did not change."""

    bundle: bundles.Bundle
    history: list[HistoryRow]
    final_row: HistoryRow
    audit: Audit


class Trainer:
    """Trains once or many times. Networks, compiled steps and trained heads are kept for the next training.

    They are reset before they are used again, so a training ends with the same weights as in a new process. Their
    number is limited: the least recently used ones are removed. locate: gives the place of `backbone.weights` on this
    machine.
    """

    def __init__(self, store: Store, locate: files.Locate = str) -> None:
        self.store, self.locate = store, locate
        self._networks: Recent[Network] = Recent(NETWORKS)

    def run(
        self,
        params: Params,
        data: TrainingData,
        resume: Snapshot | None = None,
        watch: Watch = NOBODY,
    ) -> Result:
        """Train a classifier by the settings; for those with `finetune.soup` see `averaging.train`.

        resume: the last snapshot of an unfinished run of the same job. The model of the result is valid until the next
        training. Raises UserError for bad settings, InternalError if a frozen weight changed.
        """
        network = self.network(params, data)
        if network.backbone.loaded:
            watch.on_weights(network.backbone.loaded)
        train = two_phases.train if params.head.is_dense else sklearn_training.train
        outcome = train(params, data, network, self.store, watch, resume)
        return self.result(params, data, network, outcome)

    def result(self, params: Params, data: TrainingData, network: Network, outcome: Outcome) -> Result:
        """The bundle of a finished training, with all that it was made from."""
        made_from = self._made_from(params, data, network.backbone, outcome)
        bundle = bundles.Bundle(outcome.whole, data.validation.layout, made_from)
        return Result(bundle, outcome.history, outcome.final_row, outcome.audit)

    def _made_from(
        self, params: Params, data: TrainingData, backbone: backbones.Backbone, outcome: Outcome
    ) -> MadeFrom:
        """The origin of the bundle."""
        content = files.content(self.locate(params.backbone.weights))
        origin = BackboneOrigin(**params.backbone.model_dump(), weights_sha256=content, loaded=backbone.loaded)
        return MadeFrom(
            seed=params.seed,
            backbone=origin,
            head=params.head.model_dump(),
            finetune={**params.finetune.model_dump(exclude={"devices"}), "precision": _precision(params)},
            cache_dtype=params.cache.dtype,
            augment=params.augment.model_dump(include={"mode", "mixup", "cutmix"}),
            copies=len(data.variants) - 1,
            audit=outcome.audit,
            data=SourceDigests(data.variants[0].source_digest(), data.validation.source_digest()),
            keras=keras.__version__,
            groups=tuple(outcome.groups),
        )

    def range_test(
        self, params: Params, data: TrainingData, rates: NDArray[np.float64], is_over: Callable[[list[float]], bool]
    ) -> list[float]:
        """The losses of batches at rising learning rates at the start of fine-tuning (behind the final freeze line,
        with a trained head), or of the head's phase without fine-tuning. is_over: see `loop.Learner.range_test`."""
        settings = params.finetune
        if settings.head_epochs and settings.epochs:
            head_only = settings.model_copy(update={"epochs": 0})
            self.run(params.model_copy(update={"finetune": head_only}), data)
            network = self.network(params, data, is_fresh=False)
        else:
            network = self.network(params, data)
        body = network.backbone.model
        stage = course.stages(params, body)[-1]
        plan = examples.make_plan(params, network, [stage], data, self.store)
        train_batch_norm = two_phases.trains_batch_norm(params, network)
        freezing.freeze(body, stage.phase.band, train_batch_norm)
        with freezing.without_noise(body, stage.phase.band):
            train_examples, _ = examples.of_stage(params, data, plan, stage)
            return network.learner(stage, train_batch_norm).range_test(stage.phase, train_examples, rates, is_over)

    def network(self, params: Params, data: TrainingData, is_fresh: bool = True) -> Network:
        """The network of these settings: reset if `is_fresh`, else with the weights of the last training.

        This also sets Keras's global dtype policy to the precision of the training.
        """
        layout = data.validation.layout
        backbone_settings, precision = params.backbone, _precision(params)
        head_settings = params.head.model_dump_json(exclude=NOT_BUILT - {"features"})
        several = devices.chosen(params.finetune.devices, params.finetune.batch_size)
        of_data = (layout.image_size, len(layout.classes))
        key = (backbone_settings, head_settings, *of_data, params.seed, precision, several)
        keras.config.set_dtype_policy(precision)
        network = self._networks.get(key)
        if network is None:
            backend.make_deterministic(params.seed)
            backbone = backbones.of_section(backbone_settings, self.locate, layout.image_size)
            if params.head.features == "all_depths":
                backbone = replace(backbone, model=all_depths.extended(backbone.model))
            shape = backbone.model.output.shape[1:]
            params.head.require_fit(len(layout.classes))
            leading = vision_transformer.leading_tokens(backbone.model)
            head_options = params.head.model_dump(exclude=NOT_BUILT)
            head = heads.build(shape, len(layout.classes), **head_options, leading=leading)
            network = Network(backbone, head, assembly.whole(backbone, head), several)
            self._networks.put(key, network)
        if is_fresh:
            network.reset()
        network.head.set_dropout(params.head.dropout)
        return network


def _precision(params: Params) -> str:
    """The precision of training, as a dtype policy of Keras."""
    precision = params.finetune.precision
    return backend.best_precision() if precision == "auto" else precision
