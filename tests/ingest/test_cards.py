"""Cards. Kaggle's own client runs against a local server that answers like kaggle.com."""

from __future__ import annotations

import json
import os
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import pytest

from frostline.errors import DataError
from frostline.ingest.sources import open_source


def archive() -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as zip_file:
        for name in ("train/ant/1.png", "train/bee/2.png", "test/ant/3.png"):
            zip_file.writestr(f"insects/{name}", name)
    return buffer.getvalue()


class Kaggle(BaseHTTPRequestHandler):
    """GetDataset and DownloadDataset of kagglesdk's DatasetApiService, for the one data set `someone/insects`."""

    requests: list[str]

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name = self.path.rpartition("/")[2]
        self.requests.append(name)
        if (request["ownerSlug"], request["datasetSlug"]) != ("someone", "insects"):
            self.answer(404, "application/json", json.dumps({"code": 404, "message": "Dataset not found"}).encode())
        elif name == "GetDataset":
            self.answer(200, "application/json", json.dumps({"currentVersionNumber": 3}).encode())
        else:
            self.answer(200, "application/zip", archive())

    def answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def kaggle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names of the requests that the server received."""
    environment = pytest.importorskip("kagglesdk.kaggle_env")
    Kaggle.requests = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Kaggle)
    address = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setitem(environment._env_to_endpoint, environment.KaggleEnv.TEST, address)
    monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "TEST")
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "cache"))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield Kaggle.requests
    server.shutdown()
    server.server_close()
    thread.join()


def synthetic(**changes: int) -> str:
    values = {"fractals": 2, "letters": 2, "images_per_class": 3, "size": 16, "seed": 1, **changes}
    return "".join(f"{key}: {value}\n" for key, value in {"kind": "synthetic", **values}.items())


def card(folder: Path, dataset: str) -> Path:
    path = folder / "insects.yaml"
    path.write_text(f"kind: kaggle\ndataset: {dataset}\n")
    return path


def test_a_kaggle_card_is_fetched_once_and_read_as_a_folder(tmp_path: Path, kaggle: list[str]) -> None:
    for _ in range(2):
        source = open_source(card(tmp_path, "someone/insects"), tmp_path)
        assert [(row.path, row.label, row.split) for row in source.table.itertuples()] == [
            ("insects/test/ant/3.png", "ant", "test"),
            ("insects/train/ant/1.png", "ant", "train"),
            ("insects/train/bee/2.png", "bee", "train"),
        ]
    assert kaggle == ["GetDataset", "DownloadDataset", "GetDataset"]


def test_a_downloaded_version_needs_no_network(tmp_path: Path, kaggle: list[str]) -> None:
    for _ in range(2):
        assert len(open_source(card(tmp_path, "someone/insects/versions/3"), tmp_path).table) == 3
    assert kaggle == ["DownloadDataset"]


def test_an_unknown_data_set_is_reported_in_one_line(tmp_path: Path, kaggle: list[str]) -> None:
    with pytest.raises(DataError) as error:
        open_source(card(tmp_path, "someone/dragons"), tmp_path)
    assert "someone/dragons: can't be fetched from Kaggle (" in str(error.value)
    assert "\n" not in str(error.value)
    assert kaggle


@pytest.mark.parametrize("name", ["insects", "a/b/c", "../x/y", "someone/insects/versions/last"])
def test_an_invalid_name_is_refused_before_any_request(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"insects\.yaml: dataset: "):
        open_source(card(tmp_path, name), tmp_path)


BOMB = "\n".join(
    ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12))]
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"kind: synthetic\n{BOMB}\nfractals: *a11\n", "stands for more than 1,000,000 values"),
        ("kind: &k [*k]\n", "kind is"),
        ("[" * 3000, "is nested too deeply"),
        (synthetic(images_per_class=10**12), "images_per_class: "),
        (synthetic(fractals=10**9), "fractals: "),
        (synthetic(size=10**6), "size: "),
        (synthetic(seed=10**30), "seed: "),
        (synthetic(fractals=10**5, images_per_class=10**6), "must not be more than 10,000,000"),
    ],
    ids=lambda text: text[:20],
)
def test_an_absurd_card_is_refused_at_once(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "card.yaml"
    path.write_text(text)
    with pytest.raises(DataError) as error:
        open_source(path, tmp_path)
    assert str(error.value).startswith(f"{path}: ")
    assert reason in str(error.value)
    assert len(str(error.value)) < 300 + len(str(path))


def test_a_pipe_instead_of_a_card_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "card.yaml")
    with pytest.raises(DataError, match=r"card\.yaml: "):
        open_source(tmp_path / "card.yaml", tmp_path)
