"""Is what `frostline choose` says true? Its order of bodies and its settings against fine-tuning and against a sweep.

    FROSTLINE_TEST_ASSETS=.../assets python benchmarks/choose_truth.py [--seeds 1] [--cases digits:20]
    python benchmarks/choose_truth.py --table

A case is a data set with so many labelled images a class, at 64 px. In each, first the order: every body is fine-tuned
with a few freeze lines and rates, the best of them by validation is tested, and the order of these accuracies is
compared with the order by ridge regression (what `choose` goes by), by nearest neighbours, and by ImageNet top-1. Then
the settings: what `choose` recommends is trained once, and compared with the best trial of a sweep over the freeze
depth and rate of the same body. `choose`, the fine-tunings and the sweep see train and validation only; the test split
is opened when one of them has ended, and nothing is chosen by it.

What is finished is a line of results/choose_truth.jsonl and is not run again: kill and start again as you like.
`--again choose` asks `choose` anew, and trains what it recommends now; sweeps and fine-tunings stay. Other
processes on the machine lengthen the times, those of both sides.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ruamel.yaml import YAML
from table import RESULTS, machine
from workspace import ROOT, params, workspace

from frostline import paths
from frostline.choice import measuring, verdict
from frostline.choice.bodies import Candidate
from frostline.choice.verdict import BodyProbe, Verdict
from frostline.commands import sweep
from frostline.core.mapped import Memory
from frostline.data import shards
from frostline.features.store import Store
from frostline.models import backbones, backend
from frostline.params.schema import BackboneSection, Params
from frostline.stages import augment, finetune, prepare
from frostline.training import inputs

if TYPE_CHECKING:  # the processes that decode images read this file too, and need no Keras
    from frostline.models.bundles import Bundle
    from frostline.training.trainer import Trainer

# A line of results/choose_truth.jsonl. kind: of piece; case, seed; body, of kind `body`; machine; the findings.
Record = dict[str, Any]
Key = tuple[str, str, int, str]  # kind, case, seed and body of a record, "" for none

ASSETS = Path(os.environ.get("FROSTLINE_TEST_ASSETS", "assets")).resolve()
SIDE, TRIALS, EPOCHS = 64, 20, 8
HALF = 0.5  # of a body's compute below the freeze line, in the fine-tunings of all bodies
FACTORS = (1.0, 0.3)  # of the learning rate that the verdict has for so many steps
HEAD_STEPS = 1000  # of the head alone
CLASSES = 10  # of each data set
WITHIN, SHARE = 0.01, 0.10  # the goal: of accuracy behind the sweep, in this share of its time
SCORES = {"ridge": "ridge", "nearest": "kNN", "top1": "ImageNet top-1"}


@dataclass(frozen=True)
class Body:
    """name, weights, alpha: as params.yaml has them, weights as the name of a file below ASSETS if it has a dot; top1:
    on ImageNet in percent, as published; None if there is none, which ranks below all others."""

    name: str
    weights: str
    alpha: float | None
    top1: float | None

    @property
    def section(self) -> BackboneSection:
        weights = str(ASSETS / "weights" / self.weights) if "." in self.weights else self.weights
        return BackboneSection(name=self.name, weights=weights, alpha=self.alpha, until=None)


BODIES = {
    "frostnet": Body("frostnet", "builtin", None, None),
    "MobileNet 0.25": Body("MobileNet", "mobilenet_2_5_224_tf_no_top.h5", 0.25, 50.6),  # Howard et al., 1704.04861
    "MobileNetV2": Body("MobileNetV2", "mobilenet_v2_1.0_224_no_top.h5", None, backbones.TABLE["MobileNetV2"].top1),
    "EfficientNetLite0": Body("EfficientNetLite0", "imagenet", None, backbones.TABLE["EfficientNetLite0"].top1),
}
SOURCES = {
    "clothing": ASSETS / "clothing-small",  # has a validation split of its own
    "signs": ASSETS / "sign-digits",
    "digits": ROOT / "data" / "digits.yaml",
}
SPLIT = {"train": 0.5, "val": 0.1, "test": 0.4}


@dataclass(frozen=True)
class Case:
    """A data set, one of SOURCES, and how many labelled images a class are trained on."""

    source: str
    per_class: int

    @property
    def name(self) -> str:
        return f"{self.source}:{self.per_class}"

    def params(self, seed: int, changes: dict[str, Any]) -> Params:
        """params.yaml for this case: whatever is not named here is as in the repository."""
        about = {
            "seed": seed,
            "data.source": str(SOURCES[self.source]),
            "data.image_size": SIDE,
            "data.train_per_class": self.per_class,
            "data.split": SPLIT,
            "augment.copies": 0,
        }
        return params({**about, **changes})


CASES = [
    *(Case(source, 5) for source in SOURCES),
    Case("signs", 50),
    *(Case(source, 20) for source in SOURCES),
    Case("clothing", 50),
]


def of_body(name: str) -> dict[str, Any]:
    """The keys of params.yaml that name a body."""
    return {f"backbone.{key}": value for key, value in BODIES[name].section.model_dump().items()}


def candidates() -> list[Candidate]:
    """The bodies for `choose`."""
    return [Candidate(name, body.section, body.top1) for name, body in BODIES.items()]


def line(body: BodyProbe, share: float) -> str:
    """The depth nearest to a share of the body's compute."""
    return min(body.depths, key=lambda depth: abs(depth.share - share)).layer


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    """What a function returns, and how many seconds it took; what it prints is not shown."""
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        result = function()
    return result, time.perf_counter() - start


