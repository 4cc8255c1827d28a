"""Do sets cover as often as they promise, and are strangers told from the classes? On real photos and on digits.

    FROSTLINE_TEST_ASSETS=.../assets OMP_NUM_THREADS=1 python benchmarks/uncertainty.py [--part ...]

Frozen bodies, with a logistic regression as their head. `sets`: 20 random draws of the images that the sets are fitted
on; the rest of the images that the head was not trained on measures the coverage. `unknown`: each class is left out of
everything, its images are the strangers; what `auto` uses is chosen without it, by leaving out each of the others in
turn. Far strangers are the photos of the other set. `trained`: the whole pipeline on digits without one of them, with
fine-tuning; what the bundle says about true strangers, and what it had measured by leaving out those that it knows.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import betabinom, binom
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from table import show

from frostline.data import images
from frostline.models import backend
from frostline.params.schema import BackboneSection

with backend.quiet():
    import keras

    from frostline.models import backbones, heads, sklearn_fit
    from frostline.uncertainty import conformal, evidence, fitting, leaving_out, space
    from frostline.uncertainty.evidence import SCORES, Strangeness
    from frostline.uncertainty.leaving_out import Labelled

ASSETS = Path(os.environ.get("FROSTLINE_TEST_ASSETS", ""))
MOBILENET = ASSETS / "weights/mobilenet_2_5_224_tf_no_top.h5"
BODIES = {  # name, weights, alpha
    "EfficientNetLite0": ("EfficientNetLite0", "imagenet", None),
    "MobileNet 0.25": ("MobileNet", str(MOBILENET), 0.25),
    "frostnet": ("frostnet", "builtin", None),
}
SIDE, DRAWS, ALPHA = 224, 20, 0.1


@dataclass(frozen=True)
class Photos:
    """Prepared images, uint8 (n, size, size, 3), and their labels."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]


def photos(*folders: Path) -> Photos:
    files = [
        path for folder in folders for path in sorted(folder.rglob("*")) if path.suffix.lower() in (".jpg", ".png")
    ]
    with ThreadPoolExecutor() as pool:
        pixels = np.stack(list(pool.map(lambda path: images.prepare(path, SIDE, "crop"), files)))
    _, labels = np.unique([path.parent.name for path in files], return_inverse=True)
    return Photos(pixels, labels)


def digits() -> Photos:
    given = load_digits()
    scaled = np.repeat((given.images / 16 * 255).astype(np.uint8)[..., None], 3, axis=-1)
    return Photos(np.stack([images.resize(each, 64, "stretch") for each in scaled]), given.target.astype(np.int64))


