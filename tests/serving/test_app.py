"""The web server over HTTP: with plain clients, with a browser, and with hostile clients."""

import base64
import ctypes
import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import browser
import hostile_requests
import numpy as np
import pytest
import server
from conftest import make_bundle
from hostile_requests import photo, split
from PIL import Image
from server import ask

from frostline.commands import serve
from frostline.data.images import NOT_AN_IMAGE
from frostline.errors import StateError, UserError
from frostline.ingest import tables
from frostline.serving import app, guarding, listening
from frostline.serving.bounds import Bounds
from frostline.serving.scoring import Scorer

pytestmark = pytest.mark.process

CLASSES = (
    "cat",
    "Katze & <b>Hund</b>",
    "<script>document.title = 'owned'</script>",
    "<img src=x onerror=\"document.title = 'owned'\">",
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("served") / "bundle", CLASSES)


@pytest.fixture(scope="module")
def port(bundle):
    with server.in_thread(bundle, serve.ServerSettings()) as number:
        yield number


@pytest.fixture(scope="module")
def open_port(bundle):
    """A server that reads paths, and whose time limits are at most two seconds."""
    bounds = Bounds(bodies=2**25, seconds=2.0, health_seconds=1.0)
    with server.in_thread(
        bundle, serve.ServerSettings(allow_paths=True, allow_hosts=("pets.example",)), bounds
    ) as number:
        yield number


