"""A study behind Optuna's gRPC proxy: shared by many clients, which outlive its restart and each other."""

import socket
import subprocess
import sys
import time

import browser
import postgres as databases
import pytest
from test_study import SPACE, check_all_done, settings, worker

from frostline.errors import StateError
from frostline.search import proxy, storages
from frostline.search import study as search

pytestmark = pytest.mark.process

# The server as docs/how-to/several-workers.md starts it. Arguments: URL, port.
SERVER = """
import sys
from optuna.storages import get_storage, run_grpc_proxy_server
run_grpc_proxy_server(get_storage(sys.argv[1]), host="127.0.0.1", port=int(sys.argv[2]))
"""


def server(url, port):
    process = subprocess.Popen([sys.executable, "-c", SERVER, url, str(port)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return process
    raise AssertionError("the proxy does not answer")


def test_eight_clients_share_a_database_behind_a_proxy_that_is_restarted(tmp_path):
    with databases.running(tmp_path) as postgres:
        port = browser.free_port()
        before = server(postgres.url, port)
        clients = [worker(tmp_path, f"grpc://127.0.0.1:{port}", 24, patience=30, heartbeat=2) for _ in range(8)]
        clients[0].stdout.readline()  # it is at work
        before.kill()
        before.wait()
        after = server(postgres.url, port)
        outputs = [client.communicate(timeout=120)[0].split() for client in clients]
        assert [client.returncode for client in clients] == [0] * 8
        check_all_done(postgres.url, tmp_path, 24)
        assert sum(map(len, outputs)) >= 2 * 47  # each trial twice, to its pause and to its end; one line was read
        after.kill()
        after.wait()


def test_clients_share_a_file_that_one_process_serves(tmp_path):
    with storages.opened("auto", tmp_path) as opened, proxy.serving(opened, "127.0.0.1", threads=1) as address:
        clients = [worker(tmp_path, f"grpc://{address}", 16) for _ in range(2)]
        outputs = [client.communicate(timeout=120)[0].split() for client in clients]
        assert [client.returncode for client in clients] == [0, 0]
    check_all_done("auto", tmp_path, 16)
    assert all(outputs)


def test_a_silent_client_is_given_up_and_a_named_one_frees_the_trial_of_its_predecessor(tmp_path, monkeypatch):
    monkeypatch.setattr(storages, "HEARTBEAT", 1)
    with storages.opened("auto", tmp_path) as opened, proxy.serving(opened, "127.0.0.1", threads=1) as address:

        def joined(place, worker=None):
            storage = proxy.opened(f"grpc://{address}", 1, 0)
            return search.Study("s", storage, tmp_path / place, SPACE, settings(3), worker)

        silent, near, dead = joined("far"), joined("near"), joined("elsewhere", "a worker")
        first, second = silent.take(None), dead.take(None)
        assert near.reclaim() == []
        again = joined("once more", "a worker")
        assert again.reclaim() == [second.number]
        silent.liveness.current = None  # it sends no more heartbeats
        deadline = time.monotonic() + 30
        freed = []
        while not freed and time.monotonic() < deadline:
            time.sleep(0.5)
            freed = near.reclaim()
        assert freed == [first.number]
        for study in (near, dead, again, silent):
            study.close()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("grpc://127.0.0.1:1", "params.yaml: sweep.storage grpc://127.0.0.1:1 is not reachable; check that the proxy"),
        ("grpc://127.0.0.1", "write grpc://HOST:PORT"),
        ("grpc://:x", "write grpc://HOST:PORT"),
    ],
)
def test_what_is_wrong_with_a_proxy_is_one_line(tmp_path, url, expected):
    with pytest.raises(StateError) as caught, storages.opened(url, tmp_path):
        pass
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_proxy_that_stays_away_is_one_line(tmp_path):
    with storages.opened("auto", tmp_path) as opened:
        with proxy.serving(opened, "127.0.0.1", threads=1) as address:
            client = proxy.opened(f"grpc://{address}", 20, 1.0)
            study = search.Study("s", client, tmp_path / "s", SPACE, settings(2))
        with pytest.raises(StateError, match=rf"grpc://{address} was away for 1 s .*; check that the proxy runs"):
            study.trials()
