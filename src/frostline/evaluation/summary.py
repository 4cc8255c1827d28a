"""The text that is printed at the end of the pipeline: accuracy, interval, report, and what to try next."""

from __future__ import annotations

from pathlib import Path

from frostline import paths
from frostline.evaluation.scores import Scores
from frostline.models import backbones
from frostline.params.schema import Params

POOR = "warning: this is not clearly better than the commonest class; check data, backbone and learning rate"
PHOTOS = "frostline recipe photos --apply --image-size   # for photos: a backbone that ImageNet trained"


def text(scores: Scores, report: Path, params: Params, view: str | None) -> str:
    """A few lines. report: the model card; params: of the training; view: a page or a command that shows the run."""
    low, high = scores.accuracy.interval or (0.0, 1.0)
    activate = "source .venv/bin/activate && " if Path(".venv").is_dir() else ""
    experiment = f"{activate}dvc exp run -S {_other(params)}"
    is_page = view is not None and view.startswith("http")
    steps = [f"{view:<22} # compare runs in the MLflow UI"] if view is not None and not is_page else []
    steps += [PHOTOS] if _wants_photos(params) else []
    return "\n".join(
        [
            f"test accuracy {scores.accuracy.value:.4f} (95% interval {low:.4f} to {high:.4f}, n = {scores.n_test})",
            f"baseline      {scores.commonest_class:.4f} (always the commonest class)",
            *_promises(scores),
            f"report        {report}",
            *([f"run           {view}"] if is_page else []),
            *(f"{'' if number else 'next':<13} {step}" for number, step in enumerate([*steps, experiment])),
            *([POOR] if low <= scores.commonest_class else []),
        ]
    )


def _promises(scores: Scores) -> list[str]:
    """What was promised of sets and of "none of these", and what was measured."""
    lines = []
    if scores.set_coverage is not None:
        share, size = scores.set_coverage.value, scores.set_size
        lines.append(
            f"sets          {share:.4f} have the class (promised {scores.set_promise}); {size:.2f} classes in a set"
        )
    if scores.unknown_rate is not None:
        share, most = scores.unknown_rate.value, scores.unknown_promise
        lines.append(f"unknown       {share:.4f} are called so (promised: at most {most})")
    return lines


def _other(params: Params) -> str:
    """Another freeze line to try, as keys and values."""
    freeze = params.finetune.freeze
    line = f"finetune.freeze={'all' if freeze == 'none' else 'none'}"
    return line if freeze is not None else f"{line} -S finetune.train=null"


def _wants_photos(params: Params) -> bool:
    """Whether images of one's own were learned by a backbone that has no ImageNet weights."""
    is_card = Path(params.data.source).suffix.lower() in paths.CARD_SUFFIXES
    return not is_card and backbones.whereabouts(params.backbone.name) is None
