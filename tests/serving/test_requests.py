"""A table of hostile requests over real sockets: each is refused with its reason, and the server continues."""

import hostile_requests
import pytest
import server
from conftest import make_bundle

from frostline.commands import serve
from frostline.serving import inputs
from frostline.serving.bounds import Bounds

pytestmark = pytest.mark.process

CASES = hostile_requests.cases()


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    bundle = make_bundle(tmp_path_factory.mktemp("hostile") / "bundle", ("cat", "dog", "owl"))
    with server.in_thread(bundle, serve.ServerSettings()) as number:
        yield number


def test_the_table_knows_the_limits_of_the_server():
    assert Bounds().body == hostile_requests.LIMIT
    assert inputs.MEGAPIXELS == hostile_requests.MEGAPIXELS
    assert len({case.name for case in CASES}) == len(CASES) > 60
    assert all(400 <= case.status < 500 for case in CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name[:60])
def test_a_hostile_request_is_refused_and_the_next_is_answered(port, case):
    status, answer = hostile_requests.ask(port, case)
    assert status == case.status, answer[:500]
    assert case.reason in answer.decode()
    assert len(answer) < 500
    status, answer = hostile_requests.ask(port, hostile_requests.good())
    assert status == 200, answer[:500]
    assert b'"predictions"' in answer
