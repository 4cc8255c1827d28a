"""Training in two phases: the head on frozen features, then everything above the freeze line (LP-FT, Kumar et al.,
"Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution", ICLR 2022)."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace

from frostline.core.history import HistoryRow
from frostline.features.store import Store
from frostline.models import backend, freezing
from frostline.params.schema import Params
from frostline.training import course, examples, phases
from frostline.training.course import TrainingStage
from frostline.training.examples import Outcome, TrainingData
from frostline.training.loop import Snapshot, Watch
from frostline.training.networks import Network, TrainedHead


def train(
    params: Params, data: TrainingData, network: Network, store: Store, watch: Watch, resume: Snapshot | None
) -> Outcome:
    """Train from the present variables, or from a snapshot. Raises InternalError if a frozen weight changed."""
    body = network.backbone.model
    stages = course.stages(params, body)
    head_key = _head_key(params, data, stages)
    history, remaining = _remaining(network, stages, head_key, resume)
    train_batch_norm = trains_batch_norm(params, network)
    plan = examples.make_plan(params, network, remaining, data, store)
    watch.on_plan(examples.describe(plan, remaining))
    for stage in remaining:
        phase, is_head = stage.phase, stage.phase.name == "head"
        freezing.freeze(body, phase.band, train_batch_norm)
        before = freezing.fingerprint(body)
        with freezing.without_noise(body, phase.band):
            history = network.learner(stage, train_batch_norm).fit(
                phase,
                *examples.of_stage(params, data, plan, stage),
                history,
                resume if stage is remaining[0] else None,
                replace(watch, looks=()) if is_head else watch,
                start=head_key if not is_head and phase.stage.start == 0 else None,
            )
        audit = freezing.audit(body, network.whole, phase.band, before)
        if is_head:
            network.heads.put(head_key, TrainedHead(backend.values(network.head.top.variables), list(history)))
    final_row = phases.final_row(history, stages[-1].phase.stopping)
    return Outcome(network.whole, history, final_row, audit, course.groups(stages, body, network.head.top))


def trains_batch_norm(params: Params, network: Network) -> bool:
    """Whether BatchNorm layers above the freeze line are trained."""
    mode = params.finetune.batch_norm
    return mode == "train" or (mode == "auto" and not network.backbone.pretrained)


def _remaining(
    network: Network, stages: Sequence[TrainingStage], head_key: Hashable, resume: Snapshot | None
) -> tuple[list[HistoryRow], list[TrainingStage]]:
    """The history so far, and the stages that are left to train.

    If the network has trained the same head before, its variables are set and its phase is not trained again.
    """
    history = list(resume.position.history) if resume else []
    remaining = [stage for stage in stages if resume is None or stage.is_left(resume)]
    has_both = {stage.phase.name for stage in stages} == {"head", "finetune"}
    trained_head = network.heads.get(head_key) if has_both and (resume is None or resume.phase == "finetune") else None
    if trained_head is not None:
        backend.assign(network.head.top.variables, trained_head.variables)
        history = history or list(trained_head.history)
        remaining = [stage for stage in remaining if stage.phase.name != "head"]
    return history, remaining


def _head_key(params: Params, data: TrainingData, stages: Sequence[TrainingStage]) -> Hashable:
    """A key of everything that the result of the head's phase depends on, except the network."""
    phase = next((stage.phase for stage in stages if stage.phase.name == "head"), None)
    images = [split.digest for split in (*data.variants, data.validation)]
    return (phase, str(params.head.dropout), params.finetune.class_weight, params.cache.dtype, *images)
