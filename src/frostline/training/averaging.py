"""Soups: the average of the weights of several trainings that share the start and the head, as one network.

Where a pretrained network was fine-tuned from one start with several settings, the averaged weights are often better
than those of the best training, at the cost of one network (Wortsman et al., "Model soups: averaging weights of
multiple fine-tuned models improves accuracy without increasing inference time", ICML 2022). The line between the
network of which only the head is trained and the fine-tuned one is a soup of two (WiSE-FT: Wortsman et al., "Robust
fine-tuning of zero-shot models", CVPR 2022).

All weights are averaged alike, with `finetune.batch_norm: train` also the moving statistics of BatchNorm. Averages of
weights far from each other need statistics that are measured anew (Izmailov et al., "Averaging Weights Leads to Wider
Optima and Better Generalization", UAI 2018). Trainings from one start have much the same ones, and a sweep measures a
soup as it will be used, so that it doesn't choose one that suffers from them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from frostline.core.history import HistoryRow
from frostline.data.shards import Rows, Shards
from frostline.features import planning
from frostline.models import freezing
from frostline.models.freeze_rules import Band
from frostline.models.made_from import Audit
from frostline.params.schema import Params
from frostline.training import course, two_phases
from frostline.training.batching import Examples
from frostline.training.examples import Outcome, TrainingData
from frostline.training.loop import Snapshot, Watch
from frostline.training.networks import Changed, Network
from frostline.training.trainer import Result, Trainer

PHASE = "soup"  # of the row that an average has in a history


def trainings(params: Params) -> list[Params]:
    """The settings of the trainings whose weights are averaged; without a soup, the settings as they are."""
    if params.finetune.soup is None:
        return [params]
    return [params.model_copy(update={"finetune": finetune}) for finetune, _ in params.finetune.trainings]


def train(
    trainer: Trainer, params: Params, data: TrainingData, begin: Callable[[Params], tuple[Snapshot | None, Watch]]
) -> Result:
    """Train all ingredients of `finetune.soup` and average their weights; without a soup, do the one training.

    begin: gives, for the settings of a training, the snapshot to resume from and what watches it. The history is that
    of the first ingredient and a row of the average. Raises what `Trainer.run` raises.
    """
    weights, histories = list[Changed](), list[list[HistoryRow]]()
    for settings in trainings(params):
        result = trainer.run(settings, data, *begin(settings))
        if params.finetune.soup is None:
            return result
        weights.append(trainer.network(settings, data, is_fresh=False).changed())
        histories.append(result.history)
    network = trainer.network(params, data)
    network.set_average(weights, _shares(params))
    train_scores, scores = _scores(trainer, params, network, [data.variants[0], data.validation])
    audit = _audit(params, network, weights)
    row = HistoryRow(
        step=len(histories[0]) + 1,
        phase=PHASE,
        epoch=1,
        learning_rate=0.0,
        loss=train_scores["loss"],
        accuracy=train_scores["accuracy"],
        val_loss=scores["loss"],
        val_accuracy=scores["accuracy"],
        frozen_layers=audit.frozen_layers,
    )
    outcome = Outcome(network.whole, [*histories[0], row], row, audit, groups=())
    return trainer.result(params, data, network, outcome)


def score(trainer: Trainer, params: Params, data: TrainingData, weights: Sequence[Changed]) -> tuple[float, float]:
    """Validation loss and accuracy of a soup. weights: those that each ingredient of `finetune.soup` changed."""
    network = trainer.network(params, data)
    network.set_average(weights, _shares(params))
    (scores,) = _scores(trainer, params, network, [data.validation])
    return scores["loss"], scores["accuracy"]


def _shares(params: Params) -> list[float]:
    return [share for _, share in params.finetune.trainings]


def _scores(trainer: Trainer, params: Params, network: Network, splits: Sequence[Shards]) -> list[dict[str, float]]:
    """Loss and accuracy of the present weights on each of the splits, as they are measured in a training.

    They are measured from the lowest freeze line of all ingredients on, behind which no weights are equal in all.
    """
    body = network.backbone.model
    last_stages = [(settings, course.stages(settings, body)[-1]) for settings in trainings(params)]
    settings, stage = min(last_stages, key=lambda each: each[1].phase.band.start)
    phase, train_batch_norm = stage.phase, two_phases.trains_batch_norm(settings, network)
    freezing.freeze(body, phase.band, train_batch_norm)
    rows: Sequence[Rows] = splits
    if stage.line is not None:
        once = planning.Demand(PHASE, stage.line, epochs=1, variants={0})
        cache = params.cache
        plan = planning.make(network.source, [once], splits, None, trainer.store, cache.mode, cache.dtype)
        rows = [plan.rows(PHASE, images) for images in splits]
    with freezing.without_noise(body, phase.band):
        learner = network.learner(stage, train_batch_norm)
        return [
            learner.score(phase, Examples([each], images.labels)) for each, images in zip(rows, splits, strict=True)
        ]


def _audit(params: Params, network: Network, weights: Sequence[Changed]) -> Audit:
    """Prove that averaging changed no weight below the lowest freeze line, and count what it may have changed."""
    body = network.backbone.model
    finals = [(settings, course.stages(settings, body)[-1].phase.band) for settings in trainings(params)]
    band = Band.above(min(band.start for _, band in finals), len(body.layers))
    freezing.freeze(body, band, any(two_phases.trains_batch_norm(settings, network) for settings, _ in finals))
    network.reset()
    before = freezing.fingerprint(body)
    network.set_average(weights, _shares(params))
    return freezing.audit(body, network.whole, band, before)
