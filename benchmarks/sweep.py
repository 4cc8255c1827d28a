"""Sweeps over freeze depth and learning rate: `frostline sweep` against Optuna around the Keras guide, and Keras Tuner.

    FROSTLINE_TEST_ASSETS=.../assets python benchmarks/sweep.py [--job digits] [--contestants guide,frostline]
    python benchmarks/sweep.py --table

Every contestant searches the same depths and rates, for as many trials and epochs, on the same images: those that
stage `prepare` made, for the rivals written out as a folder of PNG files, so that nobody decodes or crops otherwise.
Each runs in a process and a folder of its own, they alternate, and the time counts from the start of building data and
study to the end of the sweep, imports aside. The test accuracy of the best trial's model is taken afterwards. What is
finished is a line of results/sweep.jsonl and is not run again: kill and start again as you like. While a file exists
that the environment variable SWEEP_HOLD names, the rivals rest after an epoch, and their clocks stand still.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from table import RESULTS, machine
from workspace import ROOT, params, workspace

# seconds, test (accuracy), results (one dict a trial: number, state, value, epochs, seconds, finished, what was tried)
Outcome = dict[str, Any]
# A line of results/sweep.jsonl: a Run, its Outcome, machine, images (by split) and preparing (seconds).
Record = dict[str, Any]

ASSETS = Path(os.environ.get("FROSTLINE_TEST_ASSETS", "assets")).resolve()
HEAD_EPOCHS = 10  # of our head start
EMA_MOMENTUM = 0.99  # of our averaged weights, as in params.yaml
SAME = 1e-6  # accuracies that differ by less are the same: fewer than one image


@dataclass(frozen=True)
class Job:
    """What is learned. cuts: numbers of frozen layers, spread by compute; split, per_class: as params.yaml has them."""

    words: str
    source: Path
    backbone: str
    weights: str
    size: int
    split: dict[str, float]
    per_class: int | None
    cuts: tuple[int, ...]
    trials: int
    rates: tuple[float, float] = (1e-5, 1e-2)
    batch: int = 32
    dropout: float = 0.2
    classes: int = 10


JOBS = {
    "clothing": Job(
        words="clothing-small, MobileNetV2 1.0 at 128 px",
        source=ASSETS / "clothing-small",
        backbone="MobileNetV2",
        weights=str(ASSETS / "weights" / "mobilenet_v2_1.0_224_no_top.h5"),
        size=128,
        split={"train": 0.8, "val": 0.1, "test": 0.1},  # its own validation split stays; test: 1/9 of the rest
        per_class=None,
        cuts=(0, 27, 54, 72, 90, 116, 134, 154),
        trials=20,
    ),
    "digits": Job(
        words="digits, frostnet at 64 px",
        source=ROOT / "data" / "digits.yaml",
        backbone="frostnet",
        weights="builtin",
        size=64,
        split={"train": 0.5, "val": 0.1, "test": 0.4},
        per_class=10,
        cuts=(0, 11, 18, 27, 34, 43, 50, 66),
        trials=40,
    ),
}


@dataclass(frozen=True)
class Run:
    """One contestant's sweep. per_class: labelled images a class, None for all."""

    job: str
    contestant: str
    seed: int
    trials: int
    epochs: int
    per_class: int | None

    @property
    def about(self) -> Job:
        return JOBS[self.job]


@dataclass(frozen=True)
class Ours:
    """A variant of frostline's sweep. changes: keys of params.yaml; warm: nothing is built or compiled twice."""

    label: str
    changes: dict[str, Any]
    warm: bool = True


