"""Sets and "none of these" in a bundle: `evaluate`, `predict` and a server say the same."""

import json
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from conftest import make_bundle, make_shards

from frostline.core.mapped import Memory
from frostline.errors import DataError
from frostline.features import predictor
from frostline.features.store import Store
from frostline.models import account, answers, bundles
from frostline.params.evaluate import EvaluateSection, SetsSection, UnknownSection
from frostline.serving import loading, packaging
from frostline.serving.scoring import UNKNOWN
from frostline.uncertainty import fitting


def settings(coverage=0.8, false_alarms=0.1, score="auto", sets="lac") -> EvaluateSection:
    return EvaluateSection(
        top_k=1,
        bootstrap=100,
        calibrate="none",
        sets=SetsSection(coverage=coverage, score=sets) if sets else None,
        unknown=UnknownSection(false_alarms=false_alarms, score=score) if score else None,
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return Store(tmp_path_factory.mktemp("store"), 1e9, Memory(1e9))


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> fitting.Images:
    folder = tmp_path_factory.mktemp("images")
    return fitting.Images(
        make_shards(folder / "train", 60, seed=1),
        make_shards(folder / "val", 45, seed=2),
        make_shards(folder / "calibration", 0, seed=3),
    )


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Bundles with a random head, of a sigmoid and of a softmax. The former's classes are two of the three."""
    folder = tmp_path_factory.mktemp("plain")
    return {
        binary: make_bundle(folder / str(binary), ("a", "b") if binary else tuple("abc"), binary)
        for binary in (False, True)
    }


def fitted(plain, images, store, evaluate, folder, binary=False):
    bundle = bundles.load(plain[binary])
    folder.mkdir()
    bundles.save(folder, fitting.fit(bundle, images, evaluate, store, "auto", seed=7))
    return folder


def two_classes(folder) -> fitting.Images:
    names = ("train", "validation", "calibration")
    return fitting.Images(*(make_shards(folder / name, 40, classes=2, seed=5 + at) for at, name in enumerate(names)))


def as_arrays(folder, images):
    """The answers of the whole network."""
    return answers.load(folder).predict(images.take(np.arange(len(images))), verbose=0)


@pytest.mark.parametrize(("score", "binary"), [("auto", False), ("energy", False), ("combined", True)])
def test_evaluate_and_predict_give_the_same_answers(plain, images, store, tmp_path, score, binary):
    """By stored features, as `evaluate` does, and by one pass of the network, as `predict` and `serve` do."""
    if binary:
        images = two_classes(tmp_path)
    folder = fitted(plain, images, store, settings(score=score), tmp_path / "bundle", binary)
    facts = account.read(folder).answers
    assert facts.unknown.score == score or score == "auto"
    assert (facts.unknown.left_out == ()) == binary  # two classes are too few to leave one out
    known = make_shards(tmp_path / "new", 60, classes=2 if binary else 3, seed=8)
    found = predictor.answers(bundles.load(folder), known, store, "auto")
    expected = as_arrays(folder, known)
    np.testing.assert_allclose(found.probabilities, expected["probabilities"], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(found.sets, expected["set"])
    np.testing.assert_allclose(found.unknown_score, expected["unknown_score"], rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(found.unknown, expected["unknown"])
    assert found.unknown.mean() < 0.35
    assert found.sets[np.arange(len(known)), known.labels].mean() > 0.6
    scorer = loading.scorer_of(folder)
    assert scorer.says == ("set", "unknown")
    predictions = scorer.predictions(list(known.take(np.arange(12))))
    for row, each in enumerate(predictions):
        assert set(each.set) == {
            name for name, is_in in zip(scorer.classes, expected["set"][row], strict=True) if is_in
        }
        assert each.set == sorted(each.set, key=lambda name, of=each.probabilities: -of[name])
        best = max(each.probabilities, key=each.probabilities.get)
        assert each.label == (UNKNOWN if expected["unknown"][row] else best)
        assert each.as_json().keys() == {"label", "probability", "probabilities", "set", "unknown"}


def test_noise_is_unknown_to_a_classifier_of_squares(plain, images, store, tmp_path):
    folder = fitted(plain, images, store, settings(score="mahalanobis"), tmp_path / "bundle")
    noise = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    assert answers.load(folder).predict(noise, verbose=0)["unknown"].mean() > 0.9


def test_calibration_images_are_used_where_there_are_some(plain, images, store, tmp_path):
    own = make_shards(tmp_path / "calibration", 30, seed=4)
    folder = fitted(plain, replace(images, calibration=own), store, settings(), tmp_path / "bundle")
    facts = account.read(folder).answers
    assert (facts.split, facts.images, facts.digest) == ("calibration", 30, own.source_digest())


def test_one_of_both_and_neither(plain, images, store, tmp_path):
    folder = fitted(plain, images, store, settings(score=None), tmp_path / "sets")
    assert as_arrays(folder, images.validation).keys() == {"probabilities", "set"}
    assert loading.scorer_of(folder).says == ("set",)
    none = settings(score=None, sets=None)
    bundle = bundles.load(plain[False])
    assert fitting.fit(bundle, images, none, store, "auto", seed=7) is bundle
    (prediction,) = loading.scorer_of(plain[False]).predictions([np.zeros((32, 32, 3), np.uint8)])
    assert prediction.as_json().keys() == {"label", "probability", "probabilities"}


def test_a_fitted_bundle_has_the_same_bytes_again_and_notices_a_changed_bit(plain, images, store, tmp_path):
    first, second = (fitted(plain, images, store, settings(), tmp_path / name) for name in "ab")
    for name in ("answer.keras", "bundle.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    with zipfile.ZipFile(first / "answer.keras") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["metadata.json"] += b" "
    with zipfile.ZipFile(first / "answer.keras", "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    with pytest.raises(DataError, match=r"answer\.keras is damaged"):
        loading.scorer_of(first)
    values = json.loads((second / "bundle.json").read_text())
    del values["digest"]
    values["answers"]["sets"]["coverage"] = "high"
    (second / "bundle.json").write_text(json.dumps(values))
    with pytest.raises(DataError, match=r"answers\.sets\.coverage"):
        account.read(second)


@pytest.mark.process
def test_a_registered_model_has_sets_and_unknown(plain, images, store, tmp_path):
    import pandas as pd

    folder = fitted(plain, images, store, settings(), tmp_path / "bundle")
    packaging.save(folder, tmp_path / "model")
    model = packaging.load(tmp_path / "model")
    table = model.predict(pd.DataFrame({"pixels": [images.validation.take(np.arange(1))[0].tolist()]}))
    assert list(table.columns) == ["label", "probability", "probabilities", "set", "unknown"]
    names = [column.name for column in model.metadata.signature.outputs]
    assert names == list(table.columns)
