"""A classifier in a notebook answers as `predict` does, for images in any form."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import make_bundle
from PIL import Image

import frostline
from frostline.errors import DataError, UserError
from frostline.models import bundles
from frostline.serving import loading


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("models") / "classifier", ("cat", "dog", "<b>"))


@pytest.fixture(scope="module")
def classifier(folder):
    return frostline.load(folder)


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png", pixels


def test_files_arrays_and_images_of_pillow_are_answered_alike(classifier, folder, photo):
    path, pixels = photo
    table = classifier.predict([path, str(path), pixels, Image.fromarray(pixels)])
    assert list(table.columns) == ["image", "label", "probability", "cat", "dog", "<b>"]
    assert table["image"].tolist() == [str(path), str(path), 2, 3]
    scorer = loading.scorer_of(folder)
    expected = scorer.probabilities([scorer.prepare(path)])[0]
    for row in table[["cat", "dog", "<b>"]].to_numpy():
        np.testing.assert_allclose(row, expected, rtol=0, atol=1e-6)
    assert table["probability"].tolist() == pytest.approx([expected.max()] * 4, abs=1e-6)
    assert table["label"].nunique() == 1
    assert len(classifier.predict(path)) == len(classifier.predict(pixels)) == 1
    assert len(classifier.predict(np.stack([pixels, pixels]))) == 2
    assert classifier.predict([]).empty


def test_an_image_that_cannot_be_read_is_named(classifier, tmp_path):
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(DataError, match=r"text\.jpg: "):
        classifier.predict(tmp_path / "text.jpg")
    with pytest.raises(DataError, match=r"image 1: has shape \(4, 4\), not \(height, width, 3\)"):
        classifier.predict([np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8)])
    with pytest.raises(DataError, match="image 0: holds other numbers than integers from 0 to 255"):
        classifier.predict(np.zeros((4, 4, 3)))


def test_features_are_what_the_head_gets(classifier, folder, photo):
    vectors = classifier.features([photo[0], photo[1]])
    bundle = bundles.load(folder)
    _, head = bundles.parts(bundle)
    logits = np.asarray(head.top(vectors))
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(shares, classifier.predict([photo[0], photo[1]]).iloc[:, 3:], rtol=0, atol=1e-5)
    assert classifier.features(photo[0], layer="block2_out").shape[0] == 1
    assert classifier.features([]).shape == (0, vectors.shape[1])


def test_an_explanation_is_of_the_predicted_class_or_of_the_named_one(classifier, photo):
    found = classifier.explain(photo[0])
    row = classifier.predict(photo[0]).iloc[0]
    assert (found.label, found.method) == (row["label"], "Grad-CAM")
    assert found.probability == pytest.approx(row["probability"], abs=1e-6)
    assert found.heat.shape == found.image.shape[:2] == (32, 32)
    assert found.overlay.size == (32, 32)
    assert classifier.explain(photo[0], "dog").label == "dog"
    with pytest.raises(UserError, match=r"'bird' is no class of .*; use one of cat, dog, <b>"):
        classifier.explain(photo[0], "bird")


def test_objects_show_themselves_with_images_and_escaped_names(classifier, photo):
    table = classifier.predict([photo[0]] * 60)
    page = table._repr_html_()
    assert page.count("<img src='data:image/png;base64,") == 50
    assert "and 10 more" in page
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    assert type(table[["label"]]) is pd.DataFrame
    assert classifier.explain(photo[0])._repr_html_().count("<img") == 2
    assert "frostnet" in classifier._repr_html_()
    assert repr(classifier) == "Classifier of 3 classes (cat, dog, <b>), frostnet, 32 pixels"


def test_a_folder_without_a_classifier_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="holds no classifier"):
        frostline.load()


def test_the_import_takes_no_library_along():
    code = "import frostline, sys; print({'keras', 'mlflow', 'pandas', 'numpy'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "set()"


def test_the_public_names():
    assert frostline.__all__ == ["load", "train"]