RIVALS = {
    "guide": "Optuna, Keras guide",
    "guide+pruner": "Optuna with pruner, Keras guide",
    "keras-tuner": "Keras Tuner, Hyperband",
}
OURS = {
    "frostline": Ours("**frostline**", {}),
    "no-store": Ours("without the store (`cache.mode: never`)", {"cache.mode": "never"}),
    "no-head": Ours("without the head start (`finetune.head_epochs: 0`)", {"finetune.head_epochs": 0}),
    "no-average": Ours("without averaged weights (`finetune.ema_momentum: 0`)", {"finetune.ema_momentum": 0.0}),
    "no-pruning": Ours("without pruning (`sweep.pruner: none`)", {"sweep.pruner": "none"}),
    "prior": Ours("with a prior (`sweep.prior: choose`)", {"sweep.prior": "choose"}),
    "cold": Ours("without warm functions (all built, and the head trained, anew for each trial)", {}, warm=False),
}
LABELS = RIVALS | {name: variant.label for name, variant in OURS.items()}


def settings(run: Run, changes: dict[str, Any]) -> Any:
    """params.yaml for that sweep."""
    job = run.about
    low, high = job.rates
    return params(
        {
            "seed": run.seed,
            "data.source": str(job.source),
            "data.image_size": job.size,
            "data.train_per_class": run.per_class,
            "data.split": job.split,
            "augment.copies": 0,
            "backbone.name": job.backbone,
            "backbone.weights": job.weights,
            "head.dropout": job.dropout,
            "finetune.freeze": "all",
            "finetune.batch_norm": "freeze",
            "finetune.head_epochs": HEAD_EPOCHS,
            "finetune.head_learning_rate": 1e-3,
            "finetune.epochs": run.epochs,
            "finetune.batch_size": job.batch,
            "finetune.optimizer": "adam",
            "finetune.schedule": "constant",
            "finetune.ema_momentum": EMA_MOMENTUM,
            "finetune.early_stopping": {"monitor": "val_accuracy", "patience": 8},
            "sweep.trials": run.trials,
            "sweep.seed": run.seed,
            "sweep.space": {
                "finetune.freeze": list(job.cuts),
                "finetune.learning_rate": {"low": low, "high": high, "log": True},
            },
            **changes,
        }
    )


def ours(run: Run, variant: Ours) -> Outcome:
    """`frostline sweep` in this folder, with nothing in the activation store yet."""
    import pandas as pd
    from ruamel.yaml import YAML

    from frostline import paths
    from frostline.commands import sweep
    from frostline.stages import evaluate, finetune

    if not variant.warm:
        forget()
    start = time.perf_counter()
    print(sweep.run(settings(run, variant.changes)), file=sys.stderr)
    seconds = time.perf_counter() - start

    reports = paths.REPORTS / "sweep"
    trials = pd.read_csv(reports / "trials.csv")
    # Its clock starts with the first trial: what came before that, and the reports after the last one, is added to all.
    trials["finished"] += seconds - trials["finished"].max()
    results = json.loads(trials.to_json(orient="records"))
    found = YAML(typ="safe", pure=True).load(reports / "best_params.yaml")
    chosen = settings(run, {**variant.changes, **found})
    for stage in (finetune, evaluate):
        print(stage.run(chosen), file=sys.stderr)
    again = float(pd.read_csv(paths.HISTORY)["val_accuracy"].max())
    test = json.loads(paths.METRICS.read_text(encoding="utf-8"))["accuracy"]
    return {"seconds": seconds, "test": test, "retrained": again, "results": results}


def forget() -> None:
    """Let every training of this process begin with a new `Trainer`: no network, compiled step or trained head is kept.

    THE PLACE to fix where the sweep comes to keep things elsewhere than in a `Trainer`. It has to be called before
    anything trains.
    """
    from frostline.training import trainer

    kept = trainer.Trainer

    class Forgetful(kept):
        def run(self, *arguments: Any, **named: Any) -> Any:
            return kept(self.store).run(*arguments, **named)

    trainer.Trainer = Forgetful