def told(bundle: Bundle) -> float:
    """The test accuracy of a classifier."""
    test = shards.open_folder(paths.PREPARED / "test")
    return float((bundle.probabilities(test).argmax(axis=1) == test.labels).mean())


def chosen(case: Case, seed: int) -> tuple[list[BodyProbe], Verdict, float]:
    """What `frostline choose` measures and says, and its seconds, with an empty store."""
    bodies, given = candidates(), case.params(seed, {})

    def choose() -> tuple[list[BodyProbe], Verdict]:
        measured = measuring.measure(given, bodies, str)
        return measured.bodies, verdict.of(measured.bodies, measured.situation, given.finetune)

    (probes, result), seconds = timed(choose)
    return probes, result, seconds


def chosen_once(case: Case, seed: int) -> Record:
    """What `choose` says, and the recommended settings trained once."""
    probes, result, choosing = chosen(case, seed)
    timed(lambda: augment.run(case.params(seed, {"augment.copies": result.settings["augment.copies"]})))
    test, training = trained(case.params(seed, result.settings))
    return {
        "scenario": result.scenario,
        "choice": result.body.candidate.name,
        "settings": {key: value for key, value in result.settings.items() if not key.startswith("backbone.")},
        "until": result.settings["backbone.until"],
        "fine_tuning": [line(result.body, result.fine_tuning.frozen), result.fine_tuning.learning_rate],
        "probes": {
            each.candidate.name: {
                "ridge": each.best.ridge.accuracy,
                "nearest": each.nearest,
                "half": line(each, HALF),
            }
            for each in probes
        },
        "test": test,
        "images": len(shards.open_folder(paths.PREPARED / "test")),
        "seconds": {"choose": choosing, "finetune": training},
    }


def tuned(case: Case, seed: int, found: Record) -> Record:
    """The recommended body with the freeze line that the verdict has for a fine-tuning, also where it recommends the
    head alone, and its rate times FACTORS. found: what `choose` says."""
    freeze, rate = found["fine_tuning"]
    copies = found["settings"]["augment.copies"]
    timed(lambda: augment.run(case.params(seed, {"augment.copies": copies})))
    tried = []
    for factor in FACTORS:
        changes = {**of_body(found["choice"]), **fine_tuning(freeze, rate * factor), "augment.copies": copies}
        tried.append([freeze, rate * factor, trained(case.params(seed, changes))[0]])
    return {"tried": tried}


