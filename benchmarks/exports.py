"""Exports: do they answer as `predict`, on test images and on odd files, how large are they, and how fast.

    FROSTLINE_TEST_ASSETS=.../assets python benchmarks/exports.py

Two classifiers: frostnet on digits with the project's params.yaml, and a frozen MobileNet (alpha 0.25) on photos of
sign language digits. Each export is made by `frostline export`, which compares it with `predict` on all test images.
Then each has a process of its own. In three rounds, one process after the other, they answer 200 test images; then each
gets the files of odd_files.py. The scorer is what `frostline serve` and `predict` use, with the same decoded images.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import sys
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import odd_files
from export_processes import Child, Variant
from PIL import Image
from table import show
from workspace import ROOT, params, workspace

from frostline import paths
from frostline.data import images, shards
from frostline.errors import RefusedError
from frostline.params.schema import Params

ROUNDS, TIMED = 3, 200
TITLES = {
    "digits": "frostnet on digits, 64 px",
    "photos": "MobileNet (alpha 0.25), frozen, on photos of sign language digits, 128 px",
}
PICTURE = 96, 72  # pixels, of which the odd files are made
CLOSE = 1e-5  # of probabilities
SCORER = "predict"
DIED, HUNG = "its process ends", "it never ends"


VARIANTS = (
    Variant("saved_model"),
    Variant("onnx"),
    Variant("litert"),
    Variant("openvino"),
    Variant("saved_model", "bytes"),
    Variant("onnx", "bytes"),
    Variant("onnx", int8=True),
    Variant("litert", int8=True),
)
HEADER = (
    "export",
    "same label",
    "same set",
    "same unknown",
    "largest difference",
    "odd files: same label",
)
HEADER += ("refused", "size", "one image, p50", "images/s")


def main() -> None:
    assets = os.environ.get("FROSTLINE_TEST_ASSETS")
    if not assets:
        sys.exit("FROSTLINE_TEST_ASSETS is not set: the photos and weights are not part of this repository")
    jobs = {"digits": ({}, 0), "photos": (photos(Path(assets)), 3)}
    for job in sys.argv[1:] or jobs:
        changes, picture = jobs[job]
        with workspace() as folder:
            settings = params(changes)
            trained(settings, folder)
            coded = test_files(settings, folder)
            corpus = odd_files.corpus(Image.open(BytesIO(coded[picture])).convert("RGB").resize(PICTURE))
            rows, odd = measured(settings, folder, coded, corpus)
        caption = (
            f"{TITLES[job]}: exports against `predict`. Same label, set and unknown: share of the {len(coded)} test "
            f"images, as their source has them. Odd files: the {len(corpus)} of odd_files.py; `predict` answers all "
            f"but 5. Times: medians of {ROUNDS} rounds in turn, one image a call, decoded before unless it takes "
            "bytes. The machine was shared with others, so only the order of magnitude counts."
        )
        show(f"exports_{job}", caption, HEADER, rows)
        odd_caption = (
            f"{TITLES[job]}: odd files that an export answers otherwise than `predict`: another label, or a "
            f"probability that differs by more than {CLOSE:g}."
        )
        show(f"exports_{job}_odd", odd_caption, ("export", "file", "what happens"), odd)


def photos(assets: Path) -> dict[str, Any]:
    """The settings for photos, where they differ from params.yaml."""
    return {
        "data.source": str(assets / "sign-digits"),
        "data.image_size": 128,
        "augment.copies": 0,
        "backbone.name": "MobileNet",
        "backbone.alpha": 0.25,
        "backbone.weights": str(assets / "weights" / "mobilenet_2_5_224_tf_no_top.h5"),
        "finetune.freeze": "all",
        "finetune.head_epochs": 30,
        "finetune.epochs": 0,
    }


def trained(settings: Params, folder: Path) -> None:
    """A classifier in models/classifier."""
    from frostline.stages import augment, finetune, prepare

    (folder / "data").mkdir()
    shutil.copy(ROOT / "data" / "digits.yaml", folder / "data")
    for stage in (prepare, augment, finetune):
        print(stage.run(settings), flush=True)


def test_files(settings: Params, folder: Path) -> list[bytes]:
    """The bytes of the files of all test images."""
    from frostline.serving import originals

    test = shards.open_folder(paths.PREPARED / "test")
    found = originals.of_split(settings.data, test, folder)
    return [found.coded(row) for row in range(len(test))]


def measured(settings: Params, folder: Path, coded: list[bytes], corpus: Mapping[str, bytes]) -> tuple[list, list]:
    """The rows of the two tables, without the classifier's name."""
    from frostline.commands import export
    from frostline.serving.scoring import Scorer

    keep(folder / "timed.npy", coded[:TIMED])
    keep(folder / "odd.npy", list(corpus.values()))
    made, rows, odd = [], [], []
    for variant in VARIANTS:
        wishes = export.Wishes(variant.takes == "bytes", variant.int8, True, 1.0)
        try:
            print(export.run(settings, str(paths.BUNDLE), folder / variant.name, variant.form, wishes), flush=True)
            made.append(variant)
        except RefusedError as error:
            print(error, flush=True)
            score, before = re.findall(r"(\d\.\d+) against (\d\.\d+)", str(error))[0]
            rows.append((f"{variant.name}: refused by the gate, accuracy {score} against {before}", *[""] * 9))
    times = timed(folder, made)
    scorer = Scorer(paths.BUNDLE)
    expected = [predicted(scorer, each) for each in corpus.values()]
    for variant in made:
        report = json.loads((folder / variant.name / "export.json").read_text())["checked"]
        outcomes = odd_outcomes(folder, variant, len(corpus))
        differences = list(zip(corpus, map(difference, outcomes, expected), strict=True))
        odd += [(variant.name, name, text) for name, text in differences if text]
        answered = [
            (one, other) for one, other in zip(outcomes, expected, strict=True) if isinstance(one, list) and other
        ]
        same = sum(int(np.argmax(one) == np.argmax(other)) for one, other in answered)
        one = report["int8" if variant.int8 else "float"]
        agreed = one["agreement"]
        flags = [f"{agreed['flags'][name]:.2%}" if name in agreed["flags"] else "" for name in ("set", "unknown")]
        refused = sum(each is None and other is not None for each, other in zip(outcomes, expected, strict=True))
        cells = [variant.name, f"{agreed['labels']:.2%}", *flags, f"{agreed['largest']:.1e}"]
        cells += [f"{same} of {len(answered)}", str(refused), f"{one['bytes'] / 1e6:.2f} MB"]
        rows.append((*cells, *speed(times[variant])))
    rows.append((SCORER, *[""] * 7, *speed(times[None])))
    return rows, odd


