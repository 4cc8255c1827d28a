"""What the metrics and the access log say of requests, and what they leave out."""

import asyncio
import json
import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from frostline.errors import UserError
from frostline.serving import metrics
from frostline.serving.guarding import refusal
from frostline.serving.metrics import Metrics
from frostline.serving.recording import PREDICTIONS, AccessLog, Recorder
from frostline.serving.scoring import Prediction


def requested(observers, path, status=200, predictions=(), reason="no"):
    """Send a request of 5 bytes through a recorder."""

    async def application(scope, receive, send):
        await receive()
        scope["state"][PREDICTIONS] = predictions
        await refusal(status, reason)(scope, receive, send)

    async def receive():
        return {"type": "http.request", "body": b"secret"}

    async def send(message):
        pass

    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"key=secret", "state": {}}
    asyncio.run(Recorder(application, observers)(scope, receive, send))


def numbers(counted):
    """All samples, by name and labels."""
    text, kind = counted.text("")
    assert kind.startswith("text/plain")
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_the_log_has_a_line_of_json_for_each_request_and_no_content(tmp_path):
    log = AccessLog(str(tmp_path / "access.log"))
    cat, dog = Prediction("cat", 0.9, {}), Prediction("dog", 0.8, {})
    requested([log], "/invocations", predictions=[cat, dog, cat])
    requested([log], "/nowhere\n" + "x" * 200, 404, reason="there is no such address")
    requested([log], "/invocations", 415)
    text = (tmp_path / "access.log").read_text()
    first, second, third = map(json.loads, text.splitlines())
    assert "secret" not in text
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first["time"])
    assert 0 <= first["seconds"] < 5
    assert list(first) == ["time", "address", "method", "status", "bytes", "seconds", "images", "labels"]
    assert [first[key] for key in ("address", "method", "status", "bytes", "images")] == [
        "/invocations",
        "POST",
        200,
        6,
        3,
    ]
    assert first["labels"] == {"cat": 2, "dog": 1}
    assert (second["status"], second["reason"], len(second["address"])) == (404, "there is no such address", 100)
    assert (third["images"], "labels" in third) == (0, False)
    with pytest.raises(UserError, match=r"--access-log .*no/such.*: No such file"):
        AccessLog(str(tmp_path / "no/such"))


def test_requests_are_counted_by_the_addresses_that_there_are():
    counted = Metrics(["/invocations"])
    for path, status in (("/invocations", 200), ("/invocations", 200), ("/invocations", 429), ("/a", 404), ("/b", 404)):
        requested([counted], path, status)
    found = numbers(counted)
    assert found["frostline_requests_total", "/invocations", "200"] == 2
    assert found["frostline_requests_total", "/invocations", "429"] == 1
    assert found["frostline_requests_total", metrics.ELSEWHERE, "404"] == 2
    assert found["frostline_request_seconds_count", "/invocations"] == 3
    assert not any("/a" in key for key in found)


def test_labels_are_counted_from_zero_and_thousands_of_classes_share_a_counter():
    counted = Metrics([])
    names = [f"class {number}" for number in range(1000)]
    counted.model("models:/pets/3", "d1g", names)
    requested([counted], "/", predictions=[Prediction(name, 1.0, {}) for name in (*names, names[0])])
    found = numbers(counted)
    assert found["frostline_labels_total", names[0]] == 2
    assert found["frostline_labels_total", metrics.OTHERS] == 1000 - metrics.MOST_LABELS
    assert len([key for key in found if key[0] == "frostline_labels_total"]) == metrics.MOST_LABELS + 1
    assert found["frostline_images_total",] == 1001
    assert found["frostline_unknown_total",] == 0
    requested([counted], "/", predictions=[Prediction("unknown", 0.3, {}, [], True)] * 2)
    found = numbers(counted)
    assert found["frostline_unknown_total",] == 2
    assert ("frostline_labels_total", "unknown") not in found
    counted.model("models:/pets/4", "d2g", names[:2])
    found = numbers(counted)
    assert [key[1:] for key in found if key[0] == "frostline_model"] == [("d2g", "models:/pets/4")]


def test_batches_and_the_queue_are_those_of_the_network():
    counted = Metrics([])
    counted.queue(lambda: 7)
    for size in (1, 5, 32):
        counted.batch(size)
    counted.reload("failed")
    found = numbers(counted)
    assert found["frostline_queue_images",] == 7
    assert found["frostline_batch_images_sum",] == 38
    assert found["frostline_batch_images_bucket", "8.0"] == 2
    assert found["frostline_reloads_total", "failed"] == 1
