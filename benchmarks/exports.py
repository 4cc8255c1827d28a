"""Exports: do they answer as `predict`, on test images and on odd files, how large are they, and how fast.

    FROSTLINE_TEST_ASSETS=.../assets python benchmarks/exports.py

Two classifiers: frostnet on digits with the project's params.yaml, and a frozen MobileNet (alpha 0.25) on photos of sign
language digits. Each export is made by `frostline export`, which compares it with `predict` on all test images. Then each
runs in a process of its own: the files of odd_files.py, and in three rounds, one after the other, 200 test images. The
scorer is what `frostline serve` and `predict` use; it gets the same decoded images.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import odd_files
from PIL import Image
from table import show
from workspace import params, workspace

from frostline import paths
from frostline.data import images, shards
from frostline.params.schema import Params

ROUNDS, TIMED = 3, 200
CLOSE = 1e-5  # of probabilities
SCORER = "predict"


@dataclass(frozen=True)
class Variant:
    """One way of exporting."""

    form: str
    takes: str = "image"
    int8: bool = False

    @property
    def name(self) -> str:
        return " ".join([self.form, *(["INT8"] if self.int8 else []), *(["bytes"] if self.takes == "bytes" else [])])


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
    "classifier",
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
    jobs = {"frostnet, digits": ({}, 0), "MobileNet 0.25, sign language": (photos(Path(assets)), 3)}
    rows, odd = [], []
    for job, (changes, picture) in jobs.items():
        with workspace() as folder:
            settings = params(changes)
            trained(settings, folder)
            coded = test_files(settings, folder)
            corpus = odd_files.corpus(Image.open(BytesIO(coded[picture])).convert("RGB"))
            found, differing = measured(settings, folder, coded, corpus)
            rows += [(job, *row) for row in found]
            odd += [(job, *row) for row in differing]
    show(
        "exports",
        "Exports against `predict`. Same label, set and unknown: share of all test images, 705 and "
        f"{len(coded)}, as their source has them. Odd files: {len(corpus)} of odd_files.py, of which `predict` answers all "
        f"but 5. Times: medians of {ROUNDS} rounds in turn, one image a call, decoded before unless it takes bytes; the "
        "machine was shared with others.",
        HEADER,
        rows,
    )
    show(
        "exports_odd",
        f"Odd files that an export answers otherwise than `predict`: another label, or a difference of more than {CLOSE:g}.",
        ("classifier", "export", "file", "what happens"),
        odd,
    )


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
    (folder / "data" / "digits.yaml").write_text("kind: digits\n")
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

    np.save(folder / "timed.npy", np.array([np.frombuffer(each, np.uint8) for each in coded[:TIMED]], object))
    np.save(folder / "odd.npy", np.array([np.frombuffer(each, np.uint8) for each in corpus.values()], object))
    scorer = Scorer(paths.BUNDLE)
    expected = [predicted(scorer, each) for each in corpus.values()]
    for variant in VARIANTS:
        wishes = export.Wishes(variant.takes == "bytes", variant.int8, True, 1.0)
        print(export.run(settings, str(paths.BUNDLE), folder / variant.name, variant.form, wishes), flush=True)
    times = {variant.name: [] for variant in VARIANTS} | {SCORER: []}
    for _ in range(ROUNDS):
        for variant in (None, *VARIANTS):
            (line,) = child("times", folder, variant)
            times[variant.name if variant else SCORER].append(line)
    rows, odd = [], []
    for variant in VARIANTS:
        report = json.loads((folder / variant.name / "export.json").read_text())["checked"]
        outcomes = odd_outcomes(folder, variant, len(corpus))
        differences = list(zip(corpus, map(difference, outcomes, expected), strict=True))
        odd += [(variant.name, name, text) for name, text in differences if text]
        answered = [pair for pair in zip(outcomes, expected, strict=True) if None not in pair and "died" not in pair]
        same = sum(int(np.argmax(one) == np.argmax(other)) for one, other in answered)
        one = report["int8" if variant.int8 else "float"]
        agreed = one["agreement"]
        flags = [f"{agreed['flags'][name]:.2%}" if name in agreed["flags"] else "" for name in ("set", "unknown")]
        refused = sum(each is None and other is not None for each, other in zip(outcomes, expected, strict=True))
        cells = [variant.name, f"{agreed['labels']:.2%}", *flags, f"{agreed['largest']:.1e}"]
        cells += [f"{same} of {len(answered)}", str(refused), f"{one['bytes'] / 1e6:.2f} MB"]
        rows.append((*cells, *speed(times[variant.name])))
    rows.append((SCORER, "", "", "", "", "", "", "", *speed(times[SCORER])))
    return rows, odd


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
    if found == "died":
        return "its process ends"
    if found is None or expected is None:
        return "" if found is expected else "is refused" if found is None else "is answered, and `predict` refuses it"
    largest = float(np.abs(np.subtract(found, expected)).max())
    label = "" if np.argmax(found) == np.argmax(expected) else "another label, "
    return f"{label}probabilities differ by {largest:.2g}" if label or largest > CLOSE else ""


def odd_outcomes(folder: Path, variant: Variant, count: int) -> list[Any]:
    """What a variant answers for each odd file: probabilities, None if it is refused, `died` if its process ends."""
    outcomes: list[Any] = []
    while len(outcomes) < count:
        outcomes += child("odd", folder, variant, len(outcomes))
        if len(outcomes) < count:
            outcomes.append("died")
    return outcomes


def child(task: str, folder: Path, variant: Variant | None, start: int = 0) -> list[Any]:
    """What a process of its own prints, a line of JSON each."""
    named = [variant.form, variant.takes, str(folder / variant.name)] if variant else ["", "image", str(paths.BUNDLE)]
    command = [sys.executable, __file__, task, str(folder), *named, str(start)]
    output = subprocess.run(command, capture_output=True, text=True, timeout=600).stdout
    return [json.loads(line) for line in output.splitlines() if line.startswith(("[", "{", "null"))]


def work(task: str, folder: Path, form: str, takes: str, path: Path, start: int) -> None:
    """The work of `child`."""
    run, given = runner(form, path), (lambda data: data) if takes == "bytes" else images.decode
    if task == "odd":
        for row in np.load(folder / "odd.npy", allow_pickle=True)[start:]:
            try:
                print(json.dumps(np.asarray(run(given(row.tobytes()))["probabilities"]).tolist()), flush=True)
            except Exception:  # each runtime has its own errors
                print("null", flush=True)
        return
    files = [given(row.tobytes()) for row in np.load(folder / "timed.npy", allow_pickle=True)]
    for file in files[:5]:
        run(file)
    seconds = []
    for file in files:
        begin = time.perf_counter()
        run(file)
        seconds.append(time.perf_counter() - begin)
    print(json.dumps({"p50": statistics.median(seconds), "rate": len(seconds) / sum(seconds)}))


def runner(form: str, path: Path) -> Callable[[Any], Any]:
    """A function from what is given to the answers. form: empty for `predict`."""
    if form:
        from frostline.exports.formats import FORMATS

        return FORMATS[form].load(path / FORMATS[form].file)
    from frostline.serving.scoring import Scorer

    scorer = Scorer(path)
    return lambda image: scorer.predictions([images.resize(image, scorer.image_size, scorer.resize)])


if __name__ == "__main__":
    if len(sys.argv) > 1:
        task, folder, form, takes, path, start = sys.argv[1:]
        work(task, Path(folder), form, takes, Path(path), int(start))
    else:
        main()