def keep(path: Path, files: list[bytes]) -> None:
    """Write the bytes of files as one file, for the processes."""
    rows = np.empty(len(files), object)
    rows[:] = [np.frombuffer(each, np.uint8) for each in files]
    np.save(path, rows)


def timed(folder: Path, made: list[Variant]) -> dict[Variant | None, list[dict[str, float]]]:
    """The times of each variant, and of `predict` under None, in rounds: one process at a time."""
    children = {variant: Child(folder, variant) for variant in (None, *made)}
    times: dict[Variant | None, list[dict[str, float]]] = {variant: [] for variant in children}
    for _ in range(ROUNDS):
        for variant, child in children.items():
            (found,) = child.ask("times", 1)
            times[variant].append(found)
    for child in children.values():
        child.close()
    return times


def speed(rounds: list[dict[str, float]]) -> tuple[str, str]:
    median, rate = (statistics.median(each[key] for each in rounds) for key in ("p50", "rate"))
    return f"{1000 * median:.2f} ms", f"{rate:.0f}"


def predicted(scorer: Any, data: bytes) -> list[float] | None:
    """What `predict` says of a file, None if it refuses it."""
    try:
        return scorer.probabilities([scorer.prepare(data)])[0].tolist()
    except images.UnreadableImageError:
        return None


def difference(found: Any, expected: list[float] | None) -> str:
    """How an outcome differs from that of `predict`, as words; empty if it does not."""
    if found in (DIED, HUNG):
        return str(found)
    if found is None or expected is None:
        return "" if found is expected else "is refused" if found is None else "is answered, and `predict` refuses it"
    largest = float(np.abs(np.subtract(found, expected)).max())
    label = "" if np.argmax(found) == np.argmax(expected) else "another label, "
    return f"{label}probabilities differ by {largest:.2g}" if label or largest > CLOSE else ""


def odd_outcomes(folder: Path, variant: Variant, count: int) -> list[Any]:
    """What a variant answers for each odd file: probabilities, None if it is refused, DIED or HUNG."""
    outcomes: list[Any] = []
    while len(outcomes) < count:
        child = Child(folder, variant)
        outcomes += child.ask(f"odd {len(outcomes)}", count - len(outcomes))
        child.close()
        if len(outcomes) < count:
            outcomes.append(HUNG if child.is_hung else DIED)
    return outcomes


if __name__ == "__main__":
    main()
