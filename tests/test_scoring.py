"""What a classifier says of files, bytes and arrays; alone and asked by many at once."""

import base64
import io
import threading

import keras
import numpy as np
import pandas as pd
import pytest
from conftest import make_bundle
from PIL import Image

from frostline import classifier, images
from frostline.scoring import Scorer, UnusableInputError


def encoded(pixels, kind="PNG"):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


@pytest.fixture(scope="module")
def photos():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (40 + row, 50, 3), dtype=np.uint8) for row in range(11)]


@pytest.fixture(scope="module", params=[False, True], ids=["softmax", "sigmoid"])
def bundle(request, tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundle") / "it", classes=("cat", "dog"), binary=request.param)


@pytest.fixture(scope="module")
def scorer(bundle):
    return Scorer(bundle)


def test_all_forms_of_a_picture_give_what_the_bundle_says(bundle, scorer, photos, tmp_path):
    prepared = np.stack([images.resize(photo, 32, "stretch") for photo in photos])
    raw = keras.saving.load_model(bundle / "model.keras").predict(prepared, verbose=0)
    expected = classifier.by_class(raw)
    files = []
    for number, photo in enumerate(photos):
        path = tmp_path / f"{number}.png"
        path.write_bytes(encoded(photo))
        files.append(str(path))
    bytes_ = [encoded(photo) for photo in photos]
    texts = [base64.b64encode(each).decode() for each in bytes_]
    for column, values in {
        "image": bytes_,
        "path": files,
        "pixels": photos,
    }.items():
        found = scorer.probabilities(scorer.read(pd.DataFrame({column: values})))
        np.testing.assert_allclose(found, expected, atol=1e-6)
    for values in (texts, [text.encode() for text in texts], [photo.tolist() for photo in photos]):
        column = "pixels" if isinstance(values[0], list) else "image"
        np.testing.assert_allclose(
            scorer.probabilities(scorer.read(pd.DataFrame({column: values}))), expected, atol=1e-6
        )
    answer = scorer.answers(scorer.read(pd.DataFrame({"pixels": photos})))[3]
    assert answer["label"] == ("cat", "dog")[expected[3].argmax()]
    assert answer["probability"] == pytest.approx(expected[3].max())
    assert answer["probabilities"] == pytest.approx(dict(zip(("cat", "dog"), expected[3], strict=True)))
    assert scorer.answers([]) == []


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("image", b"", "not an image"),
        ("image", b"hello", "not an image"),
        ("image", "!!", "is not base64"),
        ("image", encoded(np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8))[:600], "truncated"),
        ("image", None, "is NoneType, not the bytes of a picture"),
        ("image", 5, "is int, not the bytes of a picture"),
        ("path", "no/such/file.png", "No such file"),
        ("path", 3.0, "is float, not the name of a file"),
        ("pixels", [[1, 2], [3]], "its rows differ in length"),
        ("pixels", np.zeros((4, 4), np.uint8), r"has shape \(4, 4\)"),
        ("pixels", np.zeros((0, 4, 3), np.uint8), "has shape"),
        ("pixels", np.full((2, 2, 3), 256), "other numbers than integers"),
        ("pixels", np.full((2, 2, 3), 0.5), "other numbers than integers"),
        ("pixels", "text", "has shape"),
    ],
    ids=str,
)
def test_what_is_no_picture_is_named_with_its_row(scorer, photos, column, value, reason):
    good = {"image": encoded(photos[0]), "path": None, "pixels": photos[0]}[column]
    rows = [value] if good is None else [good, value]
    with pytest.raises(UnusableInputError, match=f"^row {len(rows) - 1}, {column}: .*{reason}"):
        scorer.read(pd.DataFrame({column: pd.Series(rows, dtype=object)}))


@pytest.mark.parametrize("columns", [[], ["other"], ["image", "path"]], ids=str)
def test_exactly_one_column_is_wanted(scorer, columns):
    with pytest.raises(UnusableInputError, match="give exactly one of image, path, pixels"):
        scorer.read(pd.DataFrame({column: ["x"] for column in columns}))


def test_many_threads_get_their_own_answers(scorer, photos):
    pictures = scorer.read(pd.DataFrame({"pixels": photos}))
    expected = scorer.probabilities(pictures)
    wrong = []

    def ask(start):
        for turn in range(40):
            place = (start + turn) % len(pictures)
            found = scorer.probabilities([pictures[place]])[0]
            if not np.allclose(found, expected[place], atol=1e-6):
                wrong.append(place)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_an_error_in_the_network_reaches_who_asked_and_the_next_is_answered(scorer, photos):
    with pytest.raises(ValueError, match=r"(?i)shape"):
        scorer.probabilities([np.zeros((5, 5), np.uint8)])
    assert len(scorer.probabilities(scorer.read(pd.DataFrame({"pixels": photos[:2]})))) == 2