def fine_tuning(freeze: str, rate: float) -> dict[str, Any]:
    """The keys of a fine-tuning; the head start is that of the verdict."""
    return {
        "finetune.freeze": freeze,
        "finetune.batch_norm": "freeze",
        "finetune.head_epochs": 15,
        "finetune.head_learning_rate": 3e-3,
        "finetune.epochs": EPOCHS,
        "finetune.learning_rate": rate,
    }


def trained(given: Params) -> tuple[float, float]:
    """Stage `finetune`: the test accuracy of the classifier, and the seconds."""
    from frostline.models import bundles

    _, seconds = timed(lambda: finetune.run(given))
    return told(bundles.load(paths.BUNDLE)), seconds


def swept(case: Case, seed: int, body: str, copies: int) -> Record:
    """A sweep of a body with nothing stored, and the test accuracy of its best trial. The head start is that of
    sweep.py; copies: stored variants, as many as `choose` recommends."""
    settings = {
        **of_body(body),
        "augment.copies": copies,
        "finetune.freeze": "all",
        "finetune.batch_norm": "freeze",
        "finetune.epochs": EPOCHS,
        "finetune.head_epochs": 10,
        "finetune.head_learning_rate": 1e-3,
        "sweep.prior": "none",
        "sweep.trials": TRIALS,
        "sweep.seed": seed,
        "sweep.space": {
            "finetune.freeze": {"auto": 8},
            "finetune.learning_rate": {"low": 1e-5, "high": 1e-2, "log": True},
        },
    }
    timed(lambda: augment.run(case.params(seed, settings)))
    shutil.rmtree(paths.features(), ignore_errors=True)
    _, seconds = timed(lambda: sweep.run(case.params(seed, settings)))
    best = YAML(typ="safe", pure=True).load(paths.SWEEP / "best_params.yaml")
    test, _ = trained(case.params(seed, {**settings, **best}))
    return {"copies": copies, "best": best, "test": test, "seconds": seconds}


def fine_tuned(case: Case, seed: int, body: str, found: Record, trainer: Trainer) -> Record:
    """A body's fine-tunings: the validation accuracy of each, and the test accuracy of the best. found: the duel."""
    rate, cut = found["fine_tuning"][1], found["probes"][body]["half"]
    steps = math.ceil(case.per_class * CLASSES / params({}).finetune.batch_size)
    alone = {"finetune.freeze": "all", "finetune.epochs": 0, "finetune.head_epochs": math.ceil(HEAD_STEPS / steps)}
    values, best, test = [], -1.0, math.nan
    for changes in [alone, *(fine_tuning(cut, rate * factor) for factor in FACTORS)]:
        given = case.params(seed, {**of_body(body), **changes})
        result = trainer.run(given, inputs.open_all(given).data)
        value = result.final_row.val_accuracy
        values.append([given.finetune.freeze, given.finetune.epochs and given.finetune.learning_rate, value])
        if value > best:  # the model of a result is valid until the next training
            best, test = value, told(result.bundle)
    return {"tried": values, "test": test}


