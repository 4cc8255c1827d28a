"""The course of a training: its stages, each with one freeze line, by the settings of params.yaml."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import keras

from frostline.core import own_code
from frostline.data import augmentation
from frostline.errors import ParamsError
from frostline.models import bands, freeze_rules, freezing
from frostline.models.freeze_rules import Band
from frostline.models.made_from import LayerGroup
from frostline.params.schedules import Flat, Piecewise, schedule_of
from frostline.params.schema import Params
from frostline.training import loop, phases, schedules, thawing


@dataclass(frozen=True)
class TrainingStage:
    """A part of training with one freeze line. line: where the suffix begins, None if it takes images; policy: of the
    live variants, None if there are none."""

    name: str
    phase: phases.Phase
    line: freezing.CutPoint | None
    policy: augmentation.Policy | None

    def is_left(self, resume: loop.Snapshot) -> bool:
        """Whether the stage is not finished at a snapshot. After its last epoch, it must still take its averaged or
        best weights."""
        if resume.phase != self.phase.name:
            return self.phase.name == "finetune"
        end, position = self.phase.stage.stop, resume.position
        return position.epoch < end or (position.epoch == end and position.batch == 0)


def stages(params: Params, body: keras.Model) -> list[TrainingStage]:
    """The head's phase, then fine-tuning, in several stages if the backbone thaws gradually."""
    settings, rule = params.finetune, freeze_rules.parse(params.finetune.freeze, params.finetune.train)
    result = []
    total = len(body.layers)
    if params.augment.cutmix and settings.epochs and bands.of_rule(body, rule).start == total:
        raise ParamsError(
            f"params.yaml: augment.cutmix needs feature maps, but finetune.freeze {settings.freeze} leaves none behind "
            "the freeze line; set augment.cutmix to 0 (augment.mixup works), or freeze fewer layers"
        )
    if settings.head_epochs:
        phase = _phase(params, "head", settings.head_epochs, range(settings.head_epochs), Band.above(total, total))
        result.append(TrainingStage("head", phase, freezing.deepest_cut(body, total), None))
    policy = augmentation.Policy.of(params.augment) if params.augment.mode == "live" else None
    spans = thawing.stages(body, rule, settings.epochs) if settings.epochs else []
    for band, span in spans:
        name = "finetune" if len(spans) == 1 else f"finetune from epoch {span.start + 1}"
        phase = _phase(params, "finetune", settings.epochs, span, band)
        line = freezing.deepest_cut(body, band.start) if policy is None else None
        result.append(TrainingStage(name, phase, line, policy))
    return result


def one_pass(params: Params, body: keras.Model, variants: int) -> TrainingStage:
    """The one stage of a scikit-learn classifier: it sees every variant once, and the whole backbone is frozen."""
    total = len(body.layers)
    phase = _phase(params, "head", variants, range(variants), Band.above(total, total))
    return TrainingStage("head", phase, freezing.deepest_cut(body, total), None)


def _phase(params: Params, name: str, epochs: int, stage: range, band: Band) -> phases.Phase:
    settings, callbacks = params.finetune, params.finetune.callbacks
    is_head, rule = name == "head", freeze_rules.parse(settings.freeze, settings.train)
    rate = settings.head_learning_rate if is_head else settings.learning_rate
    schedule = schedule_of(settings.schedule)
    if callbacks.LearningRateScheduler:
        schedule = schedules.table(callbacks.LearningRateScheduler.schedule, rate)
    if is_head and isinstance(schedule, Piecewise):  # its rates are meant for fine-tuning
        schedule = Flat()
    plateau, best, stopping = callbacks.ReduceLROnPlateau, callbacks.ModelCheckpoint, settings.early_stopping
    keep_best = phases.Stopping(best.monitor, None) if best else None
    return phases.Phase(
        name=name,
        epochs=epochs,
        stage=stage,
        batch_size=settings.batch_size,
        optimizer=settings.optimizer,
        learning_rate=rate,
        schedule=schedule,
        plateau=phases.Plateau(**plateau.model_dump()) if plateau else None,
        weight_decay=settings.weight_decay,
        momentum=settings.momentum,
        label_smoothing=settings.label_smoothing,
        focal_gamma=settings.focal_gamma if settings.loss == "focal" else None,
        own_loss=settings.loss if own_code.is_reference(settings.loss) else None,
        ema_momentum=settings.ema_momentum,
        layer_decay=settings.layer_decay if rule.is_discriminative and not is_head else 1.0,
        mixup=params.augment.mixup,
        cutmix=params.augment.cutmix,
        stopping=phases.Stopping(**stopping.model_dump()) if stopping else keep_best,
        seed=params.seed,
        band=band,
    )


def groups(stages: Sequence[TrainingStage], body: keras.Model, top: keras.Model) -> list[LayerGroup]:
    """The layer groups of the backbone, from the bottom up, and the head, with the rates at which they were trained."""
    spans = [(each.phase.band, each.phase.stage) for each in stages if each.phase.name == "finetune"]
    rate, decay = (stages[-1].phase.learning_rate, stages[-1].phase.layer_decay) if stages else (0.0, 1.0)
    total = len(body.layers)
    blocks = thawing.groups(body, spans or [(Band.above(total, total), range(0))], rate, decay)
    return [*blocks, LayerGroup("head", len(top.layers), top.count_params(), rate, thawed=1)]