@contextmanager
def unfinished(port, head=b"POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"):
    """A connection with the head of a request, whose body of 1 MB does not arrive."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as line:
        line.sendall(head + b"Content-Length: 1000000\r\n\r\n")
        yield line


@contextmanager
def slow_client(port):
    """A client that sends a byte from time to time and never finishes its request."""
    stop = threading.Event()
    with unfinished(port) as line:

        def drip():
            while not stop.wait(0.2):
                try:
                    line.sendall(b"0")
                except OSError:
                    return

        thread = threading.Thread(target=drip)
        thread.start()
        yield line
        stop.set()
        thread.join()


def test_answers_are_the_scorers_whatever_the_form_of_the_request(bundle, open_port, tmp_path):
    scorer = Scorer(bundle)
    images = [photo(seed=seed) for seed in range(5)]
    expected = scorer.predictions([scorer.prepare(each) for each in images])
    texts = [base64.b64encode(each).decode() for each in images]
    paths = []
    for number, each in enumerate(images):
        paths.append(str(tmp_path / f"{number}.png"))
        Path(paths[-1]).write_bytes(each)
    csv = {"Content-Type": "text/csv; charset=UTF-8"}
    for body, headers in (
        (split(*images), None),
        (split(*paths, column="path"), None),
        (
            json.dumps({"dataframe_split": {"columns": ["n", "image"], "index": [1], "data": list(enumerate(texts))}}),
            None,
        ),
        (json.dumps({"dataframe_records": [{"image": text} for text in texts], "params": {}}), None),
        (json.dumps({"inputs": {"image": texts}}), None),
        (json.dumps({"inputs": [{"image": text} for text in texts]}), None),
        (json.dumps({"instances": [{"image": text} for text in texts]}), None),
        (json.dumps({"instances": {"image": [base64.encodebytes(each).decode() for each in images]}}), None),
        (
            json.dumps({"dataframe_records": [{"pixels": np.asarray(Image.open(path)).tolist()} for path in paths]}),
            None,
        ),
        ("\ufeff,image\n" + "".join(f"{n},{text}\n\n" for n, text in enumerate(texts)), csv),
    ):
        status, answer = ask(open_port, body.encode() if isinstance(body, str) else body, headers=headers)
        assert status == 200, answer
        answers = json.loads(answer)["predictions"]
        assert [each["label"] for each in answers] == [each.label for each in expected]
        for one, other in zip(answers, expected, strict=True):
            assert one["probabilities"] == pytest.approx(other.probabilities, abs=1e-6)
            assert one["probability"] == pytest.approx(other.probability, abs=1e-6)
    form = b"".join(
        b'--b0undary\r\nContent-Disposition: form-data; name="file"; filename="%d.png"\r\n\r\n%s\r\n' % (number, each)
        for number, each in enumerate(images)
    )
    for body, kind, count in (
        (form + b"--b0undary--\r\n", "multipart/form-data; boundary=b0undary", 5),
        (images[0], "image/png", 1),
    ):
        status, answer = ask(open_port, body, headers={"Content-Type": kind})
        assert status == 200, answer
        labels = [each["label"] for each in json.loads(answer)["predictions"]]
        assert labels == [each.label for each in expected][:count]
    assert ask(open_port, split()) == (200, b'{"predictions": []}')
    (one,) = json.loads(ask(open_port, json.dumps({"inputs": {"image": texts[0]}}))[1])["predictions"]
    assert one["label"] == expected[0].label


def test_many_clients_at_once_get_their_own_answers(bundle, port):
    scorer = Scorer(bundle)
    images = [photo(seed=seed) for seed in range(12)]
    expected = [each.probabilities for each in scorer.predictions([scorer.prepare(each) for each in images])]

    def probabilities_of(number):
        status, answer = ask(port, split(images[number % 12]))
        assert status == 200
        return json.loads(answer)["predictions"][0]["probabilities"]

    with ThreadPoolExecutor(8) as pool:
        for number, probabilities in enumerate(pool.map(probabilities_of, range(96))):
            assert probabilities == pytest.approx(expected[number % 12], abs=1e-6)


def test_a_refusal_is_one_sentence_in_mlflows_form(port):
    status, answer = ask(port, split(b"hello"))
    expected = {"error_code": "INVALID_PARAMETER_VALUE", "message": f"row 0, image: {NOT_AN_IMAGE}"}
    assert (status, json.loads(answer)) == (400, expected)
    assert ask(port, None, "/version", method="GET")[1] == __import__("mlflow").__version__.encode()
    assert b'frostline_model{bundle="' in ask(port, None, "/metrics", method="GET")[1]
    about = json.loads(ask(port, None, "/about", method="GET")[1])
    assert re.fullmatch("[0-9a-f]{64}", about.pop("bundle"))
    assert about == {
        "model": "models:/pets/3",
        "classes": list(CLASSES),
        "image_size": 32,
        "resize": "stretch",
        "feedback": False,
    }


def test_a_folder_is_shown_by_its_name_only(bundle):
    assert serve.shown_name(bundle, str(bundle)) == "bundle"


def test_only_regular_files_are_read_and_only_if_paths_are_allowed(port, open_port, tmp_path):
    (tmp_path / "a.png").write_bytes(photo())
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to("pipe.png")
    (tmp_path / "folder.png").mkdir()
    body = split(str(tmp_path / "a.png"), column="path")
    assert ask(open_port, body)[0] == 200
    status, answer = ask(port, body)
    assert status == 400
    assert "files of this machine are not read" in json.loads(answer)["message"]
    cases = {
        "pipe.png": "not a regular file",
        "link.png": "not a regular file",
        "folder.png": "not a regular file",
        "none.png": "no such file",
        "a\0b": "not the name of a file",
        "\ud800": "not the name of a file",
        "x" * 5000: "File name too long",
        "/dev/zero": "not a regular file",
    }
    for name, reason in cases.items():
        status, answer = ask(open_port, split(str(tmp_path / name), column="path"))
        assert (status, json.loads(answer)["message"]) == (400, f"row 0, path: {reason}")
    with ThreadPoolExecutor(12) as pool:  # more requests than threads
        pipes = [split(str(tmp_path / "pipe.png"), column="path")] * 40
        assert {status for status, _ in pool.map(lambda body: ask(open_port, body), pipes)} == {400}
    assert ask(open_port, split(photo()))[0] == 200


def test_only_the_names_of_this_machine_are_hosts_unless_others_are_given(port, open_port):
    def status(port, host):
        return hostile_requests.ask(
            port, hostile_requests.Case("", 0, "", split(), headers={**server.JSON, "Host": host})
        )[0]

    for host in ("localhost", "LOCALHOST:1", "127.0.0.1:80", "[::1]:8000", "localhost."):
        assert status(port, host) == 200
    for host in ("pets.example", "127.0.0.1.example", "localhost:80:80", "[::1", "::1", "a b", "localhost@x"):
        assert status(port, host) == 421
    assert status(open_port, "pets.example:8000") == 200
    assert status(open_port, "dogs.example") == 421
    assert serve.ServerSettings(host="0.0.0.0").allowed.hosts is None
    assert serve.ServerSettings(host="0.0.0.0", allow_hosts=("Pets.Example:80",)).allowed.hosts == {"pets.example"}
    assert serve.ServerSettings(host="127.0.0.2").allowed.hosts == {"127.0.0.2", *guarding.LOOPBACK}
    with pytest.raises(UserError, match="--allow-host a b: is not a host name"):
        assert serve.ServerSettings(allow_hosts=("a b",)).allowed
    loopback = {"127.0.0.1": True, "localhost": True, "::1": True, "0.0.0.0": False, "example.org": False}
    assert {host: serve.is_loopback(host) for host in loopback} == loopback


def test_the_bound_on_pixels_is_the_owners(bundle):
    with pytest.raises(UserError, match="--max-megapixels: 0 megapixels; give a number above 0 and up to 178"):
        assert serve.ServerSettings(megapixels=0).limits
    with server.in_thread(bundle, serve.ServerSettings(megapixels=0.01)) as port:
        status, answer = ask(port, split(photo(width=101, height=100)))
        reason = "row 0, image: too many pixels: 101x100, and the limit is 0.01 megapixels"
        assert (status, json.loads(answer)["message"]) == (400, reason)
        assert ask(port, photo(width=101, height=100), "/explain", headers={})[0] == 400
        status, answer = ask(port, split(np.zeros((100, 101, 3), int).tolist(), column="pixels"))
        assert (status, json.loads(answer)["message"]) == (400, reason.replace("image", "pixels"))
        assert ask(port, split(photo(width=100, height=100)))[0] == 200


def test_an_explanation_is_an_image(port):
    status, answer = ask(port, photo(kind="JPEG"), "/explain", headers={})
    assert status == 200
    assert Image.open(io.BytesIO(answer)).size == (32, 32)
    refusal = {"error_code": "INVALID_PARAMETER_VALUE", "message": NOT_AN_IMAGE}
    status, answer = ask(port, b"hello", "/explain", headers={})
    assert (status, json.loads(answer)) == (400, refusal)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # the test ends the thread
def test_health_depends_on_the_network(bundle):
    before = set(threading.enumerate())
    with server.in_thread(bundle, serve.ServerSettings(), Bounds(health_seconds=0.5)) as port:
        paths = ("/ping", "/ready", "/health")
        assert [ask(port, None, path, method="GET") for path in paths] == [(200, b"\n")] * 3
        (scoring,) = [each for each in set(threading.enumerate()) - before if each.name == "frostline-scoring"]
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(scoring.ident), ctypes.py_object(SystemExit))
        status, answer = ask(port, None, "/ping", method="GET")
        assert status == 503
        assert b"the network did not answer within 0.5 seconds" in answer
        assert ask(port, None, "/ready", method="GET")[0] == 503
        assert ask(port, None, "/health", method="GET")[0] == 200  # the process lives


def test_a_body_must_arrive_in_time(open_port):
    with slow_client(open_port) as line:
        started = time.monotonic()
        assert b"408 " in line.recv(1000).splitlines()[0]
        assert time.monotonic() - started < 10
    assert ask(open_port, split(photo()))[0] == 200


def test_a_request_that_takes_too_long_is_stopped_and_frees_its_thread(open_port):
    stream = io.BytesIO()
    Image.new("RGB", (2500, 2500)).save(stream, "PNG")
    slow = split(*[stream.getvalue()] * 500)
    with ThreadPoolExecutor(16) as pool:
        assert {status for status, _ in pool.map(lambda _: ask(open_port, slow), range(16))} <= {503, 504}
    end = time.monotonic() + 30
    while ask(open_port, None, "/ping", method="GET")[0] != 200:  # 503 while all threads work on their last image
        assert time.monotonic() < end
    assert ask(open_port, split(photo()))[0] == 200


def test_the_bodies_in_memory_are_limited(bundle):
    bounds = Bounds(bodies=1_000_000)
    with server.in_thread(bundle, serve.ServerSettings(), bounds) as port:
        body = split(b"\0" * 300_000)  # 400 kB in base64
        for _ in range(50):  # the later one of the two clients is refused, and either can be later
            with unfinished(port) as line:
                line.sendall(b" " * 900_000)
                time.sleep(0.1)
                status, answer = ask(port, body)
            if status == 503:
                break
        assert b"busy with other requests" in answer
        end = time.monotonic() + 30
        while ask(port, body)[0] != 400:  # until the server notices that the first client is gone
            assert time.monotonic() < end


def test_a_client_that_never_ends_its_headers_is_disconnected(port, monkeypatch):
    monkeypatch.setattr(listening, "IDLE", 0.5)
    for head in (b"", b"GET /ping HTTP/1.1\r\nHost: local"):
        with socket.create_connection(("127.0.0.1", port), timeout=30) as line:
            line.sendall(head)
            with suppress(ConnectionResetError):
                assert line.recv(1000) == b""
    assert ask(port, split(photo()))[0] == 200


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, marks=pytest.mark.slow),
    ],
)
def test_a_stopped_server_ends_in_time_and_leaves_nothing(bundle, tmp_path, number):
    scratch, home = tmp_path / "scratch", tmp_path / "home"
    scratch.mkdir()
    home.mkdir()
    with server.as_process(home, str(bundle), TMPDIR=str(scratch)) as (process, port), slow_client(port):
        assert ask(port, split(photo()))[0] == 200
        started = time.monotonic()
        process.send_signal(number)
        output, errors = process.communicate(timeout=30)
        assert time.monotonic() - started < 10
    if number != signal.SIGKILL:
        assert process.returncode == 0
        assert output.splitlines()[-1] == "serve: stopped"
        assert "Traceback" not in errors
    else:  # the next command removes the temporary folder of a killed one
        command = [sys.executable, "-m", "frostline", "backbones"]
        subprocess.run(command, cwd=home, env=os.environ | {"TMPDIR": str(scratch)}, check=True, capture_output=True)
    assert [*scratch.iterdir(), *home.iterdir()] == []


def test_no_request_is_lost_when_the_server_is_told_to_stop(bundle, tmp_path):
    """Clients that keep their connections, and one that comes after the signal, which a proxy may still send here."""
    told, log = threading.Event(), tmp_path / "access.log"
    with server.as_process(tmp_path, str(bundle), "--access-log", str(log)) as (process, port):

        def work(number):
            statuses = []
            while not told.is_set() or not statuses:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
                while not told.is_set():
                    connection.request("POST", "/invocations", split(photo(seed=number)), server.JSON)
                    answer = connection.getresponse()
                    answer.read()
                    statuses.append(answer.status)
                    if answer.headers["Connection"] == "close":
                        break
                connection.close()
            return statuses

        with ThreadPoolExecutor(8) as pool:
            answers = [pool.submit(work, number) for number in range(8)]
            time.sleep(1)
            process.send_signal(signal.SIGTERM)
            time.sleep(0.2)
            assert ask(port, None, "/ready", method="GET")[0] == 503
            assert ask(port, split(photo()))[0] == 200
            told.set()
            statuses = [status for each in answers for status in each.result()]
        process.communicate(timeout=30)
    assert process.returncode == 0
    assert set(statuses) == {200}
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert sum(each["status"] == 200 and each["images"] == 1 for each in lines) == len(statuses) + 1


def test_a_port_in_use_is_an_error_of_one_line(port):
    with pytest.raises(StateError, match=rf"127.0.0.1:{port}: listening is not possible .*--port"):
        serve.run(None, "nowhere", serve.ServerSettings(port=port))


@pytest.mark.skipif(not browser.is_there(), reason=browser.MISSING)
def test_a_person_drops_an_image(bundle, port, tmp_path):
    scorer = Scorer(bundle)
    (tmp_path / "a.png").write_bytes(photo(seed=7))
    (tmp_path / "b.txt").write_bytes(b"hello")
    (answer,) = scorer.predictions([scorer.prepare(photo(seed=7))])
    with browser.Browser(tmp_path) as page:
        page.open(f"http://127.0.0.1:{port}/")
        page.wait("document.getElementById('about').textContent")
        assert "models:/pets/3: 4 classes, images of 32 pixels" in page.text()
        page.choose("#file", tmp_path / "a.png")
        page.wait("document.getElementById('map').naturalWidth")
        assert f"{answer.label} ({answer.probability:.1%})" in page.text()
        for name, share in answer.probabilities.items():  # names that look like HTML and script are text
            assert name in page.text()
            assert f"{share:.1%}" in page.text()
        assert page.script("return document.querySelectorAll('script').length") == 1
        assert page.script("return document.querySelectorAll('img').length") == 2
        assert page.script("return document.title") == "frostline"
        page.screenshot(tmp_path / "page.png")
        assert all(
            "neighbours" in each and "404" in each for each in page.errors()
        )  # it was not trained on images here
        page.script(
            "show({label: 'unknown', unknown: true, set: [], probability: 0.4, probabilities: {cat: 0.4, dog: 0.2}})"
        )
        assert "None of these\n" in page.text()
        assert "Of its classes, cat comes nearest (40.0%)." in page.text()
        page.script(
            "show({label: 'cat', unknown: false, set: ['cat', 'dog'], probability: 0.6, probabilities: {cat: 0.6}})"
        )
        assert "cat (60.0%)\n\nIt may be cat or dog." in page.text()
        # Even if a name was inserted as HTML, the page's policy would not run its script.
        page.script("document.getElementById('bars').innerHTML = arguments[0]", CLASSES[3])
        page.wait("document.querySelectorAll('img').length === 3")
        assert page.wait("true") is True
        assert page.script("return document.title") == "frostline"
        assert any("Content Security Policy" in each for each in page.errors())
        page.choose("#file", tmp_path / "b.txt")
        page.wait("document.getElementById('error').textContent")
        assert "b.txt: not an image" in page.text()
        assert answer.label not in page.text()
        assert "Drop an image here, paste one, or click" in page.text()
        assert "photo" not in page.text()
    assert re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write", app.PAGE.read_text()) is None


@pytest.mark.skipif(not browser.is_there(), reason=browser.MISSING)
def test_a_person_taps_on_a_phone(bundle, port, tmp_path):
    name = f"{'a long name of a photo ' * 5}.png"
    (tmp_path / name).write_bytes(photo(seed=7))
    (tmp_path / "empty.png").touch()
    with browser.Browser(tmp_path, is_phone=True) as page:
        page.open(f"http://127.0.0.1:{port}/")
        page.wait("document.getElementById('about').textContent")
        assert "Choose an image" in page.text()
        assert "Take a photo" in page.text()
        assert re.search("click|drop", page.text(), re.IGNORECASE) is None
        page.choose("#file", tmp_path / name)
        page.wait("document.getElementById('map').naturalWidth")
        page.screenshot(tmp_path / "answer.png")
        edges = "const {left, top, right, bottom} = document.querySelector(arguments[0]).getBoundingClientRect();"
        places = {
            part: page.script(f"{edges} return [left, top, right, bottom]", part)
            for part in ("#label", "#bars", "#image", "#map")
        }
        assert places["#label"][1] < 300  # the answer is seen without scrolling, above the image
        assert places["#label"][3] <= places["#bars"][1] < places["#bars"][3] <= places["#image"][1]
        for left, top, right, bottom in places.values():
            assert 0 <= left < right <= 390
            assert 0 <= top < bottom <= 844
        assert page.script("return document.documentElement.scrollWidth") <= 390
        assert "classifying" not in page.text()
        page.choose("#file", tmp_path / "empty.png")
        page.wait("document.getElementById('error').textContent")
        page.screenshot(tmp_path / "error.png")
        assert page.script("return document.getElementById('error').textContent").startswith("empty.png: ")
        assert page.script(f"{edges} return bottom", "#error") < 844
        assert all("400" in each or "neighbours" in each for each in page.errors())  # the answer to the empty file


@pytest.mark.skipif(not browser.is_there(), reason=browser.MISSING)
def test_a_person_says_by_the_keyboard_what_an_image_is(bundle, tmp_path):
    (tmp_path / "a.png").write_bytes(photo(seed=7))
    focus = "const {id, textContent} = document.activeElement; return id || textContent"
    table = tmp_path / "kept" / "feedback.csv"
    with (
        server.in_thread(bundle, serve.ServerSettings(feedback=table)) as port,
        browser.Browser(tmp_path) as page,
    ):
        page.open(f"http://127.0.0.1:{port}/")
        page.wait("document.getElementById('about').textContent")
        page.press("Tab")
        assert page.script(focus) == "file"
        assert page.script("return getComputedStyle(document.getElementById('drop')).outlineStyle") == "solid"
        page.choose("#file", tmp_path / "a.png")
        page.wait("document.getElementById('map').naturalWidth")
        page.press("Tab")
        assert page.script(focus) == "truth"
        names = page.script("return [...document.getElementById('truth').options].map(each => each.text)")
        assert names == ["choose …", *CLASSES, "none of these"]
        page.press("Down", "Down", "Tab")
        assert page.script(focus) == "Send"
        page.press("Enter")
        page.wait("document.getElementById('thanks').textContent")
        assert "Thank you, the answer is kept." in page.text()
    (row,) = tables.listed(table).rows
    assert row.label == CLASSES[1]
    assert (table.parent / row.path).read_bytes() == photo(seed=7)


def test_what_people_say_is_kept_only_if_it_is_wanted_and_makes_sense(bundle, port, tmp_path):
    status, answer = ask(port, photo(), "/feedback?label=cat", headers={})
    assert (status, json.loads(answer)["message"][:27]) == (404, "this server keeps no answer")
    assert json.loads(ask(port, None, "/about", method="GET")[1])["feedback"] is False
    settings = serve.ServerSettings(feedback=tmp_path / "feedback.csv", max_feedback=1, megapixels=0.01)
    with server.in_thread(bundle, settings) as keeping:
        for image, label, expected, reason in (
            (photo(), "unknown", 200, ""),
            (photo(), "dog", 400, "label=dog: give one of the classes of /about, or unknown"),
            (photo(), "", 400, "give one of the classes"),
            (b"hello", "cat", 400, "not an image"),
            (photo(width=101, height=100), "cat", 400, "too many pixels"),
            (photo(seed=1), "cat", 507, "keeps no more answers"),
        ):
            status, answer = ask(keeping, image, f"/feedback?label={label}", headers={})
            assert status == expected
            assert reason in answer.decode()
        assert json.loads(ask(keeping, None, "/about", method="GET")[1])["feedback"] is True
    assert [row.label for row in tables.listed(tmp_path / "feedback.csv").rows] == ["unknown"]


def test_training_images_are_shown_to_this_machine_only_unless_the_owner_wants_it(port):
    assert serve.ServerSettings().training_images == Path("data/prepared/train")
    assert serve.ServerSettings(host="0.0.0.0").training_images is None
    assert serve.ServerSettings(host="0.0.0.0", neighbours=True).training_images == Path("data/prepared/train")
    end = time.monotonic() + 30
    while (status := ask(port, photo(), "/neighbours", headers={})[0]) == 202:
        assert time.monotonic() < end
    assert status == 404