def records(path: Path) -> list[Record]:
    """The finished pieces; of one that was run again the last result."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return list({key_of(each): each for each in map(json.loads, lines)}.values())


def key_of(each: Record) -> Key:
    return each["kind"], each["case"], each["seed"], each["body"] or ""


def piece(key: Key, case: Case, known: dict[Key, Record], trainer: Trainer) -> Record:
    """Run a piece in a folder with the prepared images of its case."""
    kind, name, seed, body = key
    if kind == "choose":
        return chosen_once(case, seed)
    found = known["choose", name, seed, ""]
    if kind == "tuned":
        return tuned(case, seed, found)
    if kind == "sweep":
        return swept(case, seed, body, found["settings"]["augment.copies"])
    timed(lambda: augment.run(case.params(seed, {})))
    return fine_tuned(case, seed, body, found, trainer)


def missing(case: Case, seed: int, known: dict[Key, Record]) -> Iterator[Key]:
    """The pieces of a case that are not finished. The body of the sweep is the recommended one."""
    first: Key = ("choose", case.name, seed, "")
    if first not in known:
        yield first
    rest: list[Key] = [("sweep", case.name, seed, known[first]["choice"]), ("tuned", case.name, seed, "")]
    rest += [("body", case.name, seed, name) for name in BODIES]
    yield from (key for key in rest if key not in known)


def measured(path: Path, cases: Sequence[Case], seeds: Sequence[int], again: str | None) -> None:
    """Run what is not finished, and append it to the file piece by piece. again: a kind of pieces that is run anew."""
    from frostline.training.trainer import Trainer

    known = {key_of(each): each for each in records(path) if each["kind"] != again}
    with workspace() as folder:
        trainer = Trainer(Store(folder / "shared", 1e10, Memory(1e9)))
        for seed, case in product(seeds, cases):
            with workspace(), contextlib.redirect_stderr(io.StringIO()):
                for key in missing(case, seed, known):
                    if not paths.PREPARED.exists():
                        timed(partial(prepare.run, case.params(seed, {})))
                    about = {"kind": key[0], "case": key[1], "seed": seed, "body": key[3] or None}
                    known[key] = {**about, "machine": machine(), **piece(key, case, known, trainer)}
                    with path.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(known[key]) + "\n")
                    print(time.strftime("%H:%M:%S"), json.dumps(known[key]), flush=True)


@dataclass(frozen=True)
class Ranking:
    """A case's bodies: three scores of each, its test accuracy after fine-tuning, and the number of test images."""

    scores: dict[str, list[float]]
    tests: list[float]
    images: int

    def pairs(self, score: str, is_clear: bool) -> Iterator[int]:
        """For each pair of bodies, whether a score orders it as fine-tuning does: 1, -1, or 0 where one side is even.

        is_clear: only those whose accuracies differ by over two standard errors of the difference.
        """
        given = self.scores[score]
        for one, other in combinations(range(len(self.tests)), 2):
            gap = self.tests[one] - self.tests[other]
            error = math.sqrt(sum(p * (1 - p) for p in (self.tests[one], self.tests[other])) / self.images)
            if not is_clear or abs(gap) > 2 * error:
                yield int(np.sign(given[one] - given[other]) * np.sign(gap))


def ranking(own: Record, bodies: Sequence[Record]) -> Ranking:
    probes = own["probes"]
    scores = {score: [probes[each["body"]][score] for each in bodies] for score in ("ridge", "nearest")}
    scores["top1"] = [BODIES[each["body"]].top1 or 0.0 for each in bodies]
    return Ranking(scores, [each["test"] for each in bodies], own["images"])


def words(case: str, seed: int) -> str:
    source, per_class = case.split(":")
    return f"{source}, {per_class} a class, seed {seed}"


