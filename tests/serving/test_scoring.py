"""Predictions for files, bytes and arrays: alone, by many threads at once, and in MLflow's own server."""

import base64
import contextlib
import gc
import io
import json
import os
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
import server
from conftest import make_bundle
from hostile_requests import photo, png, split
from PIL import Image

from frostline.commands import predict
from frostline.data import images
from frostline.models import assembly
from frostline.serving import inputs, listening, packaging
from frostline.serving.inputs import Limits, UnusableInputError
from frostline.serving.scoring import Scorer, StoppedError

ROUNDING = 5e-6  # between Keras's function and the one with constants for weights


def encode(pixels, kind="PNG"):
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
    return Scorer(bundle, Limits(pixels=10_000, rows=100, paths=True))


def shares(answers):
    """The probabilities in answers, float (n, classes)."""
    return np.array([list(each.probabilities.values()) for each in answers])


def test_all_forms_of_an_image_give_the_prediction_of_the_bundle(bundle, scorer, photos, tmp_path):
    resized_images = np.stack([images.resize(photo, 32, "stretch") for photo in photos])
    raw = keras.saving.load_model(bundle / "model.keras").predict(resized_images, verbose=0)
    expected = assembly.by_class(raw)
    files = []
    for number, pixels in enumerate(photos):
        path = tmp_path / f"{number}.png"
        path.write_bytes(encode(pixels))
        files.append(str(path))
    encoded_images = [encode(photo) for photo in photos]
    texts = [base64.b64encode(each).decode() for each in encoded_images]
    for column, values in {
        "image": encoded_images,
        "path": files,
        "pixels": photos,
    }.items():
        np.testing.assert_allclose(shares(scorer.rows(column, values)), expected, atol=ROUNDING)
    lists = [photo.tolist() for photo in photos]
    nested = [np.array([[np.array(pixel) for pixel in row] for row in photo], object) for photo in photos]
    wide = [photo.astype(np.int64) for photo in photos]
    for values in (texts, [text.encode() for text in texts], lists, nested, wide):
        column = "image" if isinstance(values[0], str | bytes) else "pixels"
        np.testing.assert_allclose(shares(scorer.rows(column, values)), expected, atol=ROUNDING)
    answer = scorer.rows("pixels", photos)[3]
    assert answer.label == ("cat", "dog")[expected[3].argmax()]
    assert answer.probability == pytest.approx(expected[3].max(), abs=ROUNDING)
    assert answer.probabilities == pytest.approx(dict(zip(("cat", "dog"), expected[3], strict=True)), abs=ROUNDING)
    assert scorer.predictions([]) == []


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("image", b"", "not an image"),
        ("image", b"hello", "not an image"),
        ("image", "!!", "is not base64"),
        ("image", encode(np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8))[:600], "truncated"),
        ("image", None, "is NoneType, not the bytes of an image"),
        ("image", 5, "is int, not the bytes of an image"),
        (
            "image",
            encode(np.zeros((101, 100, 3), np.uint8)),
            "too many pixels: 100x101, and the limit is 0.01 megapixels",
        ),
        ("path", "no/such/file.png", "no such file"),
        ("path", "/dev/zero", "not a regular file"),
        ("path", 3.0, "is float, not the name of a file"),
        ("pixels", [[[1, 2, 3]], [[1, 2, 3], [4, 5, 6]]], "its rows differ in length"),
        ("pixels", np.zeros((4, 4), np.uint8), r"has shape \(4, 4\)"),
        ("pixels", np.zeros((0, 4, 3), np.uint8), "has shape"),
        ("pixels", np.full((2, 2, 3), 256), "other numbers than integers"),
        ("pixels", np.full((2, 2, 3), 0.5), "other numbers than integers"),
        ("pixels", "text", "has shape"),
        ("pixels", np.zeros((101, 100, 3), np.uint8), "too many pixels: 100x101, and the limit is 0.01 megapixels"),
        ("pixels", [[[0, 0, 0]] * 101] * 100, "too many pixels: 101x100"),
        ("pixels", np.broadcast_to(np.zeros((), np.uint8), (10**6, 10**6, 3)), "too many"),  # a copy would take 3 TB
    ],
    ids=str,
)
def test_an_input_that_is_not_an_image_is_named_with_its_row(scorer, photos, column, value, reason):
    good = {"image": encode(photos[0]), "path": None, "pixels": photos[0]}[column]
    rows = [value] if good is None else [good, value]
    with pytest.raises(UnusableInputError, match=f"^row {len(rows) - 1}, {column}: .*{reason}"):
        scorer.rows(column, rows)


