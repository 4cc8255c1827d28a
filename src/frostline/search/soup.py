"""The soup of a sweep: the average of the weights of its best trials, where that is better on the validation split.

The recipe is the greedy one of Wortsman et al., "Model soups" (ICML 2022): the best trial begins, and each next one is
added if the average is better. The last candidate is the model of which only the head is trained (WiSE-FT: Wortsman et
al., "Robust fine-tuning of zero-shot models", CVPR 2022). Two things differ. The paper's trials are about equally good,
those of a small sweep are not, so a candidate is tried with smaller shares too. And the paper compares accuracies on
thousands of images; here *better* means that neither accuracy nor loss is worse: on a few hundred validation images an
accuracy gains an image by chance, while the loss says what became of all of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from frostline.core import atomic, digest
from frostline.params.finetune import SHARE, VARIED
from frostline.params.schema import Params
from frostline.search import space
from frostline.search.kept_weights import KeptWeights
from frostline.search.progress_lines import PrintLine
from frostline.search.study import Study
from frostline.search.trial_records import TrialRecord
from frostline.training import averaging
from frostline.training.examples import TrainingData
from frostline.training.networks import Changed
from frostline.training.trainer import Trainer

FINALISTS = 5  # at most, whose weights are kept and averaged
SHARES = (0.25, 0.5, 1.0)  # of a candidate, over the mean share of the ingredients so far


@dataclass(frozen=True)
class Soup:
    """A soup that is better than the best trial.

    trials: whose weights are averaged, the best one first; has_head: whether the model with only a trained head is an
    ingredient too; best_accuracy, best_loss: of the best trial on validation; ingredients: the value of
    `finetune.soup`.
    """

    val_accuracy: float
    val_loss: float
    trials: list[int]
    has_head: bool
    best_accuracy: float
    best_loss: float
    ingredients: list[dict[str, Any]]

    def value(self, metric: str) -> float:
        """The value of the sweep's metric."""
        return float(getattr(self, metric))

    @property
    def words(self) -> str:
        """What it is made of."""
        numbers = ", ".join(map(str, self.trials))
        return f"trial{'s' * (len(self.trials) > 1)} {numbers}{' and the head alone' * self.has_head}"


class Soups(Protocol):
    """Makes the soup of a study. found: the soup, None if there is none (yet) that is better than the best trial."""

    found: Soup | None

    def keep(self, number: int, value: float, params: Params) -> None:
        """Keep the weights of a trial that has just ended with this value of the metric, if it is among the best."""

    def make(self) -> None:
        """Make the soup if the search is finished, unless a worker has done it."""


class NoSoups:
    """Makes none."""

    found: Soup | None = None

    def keep(self, number: int, value: float, params: Params) -> None: ...
    def make(self) -> None: ...


class GreedySoups:
    """Soups of the best trials, whose weights are kept in the study's folder until the soup is made."""

    def __init__(
        self,
        params: Params,
        data_of: Callable[[Params], TrainingData],
        study: Study,
        trainer: Trainer,
        print_line: PrintLine,
    ) -> None:
        """params: without a soup; data_of: the images of a trial."""
        self.params, self.data_of, self.study, self.trainer = params, data_of, study, trainer
        self.print_line = print_line
        self.found: Soup | None = None
        self._kept = KeptWeights(study.folder, study.identity[-6:])

    def keep(self, number: int, value: float, params: Params) -> None:
        trials = self.study.trials()
        values = {trial.number: trial.value or 0.0 for trial in self._ranked(trials)} | {number: value}
        sign = -1 if self.study.settings.maximize else 1
        best = sorted(values, key=lambda each: (sign * values[each], each))[:FINALISTS]
        if number in best:
            self._kept.save(number, self.trainer.network(params, self.data_of(params), is_fresh=False).changed())
            unfinished = [trial.number for trial in trials if not trial.is_finished]  # another worker may save one now
            self._kept.remove_all_but([*best, *unfinished])

    def make(self) -> None:
        trials = self.study.trials()
        ranked = self._ranked(trials)
        if not ranked or not all(trial.is_finished for trial in trials):
            return
        path = self.study.folder / f"{self.study.identity[-6:]}-soup.json"
        of = digest.of_value([[trial.number, trial.value] for trial in ranked])
        with atomic.lock(self.study.folder / "soup.lock"):
            record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
            if record.get("of") == of:
                self.found = Soup(**record["soup"]) if record["soup"] else None
                return
            self.print_line("sweep: averaging the weights of the best trials")
            self.found = self._greedy(ranked[:FINALISTS])
            atomic.write_json(path, {"of": of, "soup": asdict(self.found) if self.found else None})
            self._kept.remove_all_but([])

    def _ranked(self, trials: Sequence[TrialRecord]) -> list[TrialRecord]:
        """The complete trials from the best one on, without those that repeat another."""
        sign = -1 if self.study.settings.maximize else 1
        complete = [trial for trial in trials if trial.state == "complete" and trial.same_as is None]
        return sorted(complete, key=lambda trial: (sign * (trial.value or 0.0), trial.number))

    def _greedy(self, finalists: Sequence[TrialRecord]) -> Soup | None:
        """The soup of trials, which are given from the best one on; None if it is not better than that one."""
        best = finalists[0]
        base = space.with_values(self.params, best.values)
        bowl = _Bowl(base, self.data_of(base), self.trainer, self._kept)
        chosen = [_Part(best, 1.0)]
        single = reached = bowl.score(chosen)
        others: list[TrialRecord | None] = [trial for trial in finalists[1:] if _fixed(trial) == _fixed(best)]
        others += [None] if base.finetune.head_epochs and base.finetune.epochs else []
        for trial in others:
            mean = sum(part.share for part in chosen) / len(chosen)
            mixtures = [[*chosen, _Part(trial, round(share * mean, 3))] for share in SHARES]
            scored = [(bowl.score(mixture), mixture) for mixture in mixtures]
            better = [each for each in scored if each[0].improves(reached)]
            reached, chosen = min(better, key=lambda each: each[0].order, default=(reached, chosen))
        if len(chosen) == 1:
            return None
        return Soup(
            val_accuracy=reached.accuracy,
            val_loss=reached.loss,
            trials=[part.trial.number for part in chosen if part.trial],
            has_head=any(part.trial is None for part in chosen),
            best_accuracy=single.accuracy,
            best_loss=single.loss,
            ingredients=[part.ingredient for part in chosen],
        )


