"""Where everything lies: the only file that names paths.

Stage inputs and outputs are relative to the working directory, which DVC sets to the folder of dvc.yaml. State that
must outlive a run (tracking database, feature store, checkpoints) hangs from the project root, because
`dvc exp run --temp` and `--queue` run in a copy of the project that is deleted afterwards.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

PARAMS = Path("params.yaml")
RECIPES = Path("recipes")
CARD_SUFFIXES = {".yaml", ".yml"}  # of a data.source that names a built-in, generated or downloaded data set
PIPELINE = Path("dvc.yaml")
DVC_LOCK = Path("dvc.lock")
REQUIREMENTS = Path("requirements.lock")
PYPROJECT = Path("pyproject.toml")
SCHEMA = Path("params.schema.json")  # of params.yaml, for editors
WHEELS = Path("wheels")  # packages that no index has

PREPARED = Path("data/prepared")
AUGMENTED = Path("data/augmented")
BUNDLE = Path("models/classifier")

REPORTS = Path("reports")
DATA_REPORT = REPORTS / "data.json"
PROBLEMS = REPORTS / "problems.parquet"
NEAR_COPIES = REPORTS / "near_copies.parquet"
CONTACT_SHEET = REPORTS / "augment.png"
HISTORY = REPORTS / "history.csv"
METRICS = REPORTS / "metrics.json"
PREDICTIONS = REPORTS / "predictions.parquet"
CONFUSION = REPORTS / "confusion.csv"
PER_CLASS = REPORTS / "per_class.csv"
PLOTS = REPORTS / "plots"
MODEL_CARD = REPORTS / "model_card.md"
SWEEP = REPORTS / "sweep"
LR_FIND = REPORTS / "lr_find"
CHOOSE = REPORTS / "choose"


def root() -> Path:
    """The project root, absolute: DVC_ROOT inside a stage, else the nearest parent with a .dvc folder."""
    if named := os.environ.get("DVC_ROOT"):
        return Path(named).resolve()
    here = Path.cwd().resolve()
    return next((folder for folder in (here, *here.parents) if (folder / ".dvc").is_dir()), here)


def state() -> Path:
    """The folder of everything that is neither source nor stage output."""
    return root() / ".frostline"


def features() -> Path:
    """The activation store: FROSTLINE_CACHE (relative to the root) if it is set, so that projects can share one."""
    location = os.environ.get("FROSTLINE_CACHE")
    return root() / location if location else state() / "features"


def checkpoints() -> Path:
    """Half-finished training, to resume from."""
    return state() / "checkpoints"


def sweeps() -> Path:
    """Paused trials, and what the workers of a sweep tell one another."""
    return state() / "sweeps"


def origins() -> Path:
    """Which trial of which study a training repeats: a small file a training, named by `jobs.key`."""
    return state() / "origins"


def last_images() -> Path | None:
    """What `prepare` compares a source with; None in a copy of the project, of which nothing is kept."""
    return state() / "last_images.parquet" if Path.cwd().resolve() == root() else None


def tracking_database() -> Path:
    """MLflow's default database."""
    return root() / "mlflow.db"


def models() -> Path:
    """Registered models that were fetched from another machine."""
    return state() / "models"


def training_lock() -> Path:
    """Held by the process that trains in this working directory."""
    return state() / f"training-{hashlib.sha256(str(Path.cwd().resolve()).encode()).hexdigest()[:12]}.lock"


def tracking_artifacts() -> Path:
    """Where runs in the default database keep their files."""
    return root() / "mlartifacts"
