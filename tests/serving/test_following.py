"""A server that follows the champion of a real registry while clients ask."""

import http.client
import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import champions
import pytest
import server
from conftest import make_bundle, make_params
from hostile_requests import photo

from frostline.commands import serve
from frostline.errors import StateError, UnreachableError, UserError
from frostline.serving import app, metrics, served
from frostline.serving.bounds import Bounds
from frostline.serving.following import Follower
from frostline.tracking import model_uris

pytestmark = pytest.mark.process

CLASSES = {1: ("cat", "dog"), 2: ("lion", "wolf", "bear"), 3: ("cat", "dog")}
ALIAS = "models:/pets@champion"


@pytest.fixture(scope="module")
def tracking(tmp_path_factory):
    """The settings of a registry with three versions of pets; the first one is the champion."""
    root = tmp_path_factory.mktemp("followed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_ROOT", str(root))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        settings = make_params(tracking__uri="auto").tracking
        bundles = [make_bundle(root / f"bundle{number}", names, seed=number) for number, names in CLASSES.items()]
        champions.register(settings, "pets", bundles)
        yield settings
    os.environ.pop("MLFLOW_TRACKING_URI", None)


@contextmanager
def following(tracking, look=None):
    """A server of the champion: its port and its follower."""
    champions.crown(tracking, "pets", 1)
    look, settings = look or model_uris.pointer(tracking, ALIAS), serve.ServerSettings()

    def load(name):
        return serve.load(model_uris.bundle_folder(tracking, name), name, settings)

    current = served.Current(load("models:/pets/1"), metrics.Metrics(app.ROUTES))
    with server.of(serve.application(current, settings, Bounds())) as port:
        yield port, Follower(current, look, load, 0.1)


def asked(port, image):
    """The version in the header of an answer, and the classes in its body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/invocations", image, {"Content-Type": "image/png"})
    answer = connection.getresponse()
    (prediction,) = json.loads(answer.read())["predictions"]
    connection.close()
    name, _, bundle = answer.headers[served.HEADER].partition("; bundle=")
    assert len(bundle) == 64
    return int(name.removeprefix("models:/pets/")), tuple(prediction["probabilities"])


def test_each_request_is_answered_wholly_by_one_version_while_the_champion_moves(tracking, capsys):
    done = threading.Event()
    image = photo()
    with following(tracking) as (port, follower), ThreadPoolExecutor(6) as pool:

        def work():
            answers = []
            while not done.is_set():
                answers.append(asked(port, image))
            return answers

        clients = [pool.submit(work) for _ in range(6)]
        try:
            with follower.following():
                champions.crown(tracking, "pets", 2)
                end = time.monotonic() + 60
                while asked(port, image)[0] != 2:
                    assert time.monotonic() < end
        finally:
            done.set()
        answers = [each for client in clients for each in client.result()]
        assert {number for number, _ in answers} == {1, 2}
        assert all(classes == CLASSES[number] for number, classes in answers)
        about = json.loads(server.ask(port, None, "/about", method="GET")[1])
        assert (about["model"], tuple(about["classes"])) == ("models:/pets/2", CLASSES[2])
        numbers = server.ask(port, None, "/metrics", method="GET")[1].decode()
        assert 'model="models:/pets/2"' in numbers
        assert 'frostline_reloads_total{result="done"} 1.0' in numbers
    assert "serve: models:/pets/2 answers from now on" in capsys.readouterr().out


def test_the_old_version_answers_where_the_new_one_is_damaged_or_the_registry_is_away(tracking, capsys):
    model = model_uris.bundle_folder(tracking, "models:/pets/3") / "model.keras"
    whole = model.read_bytes()
    is_away = False

    def look():
        if is_away:
            raise UnreachableError("http://mlflow: tracking is not reachable")
        return model_uris.pointer(tracking, ALIAS)()

    try:
        model.write_bytes(whole[:-100] + bytes(100))
        with following(tracking, look) as (port, follower):
            champions.crown(tracking, "pets", 3)
            follower.once()
            follower.once()
            assert asked(port, photo())[0] == 1
            is_away = True
            follower.once()
            assert asked(port, photo())[0] == 1
            is_away = False
            model.write_bytes(whole)
            follower.once()
            assert asked(port, photo())[0] == 3
            assert b'result="failed"} 3.0' in server.ask(port, None, "/metrics", method="GET")[1]
    finally:
        model.write_bytes(whole)
    first, second = capsys.readouterr().err.splitlines()  # the same reason is said once
    assert first.startswith("warning: models:/pets/1 still answers: ")
    assert "their digest differs" in first
    assert second == "warning: models:/pets/1 still answers: http://mlflow: tracking is not reachable"


def test_only_an_alias_can_be_followed(tracking):
    with pytest.raises(
        UserError, match="--follow: models:/pets/3 has no alias that could move; name models:/NAME@ALIAS"
    ):
        serve.run(None, "models:/pets/3", serve.ServerSettings(follow=True))
    assert model_uris.pointer(None, "models:/pets/3")() == "models:/pets/3"
    with pytest.raises(StateError, match="models:/pets: has no version or alias nobody; take one of 1, 2, 3"):
        model_uris.pointer(tracking, "models:/pets@nobody")()
    with pytest.raises(StateError, match=r"tracking.uri in params.yaml is none"):
        model_uris.pointer(None, ALIAS)