def contest(run: Run) -> None:
    """A contestant's run in this process; prints its outcome as JSON."""
    from frostline.models import backend

    with backend.quiet():
        import optuna  # noqa: F401
        import sweep_rivals
        import tensorflow as tf
        from gpu import device

    tf.constant(0)  # starts the engine
    if run.contestant in OURS:
        outcome = ours(run, OURS[run.contestant])
    else:
        rivals: dict[str, Callable[[Run], Outcome]] = {
            "guide": sweep_rivals.plain,
            "guide+pruner": sweep_rivals.pruned,
            "keras-tuner": sweep_rivals.hyperband,
        }
        outcome = rivals[run.contestant](run)
    found = device()
    where = machine() if found == "cpu" else machine().replace("no GPU used", f"GPU {found}")
    print(json.dumps({**asdict(run), "machine": where, **outcome}))


def prepare(run: Run) -> float:
    """Stages `prepare` and `augment`, and the prepared images as a folder for the rivals; seconds of the stages."""
    import numpy as np
    from PIL import Image

    from frostline import paths
    from frostline.data import shards
    from frostline.ingest import splits
    from frostline.stages import augment
    from frostline.stages import prepare as first

    start = time.perf_counter()
    for stage in (first, augment):
        stage.run(settings(run, {}))
    seconds = time.perf_counter() - start
    for split in splits.SPLITS:
        images = shards.open_folder(paths.PREPARED / split)
        for name in images.layout.classes:
            (Path("photos") / split / name).mkdir(parents=True)
        for row, label in enumerate(images.labels):
            path = Path("photos") / split / images.layout.classes[label] / f"{row:05d}.png"
            Image.fromarray(images.take(np.array([row]))[0]).save(path, compress_level=1)
    return seconds


def alone(run: Run) -> Record:
    """A contestant in a folder and a process of its own. Raises CalledProcessError where it fails."""
    from frostline import paths

    with workspace():
        preparing = prepare(run)
        command = [sys.executable, __file__, "contest", json.dumps(asdict(run))]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        images = json.loads(paths.DATA_REPORT.read_text(encoding="utf-8"))["images"]
    return {**json.loads(done.stdout.splitlines()[-1]), "images": images, "preparing": preparing}


def records(path: Path) -> list[Record]:
    """The finished runs."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def completed(record: Record) -> list[dict[str, Any]]:
    """The trials that were trained to their end: those that a study chooses the best of."""
    return [trial for trial in record["results"] if trial["state"].lower() == "complete" and trial["value"] is not None]


def best(record: Record) -> float:
    """The best validation accuracy of a sweep."""
    return max((trial["value"] for trial in completed(record)), default=math.nan)


def reached(record: Record, score: float) -> float | None:
    """Seconds until the first trial with that validation accuracy ended."""
    return min((trial["finished"] for trial in completed(record) if trial["value"] > score - SAME), default=None)


BySeed = dict[int, Record]


def row(label: str, runs: BySeed, yardstick: BySeed, guide: BySeed) -> list[str]:
    """A contestant's line. yardstick: whose time its time is divided by; guide: whose score it has to reach."""
    times = [runs[seed]["seconds"] / yardstick[seed]["seconds"] for seed in runs if seed in yardstick]
    epochs = [sum(trial["epochs"] or 0 for trial in record["results"]) for record in runs.values()]
    tests = [record["test"] for record in runs.values()]
    return [
        label,
        ", ".join(str(seed) for seed in runs),
        f"{statistics.mean(epochs):.0f}",
        f"{statistics.median(record['seconds'] for record in runs.values()):.1f} s",
        f"{statistics.median(times):.2f}x" if times else "",
        f"{statistics.mean(best(record) for record in runs.values()):.4f}",
        *race(runs, guide),
        f"{statistics.mean(tests):.4f} ({', '.join(f'{test:.4f}' for test in tests)})",
    ]