def features(body: str, pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    """The pooled features of the depths that `evaluate.unknown` measures, by layer."""
    name, weights, alpha = BODIES[body]
    section = BackboneSection(name=name, weights=weights, alpha=alpha, until=None)
    backbone = backbones.of_section(section, str, pixels.shape[1])
    places = fitting.places(backbone.model)
    given = keras.Input(pixels.shape[1:], dtype="uint8")
    inside = keras.Model(backbone.model.input, [cut.tensor for cut in places])(backbone.preprocess(given))
    pooled = []
    for number, each in enumerate(keras.tree.flatten(inside)):
        pool = heads.pool(tuple(each.shape[1:]), "avg")
        pool.name = f"pool{number}"
        pooled.append(pool(each))
    found = keras.Model(given, pooled).predict(pixels, batch_size=32, verbose=0)
    return dict(zip([cut.layer for cut in places], found, strict=True))


def parts(labels: NDArray[np.int64], seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Rows of train, validation and test: 60%, 20% and 20%."""
    order = np.random.default_rng(seed).permutation(len(labels))
    ends = [round(0.6 * len(order)), round(0.8 * len(order))]
    train, validation, test = np.split(order, ends)
    return train, validation, test


def outputs(
    train: NDArray[np.float32], labels: NDArray[np.int64], asked: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Logits and probabilities of a logistic regression, the head of a frozen body."""
    settings = {"C": leaving_out.STRENGTH, "max_iter": 500}
    head = sklearn_fit.fit("logistic_regression", settings, train, labels, balanced=False, seed=0)
    scaled = asked * head.scale + head.offset
    estimator = head.estimator
    return estimator.decision_function(scaled).astype(np.float32), estimator.predict_proba(scaled).astype(np.float32)


def coverage(name: str, body: str, given: Photos) -> Iterable[list[str]]:
    """Rows of the table of sets."""
    vectors = list(features(body, given.pixels).values())[-1]
    train, *rest = parts(given.labels, seed=0)
    asked = np.concatenate(rest)
    _, probabilities = outputs(vectors[train], given.labels[train], vectors[asked])
    labels = given.labels[asked]
    accuracy = float((probabilities.argmax(axis=1) == labels).mean())
    for score in ("lac", "aps", "raps"):
        inside, plain, shares, sizes = 0, 0, [], []
        for draw in range(DRAWS):
            order = np.random.default_rng(draw).permutation(len(labels))
            known, new = np.split(order, [len(order) * 4 // 5])
            facts = conformal.fit(score, probabilities[known], labels[known], 1 - ALPHA, draw)
            sets = np.asarray(conformal.sets(facts, probabilities[new]))
            hits = int(sets[np.arange(len(new)), labels[new]].sum())
            fail = int(np.floor((len(known) + 1) * ALPHA))
            low, high = betabinom.interval(0.95, len(new), len(known) + 1 - fail, fail)
            inside += low <= hits <= high
            low, high = binom.interval(0.95, len(new), 1 - ALPHA)
            plain += low <= hits <= high
            shares.append(hits / len(new))
            sizes.append(sets.sum(axis=1).mean())
        yield [
            f"{name}, {body}, accuracy {accuracy:.3f}",
            score,
            f"{np.mean(shares):.4f} ({min(shares):.3f} to {max(shares):.3f})",
            f"{inside} of {DRAWS}",
            f"{plain} of {DRAWS}",
            f"{np.mean(sizes):.2f}",
        ]


def strangers(given: Photos, vectors: Mapping[str, NDArray], far: Mapping[str, NDArray]) -> dict[str, list[float]]:
    """Areas under the ROC curves of all scores: for each class that is left out, then for far strangers."""
    areas: dict[str, list[float]] = {}
    layers = list(vectors)
    for left_out in [*np.unique(given.labels), -1]:
        train, validation, test = parts(given.labels, seed=1)
        known = given.labels != left_out
        train, validation = train[known[train]], validation[known[validation]]
        strange = far if left_out == -1 else {layer: each[~known] for layer, each in vectors.items()}
        test = test[known[test]]
        labelled = [
            Labelled({layer: each[rows] for layer, each in vectors.items()}, given.labels[rows])
            for rows in (train, validation)
        ]
        best = leaving_out.measure(*labelled, seed=0)[0]
        asked = {
            layer: np.concatenate([each[validation], each[test], strange[layer]]) for layer, each in vectors.items()
        }
        end = layers[-1]
        values = evidence.of_outputs(*outputs(vectors[end][train], given.labels[train], asked[end]))
        of_outputs = {name: np.asarray(each) for name, each in values.items()}
        is_strange = np.arange(len(asked[end]))[len(validation) :] >= len(validation) + len(test)
        for layer in [None, *layers]:
            found = dict(of_outputs)
            if layer is not None:
                found |= space.fit(vectors[layer][train], given.labels[train]).distances(asked[layer])
            for name in SCORES:
                if evidence.needs_features(name) == (layer is None):
                    continue
                score = Strangeness.fit(name, {key: each[: len(validation)] for key, each in found.items()})
                area = float(roc_auc_score(is_strange, score.of(found)[len(validation) :]))
                areas.setdefault(name if layer is None else f"{name}, {layer}", []).append(area)
                if (best.score, best.layer) == (name, layer):
                    areas.setdefault("auto", []).append(area)
    return areas


def rows_of(areas: Mapping[str, list[float]], title: str) -> Iterable[list[str]]:
    base = np.mean(areas["msp"][:-1])
    for name in ["auto", *sorted(set(areas) - {"auto"}, key=lambda each: -np.mean(areas[each][:-1]))]:
        near, far = areas[name][:-1], areas[name][-1]
        mean = np.mean(near)
        yield [title, name, f"{mean:.3f}", f"{min(near):.3f}", f"{mean - base:+.3f}", f"{far:.3f}"]


def trained(left_out: int) -> list[str]:
    """A row about the classifier of all digits but one, fine-tuned by the settings of params.yaml with 50 of each."""
    from frostline import train
    from frostline.models import account, answers, bundles

    given = load_digits()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for number, (pixels, label) in enumerate(zip(given.images, given.target, strict=True)):
            file = place / ("strangers" if label == left_out else "digits") / str(label) / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((pixels / 16 * 255).astype(np.uint8)).save(file)
        changes = {"data.train_per_class": 50, "data.resize": "stretch"}
        result = train(place / "digits", changes, place / "trained")
        bundle = result.folder / "models/classifier"
        facts = account.read(bundle).answers
        assert facts is not None
        assert facts.unknown is not None
        measured = {(each.score, each.layer): each.auroc for each in facts.unknown.left_out}
        network = answers.load(bundle)
        known = pd.read_parquet(result.folder / "reports/predictions.parquet")
        files = sorted((place / "strangers").rglob("*.png"))
        pixels = np.stack([images.prepare(path, bundles.load(bundle).layout.image_size, "stretch") for path in files])
        found = network.predict(pixels, verbose=0)
    is_strange = np.arange(len(known) + len(files)) >= len(known)
    scores = np.concatenate([known["unknown_score"], found["unknown_score"]])
    by_probability = np.concatenate([-known["probability"], -found["probabilities"].max(axis=1)])
    return [
        f"all but {left_out}",
        f"{facts.unknown.score}, {facts.unknown.layer}",
        f"{roc_auc_score(is_strange, scores):.3f}",
        f"{measured[facts.unknown.score, facts.unknown.layer]:.3f}",
        f"{roc_auc_score(is_strange, by_probability):.3f}",
        f"{measured['msp', None]:.3f}",
        f"{known['unknown'].mean():.3f}",
        f"{found['unknown'].mean():.3f}",
    ]


def show_unknown(rows: list[list[str]]) -> None:
    show(
        "unknown",
        "How well strangers are told, as the area under the ROC curve: images of a class that was left out of "
        "everything against test images of the others, mean over the ten classes and the lowest; and the photos of the "
        "other set. `auto` is what `evaluate.unknown` chooses without having seen the strangers.",
        ["data", "score, layer", "left-out classes", "lowest", "minus msp", "far strangers"],
        rows,
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--part", choices=["sets", "unknown", "trained"])
    part = parser.parse_args().part
    if part != "trained" and not MOBILENET.is_file():
        sys.exit("FROSTLINE_TEST_ASSETS is not set: the photos are not part of this repository")
    if part != "trained":
        clothing = photos(ASSETS / "clothing-small/train", ASSETS / "clothing-small/validation")
        signs = photos(ASSETS / "sign-digits")
    if part in (None, "sets"):
        rows = [
            row
            for name, body, given in (
                ("clothing", "EfficientNetLite0", clothing),
                ("sign language digits", "MobileNet 0.25", signs),
                ("digits", "frostnet", digits()),
            )
            for row in coverage(name, body, given)
        ]
        show(
            "sets",
            f"Coverage of prediction sets, promised {1 - ALPHA:g}, over {DRAWS} random draws: four fifths of the "
            "images that the head was not trained on fit the sets, one fifth measures them. `exact`: draws whose "
            "coverage is in the 95% interval of its law, which knows how many images the sets were fitted on "
            "(beta-binomial; Vovk, ACML 2012); `binomial`: in that of a binomial of the measuring images alone, which "
            "leaves out that draw.",
            ["data", "score", "coverage, mean (lowest to highest)", "exact", "binomial", "classes in a set"],
            rows,
        )
    if part in (None, "unknown"):
        rows = []
        ours, theirs = (features("EfficientNetLite0", each.pixels) for each in (clothing, signs))
        for name, given, vectors, far in (("clothing", clothing, ours, theirs), ("sign digits", signs, theirs, ours)):
            rows += rows_of(strangers(given, vectors, far), f"{name}, EfficientNetLite0")
            show_unknown(rows)  # after each, since it takes minutes
    if part in (None, "trained"):
        show(
            "unknown_trained",
            "Fine-tuned classifiers of nine of the ten digits, 50 images a class. How well images of the tenth are "
            "told, as the area under the ROC curve, against what the bundle had measured by leaving out classes that "
            "its body was fine-tuned on; the same for msp alone; and the share of images that is called unknown.",
            ["digits", "score, layer", "true", "measured", "msp, true", "msp, measured", "known", "strangers"],
            [trained(digit) for digit in (1, 8)],
        )


if __name__ == "__main__":
    main()
