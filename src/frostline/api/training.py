"""Train without DVC: the stages of the pipeline, one after the other in this process, in a folder of their own."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from frostline import paths
from frostline.api import pages
from frostline.api.classifier import Classifier
from frostline.core import own_code
from frostline.errors import UserError
from frostline.params import edit, schema
from frostline.params.schema import Params
from frostline.project import template
from frostline.stages import augment, evaluate, finetune, prepare

if TYPE_CHECKING:
    Settings = Params | Mapping[str, Any] | str | Path | None

TABLE = Path("images.csv")  # of images that were given as a table
COLUMNS = ("path", "label")  # that such a table must have
SHOWN = {"accuracy": "accuracy", "macro_f1": "macro F1", "log_loss": "log loss", "ece": "calibration error (ECE)"}


@dataclass(frozen=True, repr=False)
class Trained:
    """The result of a training. folder: has params.yaml and what the pipeline writes, such as reports/model_card.md."""

    folder: Path

    @cached_property
    def classifier(self) -> Classifier:
        """The trained classifier."""
        return Classifier(self.folder / paths.BUNDLE)

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """What `evaluate` measured on the test split, as in reports/metrics.json."""
        values: dict[str, Any] = json.loads((self.folder / paths.METRICS).read_text(encoding="utf-8"))
        return values

    @cached_property
    def history(self) -> pd.DataFrame:
        """A row for each epoch: phase, epoch, learning_rate, loss, accuracy, val_loss, val_accuracy and more."""
        return pd.read_csv(self.folder / paths.HISTORY)

    def __repr__(self) -> str:
        low, high = self.metrics["accuracy_ci95"]
        return (
            f"Trained: test accuracy {self.metrics['accuracy']:.4f} ({low:.4f} to {high:.4f}, 95%) on "
            f"{self.metrics['n_test']} images, in {self.folder}"
        )

    def _repr_html_(self) -> str:
        return pages.scores(repr(self), [(name, f"{self.metrics[key]:.4f}") for key, name in SHOWN.items()])


def train(images: str | Path | pd.DataFrame, params: Settings, folder: str | Path | None) -> Trained:
    """See `frostline.train`."""
    place = Path(folder).resolve() if folder else Path(tempfile.mkdtemp(prefix="frostline-"))
    if folder and place.exists() and any(place.iterdir()):
        raise UserError(f"{folder}: is not empty; name another folder for the results")
    place.mkdir(parents=True, exist_ok=True)
    _write_params(place / paths.PARAMS, params, _source(images, place))
    own_code.make_importable()  # those of the notebook's folder
    with contextlib.chdir(place):
        settings = schema.load(paths.PARAMS)
        for stage in (prepare, augment, finetune, evaluate):
            print(stage.run(settings), flush=True)
    return Trained(place)


def _source(images: str | Path | pd.DataFrame, place: Path) -> str:
    """The value of data.source: an absolute path. A table is written into the folder."""
    if not isinstance(images, pd.DataFrame):
        return str(Path(images).expanduser().resolve())
    if missing := [column for column in COLUMNS if column not in images]:
        raise UserError(f"the table of images has no column {' and no column '.join(missing)}; name its columns so")
    table = images.assign(path=[str(Path(path).expanduser().resolve()) for path in images["path"]])
    table.to_csv(place / TABLE, index=False)
    return str(place / TABLE)


def _write_params(path: Path, params: Settings, source: str) -> None:
    """Write params.yaml: the given settings, with this data.source, and without tracking."""
    changes: dict[str, Any] = {"data.source": source, "tracking.uri": "none"}
    if isinstance(params, str | Path):
        shutil.copyfile(params, path)
    elif isinstance(params, Params):
        path.write_text(json.dumps(params.model_dump(mode="json"), indent=2) + "\n", encoding="utf-8")
    else:
        shutil.copyfile(template.PARAMS, path)
        changes = {**dict(_dotted(params or {})), **changes}
    edit.change(path, changes)


def _dotted(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Values by dotted keys, from dotted keys or sections."""
    for key, value in values.items():
        if key in Params.model_fields and isinstance(value, Mapping):
            yield from _dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