def race(runs: BySeed, guide: BySeed) -> list[str]:
    """When the guide's score was reached, and how many times faster than by the guide.

    The guide's time is its whole time, in its own line too: only at its end is its best known to be the best.
    """
    both = [seed for seed in runs if seed in guide]
    found = {seed: reached(runs[seed], best(guide[seed])) for seed in both}
    there = {seed: seconds for seed, seconds in found.items() if seconds is not None}
    if not there:
        return ["never" if both else "", ""]
    missed = f" ({len(there)} of {len(both)} seeds)" if len(there) < len(both) else ""
    speedup = statistics.median(guide[seed]["seconds"] / seconds for seed, seconds in there.items())
    return [
        f"{statistics.median(there.values()):.1f} s{missed}",
        "1.0x" if runs is guide else f"{speedup:.1f}x",
    ]


def tables(found: Sequence[Record]) -> str:
    """For every job, number of labels and machine a table of the contestants and one of what each part contributes."""

    def protocol(record: Record) -> str:
        names = ("job", "per_class", "trials", "epochs", "machine")
        return json.dumps([record[name] for name in names])

    texts = []
    for _, group in groupby(sorted(found, key=protocol), protocol):
        sides: dict[str, BySeed] = {}
        for record in sorted(group, key=lambda record: record["seed"]):
            sides.setdefault(record["contestant"], {})[record["seed"]] = record
        texts.append(table(described(sides), sides, [*RIVALS, "frostline"]))
        if "frostline" in sides and len(sides.keys() & OURS.keys()) > 1:
            caption = "What each part contributes: the same sweep, every line with one part switched off."
            texts.append(table(caption, sides, list(OURS)))
        if {"frostline", "prior"} <= sides.keys():
            texts.append(trials_until(sides["frostline"], sides["prior"]))
    return "\n".join(texts)


def table(caption: str, sides: dict[str, BySeed], names: Sequence[str]) -> str:
    """A Markdown table of those contestants that have run."""
    header = ["sweep", "seeds", "epochs", "time", "x frostline", "best val. acc.", "guide's score after", "speed-up"]
    header.append("test acc.")
    yardstick, guide = sides.get("frostline", {}), sides.get("guide", {})
    rows = [row(LABELS[name], sides[name], yardstick, guide) for name in names if name in sides]
    lines = [" | ".join(cells) for cells in (header, ["---"] * len(header), *rows)]
    return f"{caption}\n\n" + "\n".join(f"| {line} |" for line in lines) + "\n"


