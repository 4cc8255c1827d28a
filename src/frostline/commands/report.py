"""`frostline report`: the numbers of the last evaluation, as they lie in reports/metrics.json."""

from __future__ import annotations

import json

from frostline import paths
from frostline.errors import DataError
from frostline.evaluation import summary
from frostline.params.schema import Params


def run(params: Params | None) -> str:
    """The summary of the last evaluation, or metrics.json itself if params is None."""
    if not paths.METRICS.is_file():
        raise DataError(f"{paths.METRICS}: not found; run `dvc repro` first")
    text = paths.METRICS.read_text(encoding="utf-8")
    if params is None:
        return text.rstrip()
    return summary.text(json.loads(text), paths.MODEL_CARD, params.finetune.freeze)