def order_table(duels: Sequence[Record], every: Sequence[Record]) -> str:
    """The order of bodies, case by case and pooled."""
    rows, rankings, losses = [], [], []
    for own in duels:
        bodies = [each for each in every if each["kind"] == "body" and is_of(each, own)]
        if len(bodies) < len(BODIES):
            continue
        each = ranking(own, bodies)
        rankings.append(each)
        tests = {one["body"]: one["test"] for one in bodies}
        losses.append(max(tests.values()) - tests[own["choice"]])
        taus = [f"{statistics.mean(each.pairs(score, False)):+.2f}" for score in SCORES]
        rows.append([words(own["case"], own["seed"]), *(f"{tests[name]:.3f}" for name in BODIES), own["choice"], *taus])
    for label, is_clear in (("**all pairs**", False), ("pairs that differ by two standard errors", True)):
        signs = {score: [sign for each in rankings for sign in each.pairs(score, is_clear)] for score in SCORES}
        pooled = [f"**{statistics.mean(every):+.2f}**" if every else "" for every in signs.values()]
        rows.append([f"{label}, {len(signs['ridge'])}", *[""] * (len(BODIES) + 1), *pooled])
    factors = " and ".join(f"{factor:g}" for factor in FACTORS)
    caption = (
        f"The order of {len(BODIES)} bodies. First the test accuracy of each: the best by validation of the head alone "
        f"({HEAD_STEPS:,} steps) and of two fine-tunings with {HALF:g} of the compute frozen, {EPOCHS} epochs, at "
        f"{factors} times the rate that the verdict had for so many steps. Then Kendall's tau between a score and that "
        "accuracy; over all pairs of bodies of all cases, and over those whose accuracies differ by two standard "
        "errors or more. frostnet has no ImageNet top-1 and ranks lowest there. The recommended body is behind the "
        f"best one of its case by {statistics.mean(losses or [0]):.3f} in the mean, {max(losses or [0]):.3f} at most."
    )
    return text(caption, ["case", *BODIES, "recommended", *(f"tau, {name}" for name in SCORES.values())], rows)


def is_of(each: Record, own: Record) -> bool:
    return (each["case"], each["seed"]) == (own["case"], own["seed"])


def is_rival(each: Record, own: Record) -> bool:
    return is_of(each, own) and each["body"] == own["choice"]


def duel_table(duels: Sequence[Record], every: Sequence[Record]) -> str:
    """The recommended settings against the sweep's best trial."""
    rows, behind, shares, unlike = [], [], [], 0
    tunings = {(each["case"], each["seed"]): each["tried"] for each in every if each["kind"] == "tuned"}
    for each in duels:
        seconds = each["seconds"]
        rival = next((one for one in every if one["kind"] == "sweep" and is_rival(one, each)), None)
        if rival is None:
            continue
        gap = each["test"] - rival["test"]
        error = math.sqrt(sum(p * (1 - p) for p in (each["test"], rival["test"])) / each["images"])
        share = (seconds["choose"] + seconds["finetune"]) / rival["seconds"]
        behind.append(gap >= -WITHIN - 1e-9)
        shares.append(share)
        unlike += rival["copies"] != each["settings"]["augment.copies"]
        rate = rival["best"]["finetune.learning_rate"]
        rows.append(
            [
                words(each["case"], each["seed"]),
                f"{each['scenario']}: {each['choice']}, {recommended(each)}",
                f"{rival['best']['finetune.freeze']}, {rate:.1g}",
                f"{each['test']:.3f}",
                "; ".join(
                    f"{test:.3f} ({cut}, {speed:.1g})"
                    for cut, speed, test in tunings.get((each["case"], each["seed"]), [])
                ),
                f"{rival['test']:.3f}",
                f"{gap:+.3f} ± {error:.3f}",
                f"{seconds['choose']:.0f} s + {seconds['finetune']:.0f} s",
                f"{rival['seconds']:.0f} s",
                f"{share:.0%}",
            ]
        )
    header = ["case", "recommended", "sweep's best", "recommended, test", "fine-tuned", "sweep", "difference"]
    return text(
        duel_caption(behind, shares, unlike), [*header, "choose + finetune", "sweep takes", "of its time"], rows
    )