def trials_until(plain: BySeed, prior: BySeed) -> str:
    """How many trials a sweep with a prior takes to what the plain one ends with, and the other way round."""

    def first(record: Record, score: float) -> int | None:
        return min((trial["number"] + 1 for trial in completed(record) if trial["value"] > score - SAME), default=None)

    def cell(record: Record, score: float) -> str:
        return str(first(record, score) or f"not in {record['trials']}")

    lines = [
        "Trials until a trial ends with the best value of the other sweep, of the same seed, and until its own best.",
        "",
        "| seed | plain: best | after trial | prior: best | after trial | prior: plain's best | plain: prior's best |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for seed in sorted(plain.keys() & prior.keys()):
        one, other = plain[seed], prior[seed]
        own = [f"{best(each):.4f} | {cell(each, best(each))}" for each in (one, other)]
        lines.append(f"| {seed} | {' | '.join(own)} | {cell(other, best(one))} | {cell(one, best(other))} |")
    return "\n".join(lines) + "\n"


def described(sides: dict[str, BySeed]) -> str:
    """What was done, and where: the main table's caption."""
    every = [record for runs in sides.values() for record in runs.values()]
    one = every[0]
    job = JOBS[one["job"]]
    counts = ", ".join(
        f"{between({record['images'][split] for record in every})} to {verb}"
        for split, verb in (("train", "learn from"), ("val", "validate"), ("test", "test"))
    )
    labelled = "all labels" if one["per_class"] is None else f"{one['per_class']} labelled images a class"
    low, high = job.rates
    return (
        f"{job.words}, {labelled}: {counts}. {one['trials']} trials of up to {one['epochs']} epochs over the freeze "
        f"depth (one of {', '.join(map(str, job.cuts))} layers) and the learning rate (log-uniform, {low:g} to "
        f"{high:g}), batches of {job.batch}, Adam. All read the same decoded images (stages prepare and augment took "
        f"{statistics.median(record['preparing'] for record in every):.1f} s, not counted); each in its own process, "
        "imports aside. Times: medians of the seeds, accuracies: means. `guide's score after`: until a trial ended "
        "with the best validation accuracy that Optuna around the guide ends with, of the same seed; `speed-up`: the "
        "guide's whole time over that. Test accuracy: of the best trial's model, not counted. frostline's trials start "
        f"from a head that was trained on frozen features for {HEAD_EPOCHS} epochs, within the counted time, and none "
        "is worth less than its start; `epochs` does not count the head's. What they evaluate and keep is the average "
        f"over the weights of the last steps (`finetune.ema_momentum: {EMA_MOMENTUM}`).\n"
        f"Measured on {one['machine']}."
    )


def between(counts: set[int]) -> str:
    """The lowest and the highest of some counts: which images are tested on depends on the seed."""
    return " to ".join(f"{count:,}" for count in sorted({min(counts), max(counts)}))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--job", choices=JOBS, default="clothing")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--contestants", default=",".join(LABELS), help=f"some of {','.join(LABELS)}")
    parser.add_argument("--per-class", help="labelled images a class, or `all`; default: the job's")
    parser.add_argument("--trials", type=int, help="default: the job's")
    parser.add_argument("--epochs", type=int, default=8, help=argparse.SUPPRESS)
    parser.add_argument(
        "--runs", type=Path, default=RESULTS / "sweep.jsonl", help="the finished runs; the tables lie beside"
    )
    parser.add_argument("--table", action="store_true", help="only print the tables of the finished runs")
    return parser.parse_args()


def wanted(chosen: argparse.Namespace) -> list[Run]:
    """The runs that were asked for, the contestants taking turns."""
    job = JOBS[chosen.job]
    per_class = job.per_class
    if chosen.per_class is not None:
        per_class = None if chosen.per_class in {"all", "null"} else int(chosen.per_class)
    names = chosen.contestants.split(",")
    if unknown := set(names) - LABELS.keys():
        sys.exit(f"--contestants: {', '.join(sorted(unknown))} unknown; use some of {', '.join(LABELS)}")
    if "keras-tuner" in names and importlib.util.find_spec("keras_tuner") is None:
        print("keras-tuner is left out: it is not installed; `pip install keras-tuner`", file=sys.stderr)
        names.remove("keras-tuner")
    return [
        Run(chosen.job, name, int(seed), chosen.trials or job.trials, chosen.epochs, per_class)
        for seed in chosen.seeds.split(",")
        for name in names
    ]


def main() -> None:
    chosen = arguments()
    path = chosen.runs.resolve()
    failed = []
    if not chosen.table:
        if chosen.job == "clothing" and not JOBS["clothing"].source.is_dir():
            sys.exit("FROSTLINE_TEST_ASSETS is not set: the photos and weights are not part of this repository")
        os.environ["FROSTLINE_TEST_ASSETS"] = str(ASSETS)
        known = [asdict(Run(**{key: record[key] for key in Run.__annotations__})) for record in records(path)]
        for run in wanted(chosen):
            if asdict(run) in known:
                continue
            try:
                record = alone(run)
            except subprocess.CalledProcessError:
                failed.append(f"{run.contestant} with seed {run.seed}")
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
            print(
                f"{run.job}, seed {run.seed}, {run.contestant}: {record['seconds']:.1f} s, best {best(record):.4f}, "
                f"test {record['test']:.4f}",
                flush=True,
            )
    if found := records(path):
        text = tables(found)
        print(text)
        path.with_suffix(".md").write_text(text, encoding="utf-8")
    if failed:
        sys.exit(f"failed: {'; '.join(failed)}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["contest"]:
        contest(Run(**json.loads(sys.argv[2])))
    else:
        main()
