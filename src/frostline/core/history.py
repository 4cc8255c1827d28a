"""A row of a training's history."""

from __future__ import annotations

from dataclasses import asdict, dataclass

# Significant digits of numbers in the reports that a project commits. Further ones differ between kinds of processors.
DIGITS = 4


@dataclass(frozen=True)
class HistoryRow:
    """The numbers of one epoch, a row of reports/history.csv.

    step: epoch over all phases, from 1; epoch: within its phase, from 1, a float in the middle of an epoch; loss,
    accuracy: of the training batches during the epoch; val_loss, val_accuracy: of all validation images after it;
    frozen_layers: number of frozen layers of the backbone. The last row of a soup (see `training.averaging`) has the
    phase `soup`, and loss and accuracy of all training images.
    """

    step: int
    phase: str
    epoch: float
    learning_rate: float
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float
    frozen_layers: int

    @property
    def is_whole(self) -> bool:
        """Whether the epoch is complete."""
        return isinstance(self.epoch, int)

    @property
    def numbers(self) -> dict[str, float]:
        """The measured values, by name."""
        return {name: value for name, value in asdict(self).items() if name not in {"step", "phase", "epoch"}}

    def value(self, metric: str) -> float:
        """The value with this name."""
        return float(getattr(self, metric))
