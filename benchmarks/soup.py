"""The soup of a sweep against its best trial, on images of three kinds with few labels.

    FROSTLINE_TEST_ASSETS=.../assets python benchmarks/soup.py [--minutes N]

Each line of results/soup.jsonl is one sweep with `sweep.soup: greedy`, and the test accuracy of both models, which is
taken once, when the sweep has chosen on validation. The models are trained again as stage `finetune` does. With
--minutes it stops after the sweep that is running then, and goes on from the file the next time.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats
from table import RESULTS, show
from workspace import ROOT, params, workspace

from frostline import paths
from frostline.commands import sweep
from frostline.data import shards
from frostline.features import predictor
from frostline.models import backend
from frostline.params.schema import Params
from frostline.stages import prepare
from frostline.training import inputs

with backend.quiet():
    from frostline.search import soup, space
    from frostline.training import averaging
    from frostline.training.loop import NOBODY
    from frostline.training.trainer import Trainer

ASSETS = Path(os.environ.get("FROSTLINE_TEST_ASSETS", "assets")).resolve()
LINES = RESULTS / "soup.jsonl"
SEEDS = (1, 2, 3)
TRIALS = 12
ALLOWED = 0.003  # of test accuracy, by which a soup may be worse than the best trial

MOBILENET = {
    "data.image_size": 96,
    "backbone.name": "MobileNetV2",
    "backbone.weights": str(ASSETS / "weights" / "mobilenet_v2_1.0_224_no_top.h5"),
    "finetune.batch_norm": "freeze",
    "finetune.epochs": 4,
}


@dataclass(frozen=True)
class Job:
    """words: what is learned; changes: keys of params.yaml."""

    words: str
    changes: dict[str, Any]


JOBS = {
    "digits": Job(
        "digits, 10 a class, frostnet",
        {"data.source": str(ROOT / "data" / "digits.yaml"), "data.train_per_class": 10, "finetune.epochs": 6},
    ),
    "sign-digits": Job(
        "sign-digits, 25 a class, MobileNetV2 at 96 px",
        {"data.source": str(ASSETS / "sign-digits"), "data.train_per_class": 25, **MOBILENET},
    ),
    "clothing": Job(
        "clothing-small, 25 a class, MobileNetV2 at 96 px",
        {"data.source": str(ASSETS / "clothing-small"), "data.train_per_class": 25, **MOBILENET},
    ),
}
PRUNERS = ("none", "halving")  # without pruning all trials are complete


def settings(job: str, pruner: str, seed: int) -> Params:
    return params(
        {
            "seed": seed,
            "data.split": {"train": 0.5, "val": 0.1, "test": 0.4},
            "augment.copies": 0,
            "finetune.head_epochs": 10,
            "sweep.trials": TRIALS,
            "sweep.seed": seed,
            "sweep.pruner": pruner,
            "sweep.soup": "greedy",
            "sweep.space": {
                "finetune.freeze": {"auto": 6},
                "finetune.learning_rate": {"low": 1e-5, "high": 1e-2, "log": True},
            },
            **JOBS[job].changes,
        }
    )


def measure(job: str, pruner: str, seed: int) -> dict[str, Any]:
    """A sweep, and what its two models reach on the test split."""
    given = settings(job, pruner, seed)
    prepare.run(given)
    cooking = []
    make = soup.GreedySoups.make

    def timed(maker: soup.GreedySoups) -> None:
        start = time.perf_counter()
        make(maker)
        cooking.append(time.perf_counter() - start)

    soup.GreedySoups.make = timed
    start = time.perf_counter()
    outcome = json.loads(sweep.run(given, as_json=True))
    seconds = time.perf_counter() - start
    soup.GreedySoups.make = make

    opened, found, best = inputs.open_all(given), outcome["soup"], outcome["best"]
    trainer, test = Trainer(opened.features), shards.open_folder(paths.PREPARED / "test")

    def tested(values: dict[str, Any]) -> dict[str, float]:
        chosen = space.with_values(given, values)
        bundle = averaging.train(trainer, chosen, opened.data, lambda settings: (None, NOBODY)).bundle
        shares = predictor.probabilities(bundle, test, opened.features, "auto")
        likelihoods = shares[np.arange(len(test)), test.labels].astype(float)
        accuracy = (shares.argmax(axis=1) == test.labels).mean()
        return {"accuracy": float(accuracy), "loss": float(-np.log(likelihoods.clip(1e-12)).mean())}

    test_best = tested(best["values"])
    return {
        "job": job,
        "pruner": pruner,
        "seed": seed,
        "images": {"train": len(opened.train), "val": len(opened.validation), "test": len(test)},
        "seconds": round(seconds, 1),
        "soup_seconds": round(cooking[0], 1),
        "trials": outcome["trials"],
        "best": best,
        "soup": found,
        "test_best": test_best,
        "test_soup": tested({**best["values"], "finetune.soup": found["ingredients"]}) if found else test_best,
    }


def table(lines: list[dict[str, Any]]) -> None:
    """Print and keep the table of all lines."""
    rows, gains = [], np.array([line["test_soup"]["accuracy"] - line["test_best"]["accuracy"] for line in lines])
    losses = np.array([line["test_soup"]["loss"] - line["test_best"]["loss"] for line in lines])
    kind = lambda line: (list(JOBS).index(line["job"]), PRUNERS.index(line["pruner"]))  # noqa: E731
    for (job, pruner), group in groupby(sorted(lines, key=kind), key=kind):
        for line in sorted(group, key=lambda line: line["seed"]):
            found = line["soup"]
            made = f"{len(found['trials'])} trials{' and head' * found['has_head']}" if found else "none"
            val = f"{line['best']['value']:.4f}"
            val += (
                f" to {found['val_accuracy']:.4f}, loss {found['best_loss']:.3f} to {found['val_loss']:.3f}"
                if found
                else ""
            )
            images = line["images"]
            rows.append(
                [
                    f"{list(JOBS.values())[job].words} ({images['val']} val, {images['test']} test)",
                    PRUNERS[pruner],
                    str(line["seed"]),
                    made,
                    val,
                    f"{line['test_best']['accuracy']:.4f}",
                    f"{line['test_soup']['accuracy']:.4f}",
                    f"{100 * (line['test_soup']['accuracy'] - line['test_best']['accuracy']):+.2f}",
                    f"{line['test_best']['loss']:.3f} to {line['test_soup']['loss']:.3f}",
                    f"{line['soup_seconds']:.0f} of {line['seconds']:.0f}",
                ]
            )
    interval = stats.ttest_1samp(gains, 0.0).confidence_interval(0.95)
    show(
        "soup",
        f"Sweeps of {TRIALS} trials with `sweep.soup: greedy`. Test accuracy of the soup minus that of the best trial, "
        f"in {len(gains)} sweeps: {100 * gains.mean():+.2f} points in the mean (95%: {100 * interval.low:+.2f} to "
        f"{100 * interval.high:+.2f}), {100 * gains.min():+.2f} at worst, better in {(gains > 0).sum()}, worse in "
        f"{(gains < 0).sum()}, worse by more than {100 * ALLOWED:.1f} points in {(gains < -ALLOWED).sum()}. "
        f"Its log loss on the test split is {losses.mean():+.3f} in the mean, {losses.max():+.3f} at worst.",
        [
            "data",
            "pruner",
            "seed",
            "soup of",
            "validation",
            "test, best trial",
            "test, soup",
            "points",
            "test log loss",
            "soup's seconds",
        ],
        rows,
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=float("inf"))
    deadline = time.monotonic() + 60 * parser.parse_args().minutes
    if not (ASSETS / "clothing-small").is_dir():
        sys.exit("FROSTLINE_TEST_ASSETS is not set: the photos are not part of this repository")
    lines = [json.loads(line) for line in LINES.read_text().splitlines()] if LINES.exists() else []
    done = {(line["job"], line["pruner"], line["seed"]) for line in lines}
    for pruner in PRUNERS:
        for seed in SEEDS:
            for job in JOBS:
                if (job, pruner, seed) in done or time.monotonic() > deadline:
                    continue
                with workspace():
                    lines.append(measure(job, pruner, seed))
                with LINES.open("a") as file:
                    file.write(json.dumps(lines[-1]) + "\n")
    table(lines)


if __name__ == "__main__":
    main()