@pytest.mark.parametrize("columns", [[], ["other", 5], ["image", "path"], ["image", "image"]], ids=str)
def test_a_table_needs_exactly_one_column(columns):
    with pytest.raises(UnusableInputError, match="give exactly one of image, path, pixels"):
        inputs.column_of(pd.DataFrame([["x"] * len(columns)], columns=columns).columns)
    assert inputs.column_of(["other", "pixels", "other"]) == "pixels"


def test_a_table_is_read_within_its_limits(bundle, scorer, photos):
    with pytest.raises(UnusableInputError, match="the request has 101 rows; send at most 100 in one request"):
        scorer.rows("pixels", photos[:1] * 101)
    assert len(scorer.rows("pixels", photos[:1] * 100)) == 100
    with pytest.raises(UnusableInputError, match=r"files of this machine are not read.*FROSTLINE_ALLOW_PATHS=1"):
        Scorer(bundle).rows("path", ["a.png"])
    stop = threading.Event()
    assert len(scorer.rows("pixels", photos, stop)) == len(photos)
    stop.set()
    with pytest.raises(StoppedError):
        scorer.rows("pixels", photos, stop)


def test_a_named_pipe_that_replaces_a_file_does_not_block(scorer, tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "file.png").touch()
    file_stat = (tmp_path / "file.png").stat()
    monkeypatch.setattr(os, "stat", lambda path: file_stat)  # as if it was a file at the time of the check
    with pytest.raises(UnusableInputError, match="not a regular file"):
        scorer.rows("path", [str(tmp_path / "pipe.png")])


def test_many_threads_get_their_own_answers(scorer, photos):
    pixels = [scorer.prepare(encode(photo)) for photo in photos]
    expected = scorer.probabilities(pixels)
    wrong = []

    def ask(start):
        for turn in range(40):
            place = (start + turn) % len(pixels)
            probabilities = scorer.probabilities([pixels[place]])[0]
            if not np.allclose(probabilities, expected[place], atol=1e-6):
                wrong.append(place)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_an_error_in_the_network_is_raised_and_the_next_request_is_answered(scorer, photos):
    with pytest.raises(ValueError, match=r"(?i)shape"):
        scorer.probabilities([np.zeros((5, 5), np.uint8)])
    assert len(scorer.rows("pixels", photos[:2])) == 2


def test_a_scorer_that_nobody_has_any_more_ends_its_thread_and_frees_its_network(bundle):
    def threads():
        return [each for each in threading.enumerate() if each.name == "frostline-scoring"]

    before = len(threads())
    other = Scorer(bundle)
    network = weakref.ref(other.network)
    assert len(threads()) == before + 1
    del other
    end = time.monotonic() + 10
    while len(threads()) > before and time.monotonic() < end:
        time.sleep(0.01)
    gc.collect()
    assert (len(threads()), network()) == (before, None)


def test_cancelled_requests_do_not_end_the_scoring(scorer, photos):
    answers = [scorer.probe() for _ in range(200)]
    assert sum(answer.cancel() for answer in answers) > 100
    assert len(scorer.rows("pixels", photos[:2])) == 2


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The folder of a registered model."""
    place = tmp_path_factory.mktemp("registered")
    packaging.save(make_bundle(place / "bundle", classes=("cat", "dog")), place / "model")
    assert sorted(each.name for each in place.iterdir()) == ["bundle", "model"]  # no other file is left there
    return place / "model"


@contextlib.contextmanager
def stock_server(model, monkeypatch, **environment):
    """The port of MLflow's own scoring server, as `mlflow models serve` starts it."""
    from mlflow.pyfunc import scoring_server

    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    port = server.browser.free_port()
    with listening.listening(scoring_server.init(packaging.load(model)), "127.0.0.1", port):
        yield port