@dataclass(frozen=True)
class _Part:
    """An ingredient with its share. trial: None for the model of which only the head is trained."""

    trial: TrialRecord | None
    share: float

    @property
    def ingredient(self) -> dict[str, Any]:
        """It as `finetune.soup` has it, where all else is as in the best trial."""
        values = {"finetune.epochs": 0} if self.trial is None else self.trial.values
        return {SHARE: self.share, **{key: value for key, value in values.items() if key in VARIED}}


@dataclass(frozen=True)
class _Score:
    """What a mixture reaches on validation."""

    loss: float
    accuracy: float

    def improves(self, other: _Score) -> bool:
        """Whether it is better in one of the two, and worse in none."""
        return self != other and self.accuracy >= other.accuracy and self.loss <= other.loss

    @property
    def order(self) -> tuple[float, float]:
        """Of several that are better, the one with the lowest loss is taken, of equal ones the most accurate."""
        return (self.loss, -self.accuracy)


class _Bowl:
    """Mixes parts, and measures the mixtures. base: the settings of the best trial."""

    def __init__(self, base: Params, data: TrainingData, trainer: Trainer, kept: KeptWeights) -> None:
        self.base, self.data, self.trainer, self.kept = base, data, trainer, kept
        self._weights: dict[int | None, Changed] = {}

    def score(self, parts: Sequence[_Part]) -> _Score:
        soup = [part.ingredient for part in parts]
        mixed = space.with_values(self.base, {"finetune.soup": soup}) if len(soup) > 1 else self.base
        weights = [
            self._weights_of(part, settings) for part, settings in zip(parts, averaging.trainings(mixed), strict=True)
        ]
        return _Score(*averaging.score(self.trainer, mixed, self.data, weights))

    def _weights_of(self, part: _Part, settings: Params) -> Changed:
        """The weights that were kept. Those that a killed worker or another machine had are trained again."""
        number = part.trial.number if part.trial else None
        if number not in self._weights:
            kept = None if number is None else self.kept.load(number)
            if kept is None:
                self.trainer.run(settings, self.data)
                kept = self.trainer.network(settings, self.data, is_fresh=False).changed()
            self._weights[number] = kept
        return self._weights[number]


def _fixed(trial: TrialRecord) -> dict[str, Any]:
    """The values in which the ingredients of a soup can't differ."""
    return {key: value for key, value in trial.values.items() if key not in VARIED}


def soups(
    params: Params, data_of: Callable[[Params], TrainingData], study: Study, trainer: Trainer, print_line: PrintLine
) -> Soups:
    """What makes the soup that `sweep.soup` asks for. params: without `finetune.soup`."""
    if params.sweep.soup == "none":
        return NoSoups()
    return GreedySoups(params, data_of, study, trainer, print_line)