def duel_caption(behind: Sequence[bool], shares: Sequence[float], unlike: int) -> str:
    """behind: whether a case's accuracy is near the sweep's; shares: of the sweep's time; unlike: cases in which the
    two have other numbers of stored variants, because the verdict's rules have changed since the sweep."""
    met = sum(near and share < SHARE for near, share in zip(behind, shares, strict=True))
    return (
        f"The recommended settings, trained once, against the best trial of {TRIALS} of a sweep over the freeze depth "
        f"and the rate (1e-5 to 1e-2) of the same body, {EPOCHS} epochs. Within {WITHIN:g} of the sweep's test "
        f"accuracy, or above it: {sum(behind)} of {len(behind)} cases. Under {SHARE:.0%} of its time: "
        f"{sum(share < SHARE for share in shares)}; the times are {min(shares):.0%} to {max(shares):.0%} of the "
        f"sweep's. Both, which was the goal in 6 of 8: {met}. `fine-tuned`: the body that the first verdict "
        "recommended (frostnet for signs of 20 and 50 a class, MobileNet 0.25 for digits, else MobileNetV2), with "
        "freeze lines and rates in brackets. ±: the standard error of the difference of two accuracies of so many "
        "images; it does not count what another seed would change. Making stored variants is not counted, "
        f"and in {unlike} cases the sweep had another number of them; the time of `choose` is for all bodies, with an "
        "empty store, and compiling counts everywhere. Three numbers of the verdict were set "
        "after figures of these cases of seed 1 had been seen: fewer than 20 images a class are few, a head alone has "
        "1,000 steps at 3e-3, and no rate is above 3e-4. So this is no test of them. With those of before (50 images, "
        "1e-3, 2e-3), and with validation labels that taught the probes, 3 of the 8 cases were within 0.01. "
        "`--again choose` measures what the verdict is today."
    )


def recommended(each: Record) -> str:
    """A duel's recommended training, in words."""
    settings = each["settings"]
    if not settings["finetune.epochs"]:
        return f"head alone{' at ' + each['until'] if each['until'] else ''}"
    return f"{settings['finetune.freeze']}, {settings['finetune.learning_rate']:.1g}"


def text(caption: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [" | ".join(cells) for cells in (header, ["---"] * len(header), *rows)]
    return f"{caption}\n\n" + "\n".join(f"| {each} |" for each in lines) + "\n"


def tables(found: Sequence[Record]) -> str:
    names = [case.name for case in sorted(CASES, key=lambda case: (list(SOURCES).index(case.source), case.per_class))]
    duels = [each for each in found if each["kind"] == "choose" and each["case"] in names]
    duels.sort(key=lambda each: (names.index(each["case"]), each["seed"]))
    machines = "; ".join(sorted({each["machine"] for each in found}))
    about = (
        f"[What `frostline choose` says](../choose_truth.py) against fine-tuning, at {SIDE} px. digits are of 8 px, "
        "made larger. 50 a class are not all that there are: more would take long. The validation split is whole "
        "with few labels too, and `choose` measures on it. Nothing here has 1,000 images a class. "
        f"Measured on {machines}."
    )
    return "\n".join([about, "", order_table(duels, found), duel_table(duels, found)])


def start_engine() -> None:
    """Load Keras and all that trains, so that no clock counts it."""
    with backend.quiet():
        import tensorflow as tf

        import frostline.features.depths
        import frostline.search.worker
        import frostline.training.trainer  # noqa: F401
    tf.constant(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", default="1")
    parser.add_argument("--cases", default=",".join(case.name for case in CASES))
    parser.add_argument("--runs", type=Path, default=RESULTS / "choose_truth.jsonl", help="finished pieces")
    parser.add_argument("--again", choices=("choose",), help="after a change of the verdict's rules")
    parser.add_argument("--table", action="store_true", help="only print the tables of the finished pieces")
    given = parser.parse_args()
    path = given.runs.resolve()
    if not given.table:
        if not SOURCES["clothing"].is_dir():
            sys.exit("FROSTLINE_TEST_ASSETS is not set: the photos and weights are not part of this repository")
        wanted = given.cases.split(",")
        start_engine()
        path.parent.mkdir(parents=True, exist_ok=True)
        measured(
            path, [case for case in CASES if case.name in wanted], list(map(int, given.seeds.split(","))), given.again
        )
    if found := records(path):
        result = tables(found)
        print(result)
        path.with_suffix(".md").write_text(result, encoding="utf-8")


if __name__ == "__main__":
    main()