def test_mlflows_own_server_reads_no_file(model, monkeypatch, tmp_path):
    (tmp_path / "a.png").write_bytes(photo())
    with stock_server(model, monkeypatch) as port:
        messages = []
        for path in (tmp_path / "a.png", tmp_path / "none.png", "/etc/passwd"):
            status, answer = server.ask(port, split(str(path), column="path"))
            assert status == 400
            messages.append(json.loads(answer)["message"].split("Error: ")[-1])
        assert messages == [inputs.PATHS_REFUSED] * 3
        assert server.ask(port, split(photo()))[0] == 200
        status, answer = server.ask(port, split(b"hello"))
        assert (status, json.loads(answer)["message"].split("Error: ")[-1]) == (
            400,
            f"row 0, image: {images.NOT_AN_IMAGE}",
        )
        status, answer = server.ask(port, split(png(8000, 6300)))
        assert status == 400
        assert "too many pixels: 8000x6300, and the limit is 50 megapixels" in json.loads(answer)["message"]


def test_named_pipes_do_not_stop_mlflows_own_server(model, monkeypatch, tmp_path):
    (tmp_path / "a.png").write_bytes(photo())
    os.mkfifo(tmp_path / "pipe.png")
    limits = {inputs.ALLOW_PATHS: "1", inputs.MAX_MEGAPIXELS: "0.01"}
    with stock_server(model, monkeypatch, **limits) as port:
        pipe = split(str(tmp_path / "pipe.png"), column="path")
        with ThreadPoolExecutor(40) as pool:  # more than MLflow's server has threads
            for status, answer in pool.map(lambda _: server.ask(port, pipe), range(40)):
                assert status == 400
                assert b"row 0, path: not a regular file" in answer
        assert server.ask(port, split(str(tmp_path / "a.png"), column="path"))[0] == 200
        status, answer = server.ask(port, split(photo(width=101, height=100)))
        assert status == 400
        assert b"too many pixels: 101x100, and the limit is 0.01 megapixels" in answer


@pytest.mark.parametrize("value", ["ten", "0", "-1", "nan", "inf", "179"])
def test_an_invalid_limit_is_named(monkeypatch, value):
    monkeypatch.setenv(inputs.MAX_MEGAPIXELS, value)
    with pytest.raises(ValueError, match=f"FROSTLINE_MAX_MEGAPIXELS is '{value}'; give a number above 0 and up to 178"):
        inputs.environment_limits()
    monkeypatch.setenv(inputs.MAX_MEGAPIXELS, "")
    monkeypatch.setenv(inputs.ALLOW_PATHS, "0")
    assert inputs.environment_limits() == Limits(50_000_000, None, False)


def test_names_cannot_control_the_terminal(tmp_path, monkeypatch, capsys):
    red_text, bidi = "\x1b[31mred\x1b[0m\x07", "safe\u202egnp"
    make_bundle(tmp_path / "bundle", classes=(red_text, bidi))
    (tmp_path / "\x1b]0;title\x07.png").write_bytes(photo())
    (tmp_path / "\x9b2J.png").write_bytes(b"hello")
    monkeypatch.chdir(tmp_path)
    out = io.StringIO()
    with pytest.raises(predict.DataError, match="1 of 2 images"):
        predict.run(None, [str(each) for each in sorted(Path().glob("*.png"))], "bundle", "table", out)
    assert all(line.isprintable() for line in [*out.getvalue().splitlines(), *capsys.readouterr().err.splitlines()])
    label, _, path = out.getvalue().split()
    assert label in {r"\x1b[31mred\x1b[0m\x07", r"safe\u202egnp"}
    assert path == r"\x1b]0;title\x07.png"
