"""The web server for real: over HTTP, with a browser, and with all that is no picture."""

import base64
import http.client
import io
import json
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import browser
import numpy as np
import pytest
from conftest import make_bundle
from PIL import Image

from frostline import packaging, scoring, serving
from frostline.errors import StateError
from frostline.scoring import Scorer
from frostline.stages import serve

CLASSES = ("cat", "dog", "Katze & <b>Hund</b>")


def photo(seed=0, kind="PNG"):
    pixels = np.random.default_rng(seed).integers(0, 256, (60, 50, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("served") / "bundle", CLASSES)


@pytest.fixture(scope="module")
def port(bundle):
    """A server in a thread of this process."""
    import uvicorn

    model = bundle.with_name("model")
    packaging.save(bundle, model)
    explain = serve.explainer(bundle, Scorer(bundle))
    application = serving.application(packaging.load(model), serve.about(bundle, "pets"), explain)
    chosen = browser.free_port()
    server = uvicorn.Server(uvicorn.Config(application, host="127.0.0.1", port=chosen, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
    yield chosen
    server.should_exit = True
    thread.join()


def ask(port, body, path="/invocations", headers=None, method="POST"):
    """Status and body of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"} if headers is None else headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def split(*pictures, column="image"):
    texts = [base64.b64encode(each).decode() if isinstance(each, bytes) else each for each in pictures]
    return json.dumps({"dataframe_split": {"columns": [column], "data": [[text] for text in texts]}})


def test_answers_are_the_scorers_whatever_the_form_of_the_request(bundle, port, tmp_path):
    scorer = Scorer(bundle)
    pictures = [photo(seed) for seed in range(5)]
    expected = scorer.answers([scorer.picture(each) for each in pictures])
    texts = [base64.b64encode(each).decode() for each in pictures]
    paths = []
    for number, each in enumerate(pictures):
        paths.append(str(tmp_path / f"{number}.png"))
        Path(paths[-1]).write_bytes(each)
    for body in (
        split(*pictures),
        split(*paths, column="path"),
        json.dumps({"dataframe_records": [{"image": text} for text in texts]}),
        json.dumps({"inputs": {"image": texts}}),
        json.dumps({"inputs": [{"image": text} for text in texts]}),
        json.dumps({"instances": [{"image": text} for text in texts]}),
        json.dumps({"dataframe_records": [{"pixels": np.asarray(Image.open(path)).tolist()} for path in paths]}),
    ):
        status, answer = ask(port, body)
        assert status == 200, answer
        found = json.loads(answer)["predictions"]
        assert [each["label"] for each in found] == [each["label"] for each in expected]
        for one, other in zip(found, expected, strict=True):
            assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-6)
            assert one["probability"] == pytest.approx(other["probability"], abs=1e-6)


HEADER = b"IHDR" + struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)  # width, height
BIG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\r" + HEADER + struct.pack(">I", zlib.crc32(HEADER)) + b"\x00\x00\x10\x00IDAT"


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        ("", 400, "valid JSON"),
        ("{", 400, "valid JSON"),
        ("[]", 400, "JSON dictionary"),
        (b"\xff\xfe", 400, "valid JSON"),
        ("{}", 400, "input fields"),
        (json.dumps({"inputs": 5}), 400, "give exactly one of image, path, pixels"),
        (split(column="image"), 200, ""),
        (split("x", column="other"), 400, "give exactly one of image, path, pixels"),
        (split("!!"), 400, "row 0, image"),
        (split(photo(), b"hello"), 400, "row 1, image: not an image"),
        (split(photo()[:900]), 400, "row 0, image: image file is truncated"),
        (split(b""), 400, "row 0, image: not an image"),
        (split(BIG), 400, "row 0, image: too many pixels"),
        (split("/no/such/file", column="path"), 400, "row 0, path: No such file"),
        (json.dumps({"dataframe_records": [{"pixels": [[1]]}]}), 400, "row 0, pixels: has shape"),
        (b"0" * (serving.LIMIT + 1), 413, "more than 32 MB"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_no_picture_is_refused_with_its_reason(port, body, status, reason):
    found, answer = ask(port, body)
    assert found == status, answer[:500]
    assert reason in answer.decode()
    assert ask(port, split(photo()))[0] == 200


def test_requests_that_servers_trip_over_are_refused(port):
    assert ask(port, "{}", headers={}) == (
        415,
        b'{"error_code": "BAD_REQUEST", "message": "the header Content-Type is missing; send application/json"}',
    )
    assert ask(port, "{}", headers={"Content-Type": "image/png"})[0] == 415

    def endless():
        while True:
            yield b"0" * 2**20

    try:
        status, _ = ask(port, endless())  # without a length
        assert status == 413
    except (BrokenPipeError, ConnectionResetError):
        pass  # the server hung up while we were still sending
    assert ask(port, split(photo()))[0] == 200
    assert ask(port, None, "/ping", method="GET")[0] == 200


def test_many_clients_at_once_get_their_own_answers(bundle, port):
    scorer = Scorer(bundle)
    pictures = [photo(seed) for seed in range(12)]
    expected = [each["probabilities"] for each in scorer.answers([scorer.picture(each) for each in pictures])]

    def one(number):
        status, answer = ask(port, split(pictures[number % 12]))
        assert status == 200
        return json.loads(answer)["predictions"][0]["probabilities"]

    with ThreadPoolExecutor(8) as pool:
        for number, found in enumerate(pool.map(one, range(96))):
            assert found == pytest.approx(expected[number % 12], abs=1e-6)


def test_paths_are_not_read_for_other_machines(port, monkeypatch, tmp_path):
    (tmp_path / "a.png").write_bytes(photo())
    assert ask(port, split(str(tmp_path / "a.png"), column="path"))[0] == 200
    monkeypatch.setenv(scoring.NO_PATHS, "1")
    status, answer = ask(port, split(str(tmp_path / "a.png"), column="path"))
    assert status == 400
    assert b"reads no files of its own" in answer
    assert [serve.is_loopback(host) for host in ("127.0.0.1", "localhost", "::1", "0.0.0.0", "example.org")] == [
        True,
        True,
        True,
        False,
        False,
    ]


def test_an_explanation_is_a_picture(port):
    status, answer = ask(port, photo(kind="JPEG"), "/explain", headers={})
    assert status == 200
    assert Image.open(io.BytesIO(answer)).size == (32, 32)
    assert ask(port, b"hello", "/explain", headers={}) == (
        400,
        b'{"error_code":"INVALID_PARAMETER_VALUE","message":"not an image"}',
    )


def test_a_taken_port_is_one_line(port):
    with pytest.raises(StateError, match=rf"127.0.0.1:{port}: can't be listened on .*--port"):
        serve.run(None, "nowhere", "127.0.0.1", port)


@pytest.mark.skipif(not browser.is_there(), reason=browser.MISSING)
def test_a_person_drops_a_picture(bundle, port, tmp_path):
    scorer = Scorer(bundle)
    (tmp_path / "a.png").write_bytes(photo(7))
    (tmp_path / "b.txt").write_bytes(b"hello")
    (answer,) = scorer.answers([scorer.picture(photo(7))])
    with browser.Browser(tmp_path) as seen:
        seen.open(f"http://127.0.0.1:{port}/")
        seen.wait("document.getElementById('about').textContent")
        assert "pets: 3 classes, pictures of 32 pixels" in seen.text()
        seen.choose("#file", tmp_path / "a.png")
        seen.wait("document.getElementById('map').naturalWidth")
        assert f"{answer['label']} ({answer['probability']:.4f})" in seen.text()
        for name, share in answer["probabilities"].items():  # one of the names looks like HTML
            assert name in seen.text()
            assert f"{share:.4f}" in seen.text()
        seen.screenshot(tmp_path / "page.png")
        assert seen.errors() == []
        seen.choose("#file", tmp_path / "b.txt")
        seen.wait("document.getElementById('error').textContent")
        assert "row 0, image: not an image" in seen.text()
        assert answer["label"] not in seen.text()
