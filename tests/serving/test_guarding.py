"""Who is answered: by the headers Host and Origin, and by the number of open requests."""

import asyncio
import json

import pytest

from frostline.serving.guarding import Allowed, Guard

LOCAL = Allowed({"localhost", "pets.example"}, {"pets.example"})


async def answered(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def ask(guard, method="POST", **headers):
    """Status, headers and reason of an answer."""
    sent = []

    async def send(message):
        sent.append(message)

    pairs = [(name.encode(), value.encode()) for name, value in {"host": "localhost:8000", **headers}.items()]
    await guard({"type": "http", "method": method, "headers": pairs}, None, send)
    body = sent[1]["body"]
    return sent[0]["status"], dict(sent[0]["headers"]), json.loads(body)["message"] if body else ""


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:8000", 200),
        ("HTTPS://LOCALHOST:8000", 200),  # a proxy may have the certificate
        ("https://pets.example", 200),
        ("https://pets.example:8443", 200),
        ("http://localhost:3000", 403),
        ("https://evil.example", 403),
        ("https://pets.example.evil.example", 403),
        ("https://pets.example@evil.example", 403),
        ("null", 403),
        ("", 403),
        ("://", 403),
    ],
)
def test_pages_of_other_sites_make_no_requests(origin, status):
    guard = Guard(answered, LOCAL, most=1)
    found, _, reason = asyncio.run(ask(guard, origin=origin))
    assert found == status
    assert ("--allow-host NAME" in reason) == (status == 403)
    assert asyncio.run(ask(guard, "GET", origin=origin))[0] == 200  # a page of another site cannot read the answer


def test_the_page_of_a_server_for_everybody_is_known_by_its_host():
    guard = Guard(answered, Allowed(), most=1)
    assert asyncio.run(ask(guard, host="10.0.0.5", origin="http://10.0.0.5"))[0] == 200
    assert asyncio.run(ask(guard, host="10.0.0.5", origin="http://10.0.0.6"))[0] == 403
    assert asyncio.run(ask(guard))[0] == 200  # a program names no page


def test_more_requests_at_a_time_than_allowed_are_told_to_come_again():
    async def together():
        leave = asyncio.Event()

        async def slow(scope, receive, send):
            await leave.wait()
            await answered(scope, receive, send)

        guard = Guard(slow, LOCAL, most=2)
        first = [asyncio.create_task(ask(guard)) for _ in range(2)]
        await asyncio.sleep(0)
        refused = await ask(guard)
        reading = asyncio.create_task(ask(guard, "GET"))  # a look at the server's health needs no turn
        leave.set()
        answers = await asyncio.gather(*first, reading)
        return refused, [each[0] for each in [*answers, await ask(guard)]]

    (status, headers, reason), others = asyncio.run(together())
    assert (status, headers[b"retry-after"], others) == (429, b"1", [200, 200, 200, 200])
    assert reason == "the server already answers 2 requests, which is its limit; try again later"
