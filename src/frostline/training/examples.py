"""What a training draws its batches from: the images, or the features of its frozen layers by a plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import keras

from frostline.core.history import HistoryRow
from frostline.data.shards import Rows, Shards
from frostline.features import planning
from frostline.features.store import Store
from frostline.models.made_from import Audit, LayerGroup
from frostline.params.schema import Params
from frostline.training import batching
from frostline.training.course import TrainingStage
from frostline.training.networks import Network


@dataclass(frozen=True)
class TrainingData:
    """The images of a training. variants: the training split first, then its stored variants, in the same row order."""

    variants: Sequence[Shards]
    validation: Shards


@dataclass(frozen=True)
class Outcome:
    """A finished training. whole: images -> probabilities; history: one row for each epoch; final_row: the row of the
    weights in `whole`; audit: the proof that frozen weights did not change."""

    whole: keras.Model
    history: list[HistoryRow]
    final_row: HistoryRow
    audit: Audit
    groups: Sequence[LayerGroup]


def make_plan(
    params: Params, network: Network, stages: Sequence[TrainingStage], data: TrainingData, store: Store
) -> planning.Plan | None:
    """The plan for the stages that begin behind a freeze line; None if no stage does."""
    variants = len(data.variants)
    demands = [
        planning.Demand(
            stage.name,
            stage.line,
            len(stage.phase.stage),
            frozenset(epoch % variants for epoch in stage.phase.stage),
        )
        for stage in stages
        if stage.line is not None
    ]
    if not demands:
        return None
    cache = params.cache
    return planning.make(network.source, demands, data.variants, data.validation, store, cache.mode, cache.dtype)


def describe(plan: planning.Plan | None, stages: Sequence[TrainingStage]) -> str:
    """The plan in one line."""
    live = "every batch is drawn anew and goes through all layers, and nothing is stored"
    parts = [plan.text] if plan else []
    if any(stage.policy is not None for stage in stages):
        parts.append(f"finetune on live variants: {live}" if plan else f"plan: live variants: {live}")
    return "; ".join(parts) or "plan: nothing is frozen, every batch goes through all layers"


def of_stage(
    params: Params, data: TrainingData, plan: planning.Plan | None, stage: TrainingStage
) -> tuple[batching.Examples, batching.Examples]:
    """Training and validation examples of a stage: features by the plan, or images if the stage takes images."""
    train, validation = data.variants[0], data.validation
    weights = None
    if params.finetune.class_weight == "balanced":
        weights = batching.balanced(train.labels, len(train.layout.classes))
    train_rows: Sequence[Rows] = data.variants
    validation_rows: Rows = validation
    if plan is not None and stage.line is not None:
        train_rows = [plan.rows(stage.name, images, variant) for variant, images in enumerate(data.variants)]
        validation_rows = plan.rows(stage.name, validation)
    return batching.Examples(train_rows, train.labels, weights), batching.Examples([validation_rows], validation.labels)
