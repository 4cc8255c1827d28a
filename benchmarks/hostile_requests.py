"""Requests that no well-meant client sends, with the answer that each must get; sent byte by byte, over real sockets.

Every status is below 500, and after each of them the server must answer a good request.
"""

from __future__ import annotations

import base64
import errno
import io
import json
import socket
import struct
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

LIMIT = 32 * 2**20  # bytes of a body, as `frostline serve` has it
MEGAPIXELS = 50.0  # as `frostline serve` has it

JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Case:
    """A request, and what it must be answered.

    body: the bytes, or how they are made, which are sent with their length; pieces: sent instead, as they are, after
    the headers; raw: all that is sent, headers included. reason: what the answer's body must contain.
    """

    name: str
    status: int
    reason: str
    body: bytes | Callable[[], bytes] = b""
    method: str = "POST"
    path: str = "/invocations"
    headers: dict[str, str] = field(default_factory=lambda: JSON)
    pieces: Callable[[], Iterable[bytes]] | None = None
    raw: bytes | None = None

    def sent(self, host: str) -> Iterable[bytes]:
        """What goes over the line. host: the header Host, where the case has none of its own."""
        if self.raw is not None:
            yield self.raw
            return
        body = self.body if isinstance(self.body, bytes) else self.body()
        headers = {"Host": host, "Connection": "close", **self.headers}
        if self.pieces is None and self.method not in ("GET", "HEAD"):
            headers.setdefault("Content-Length", str(len(body)))
        lines = [f"{self.method} {self.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        yield "\r\n".join([*lines, "", ""]).encode("latin-1")
        yield from [body] if self.pieces is None else self.pieces()


def ask(port: int, case: Case, seconds: float = 60) -> tuple[int, bytes]:
    """Status and body of the answer; status 0 where there was none."""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as line:
        try:
            for part in case.sent(f"127.0.0.1:{port}"):
                line.sendall(part)
            if case.raw is not None:
                line.shutdown(socket.SHUT_WR)
        except OSError as error:  # it was refused before all was sent; the answer is there
            if error.errno not in (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN):
                raise
        return _answer(line)


def _answer(line: socket.socket) -> tuple[int, bytes]:
    got = bytearray()
    try:
        while part := line.recv(2**16):
            got += part
            head, found, body = bytes(got).partition(b"\r\n\r\n")
            if found and (length := _length(head)) is not None and len(body) >= length:
                break
    except ConnectionResetError:
        pass
    head, _, body = bytes(got).partition(b"\r\n\r\n")
    return (int(head.split()[1]), body) if head.startswith(b"HTTP/") else (0, bytes(got))


def _length(head: bytes) -> int | None:
    for each in head.lower().split(b"\r\n"):
        if each.startswith(b"content-length:"):
            return int(each.partition(b":")[2])
    return None


def photo(kind: str = "PNG", seed: int = 0, width: int = 50, height: int = 60) -> bytes:
    """A small image of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def png(width: int, height: int) -> bytes:
    """A PNG that says it has that size, and has no pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def split(*cells: Any, column: str = "image") -> bytes:
    """A table of one column, bytes in base64."""
    texts = [base64.b64encode(each).decode() if isinstance(each, bytes) else each for each in cells]
    return json.dumps({"dataframe_split": {"columns": [column], "data": [[text] for text in texts]}}).encode()


def good(seed: int = 0) -> Case:
    """A request that must be answered 200, so that one sees that the server lives."""
    return Case("good", 200, '"predictions"', split(photo(seed=seed)))


def cases() -> list[Case]:
    """All of them."""
    return [*_bodies(), *_tables(), *_images(), *_pixels(), *_http(), *_large()]


def _bodies() -> list[Case]:
    """What is no JSON of a known form."""
    invalid, form = "not valid JSON", "exactly one of dataframe_split, dataframe_records, inputs, instances"
    return [
        Case("empty body", 400, invalid),
        Case("half of JSON", 400, invalid, b'{"dataframe_split": '),
        Case("two documents", 400, invalid, b"{}{}"),
        Case("not UTF-8", 400, invalid, b'{"inputs": "\xff\xfe"}'),
        Case("UTF-16", 400, invalid, json.dumps({"inputs": 1}).encode("utf-16")),
        Case("null bytes", 400, invalid, bytes(1000)),
        Case("bare NaN", 400, "NaN is no number of JSON", b'{"dataframe_records": [{"image": NaN}]}'),
        Case("bare Infinity", 400, "Infinity is no number", b'{"inputs": {"image": [-Infinity]}}'),
        Case("a number of 10,000 digits", 400, invalid, b'{"inputs": {"image": [' + b"9" * 10_000 + b"]}}"),
        Case("a number beyond floats", 400, "is float", b'{"inputs": {"image": [1e999]}}'),
        Case("nested 100,000 deep", 400, "nested too deeply", b"[" * 100_000 + b"]" * 100_000),
        Case("objects nested 50,000 deep", 400, "nested too deeply", b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
        Case("a list", 400, form, b"[]"),
        Case("a text", 400, form, b'"dataframe_split"'),
        Case("null", 400, form, b"null"),
        Case("an empty object", 400, form, b"{}"),
        Case("two forms", 400, form, b'{"inputs": {"image": []}, "dataframe_records": []}'),
        Case("an unknown form", 400, form, b'{"messages": [{"role": "user"}]}'),
    ]


def _tables() -> list[Case]:
    """Known forms with other contents."""
    columns, shape = "give exactly one of image, path, pixels", "dataframe_split must be"
    of = json.dumps
    text = base64.b64encode(photo()).decode()
    return [
        Case("split is a list", 400, shape, b'{"dataframe_split": []}'),
        Case("split without data", 400, shape, b'{"dataframe_split": {"columns": ["image"]}}'),
        Case("split without columns", 400, shape, b'{"dataframe_split": {"data": [["x"]]}}'),
        Case("columns are numbers", 400, shape, b'{"dataframe_split": {"columns": [1], "data": [["x"]]}}'),
        Case("columns are lists", 400, shape, b'{"dataframe_split": {"columns": [["image"]], "data": [["x"]]}}'),
        Case("no columns", 400, columns, b'{"dataframe_split": {"columns": [], "data": []}}'),
        Case("another column", 400, columns, split("x", column="photo")),
        Case(
            "one column twice",
            400,
            columns,
            of({"dataframe_split": {"columns": ["image", "image"], "data": [[text, text]]}}).encode(),
        ),
        Case("two columns", 400, columns, of({"inputs": {"image": [text], "pixels": [[[[0, 0, 0]]]]}}).encode()),
        Case("a long row", 400, "row 0", b'{"dataframe_split": {"columns": ["image"], "data": [["a", "b"]]}}'),
        Case("a row that is none", 400, "row 1", b'{"dataframe_split": {"columns": ["image"], "data": [["a"], 5]}}'),
        Case("records are numbers", 400, "records must be", b'{"dataframe_records": [1, 2]}'),
        Case("no records", 400, columns, b'{"dataframe_records": []}'),
        Case("a record without the cell", 400, "row 1, image", of({"instances": [{"image": text}, {}]}).encode()),
        Case("inputs are a number", 400, columns, b'{"inputs": 5}'),
        Case("instances are texts", 400, columns, b'{"instances": ["a", "b"]}'),
        Case("half a character for a column", 400, columns, b'{"inputs": {"\\ud800": [1]}}'),
        Case("a column of 100,000 letters", 400, columns, of({"inputs": {"x" * 100_000: [1]}}).encode()),
        Case("10,000 columns", 400, columns, of({"inputs": {f"c{n}": [1] for n in range(10_000)}}).encode()),
        Case("100,000 rows", 400, "100,000 rows; send at most 1,000", lambda: split(*["AAAA"] * 100_000)),
        Case(
            "1,000 columns of records",
            400,
            columns,
            lambda: of({"instances": [{str(n): 1} for n in range(1000)]}).encode(),
        ),
        Case("CSV of nothing", 400, columns, headers={"Content-Type": "text/csv"}),
        Case("CSV with an open quote", 400, "valid CSV", b'image\n"abc', headers={"Content-Type": "text/csv"}),
        Case("CSV that is not UTF-8", 400, "valid CSV", b"image\n\xff\xfe\n", headers={"Content-Type": "text/csv"}),
        Case("CSV with a long row", 400, "row 0 has 2 cells", b"image\na,b\n", headers={"Content-Type": "text/csv"}),
        Case(
            "CSV of 100,000 rows",
            400,
            "rows; send at most 1,000",
            lambda: b"image\n" + b"AAAA\n" * 100_000,
            headers={"Content-Type": "text/csv"},
        ),
    ]


def _images() -> list[Case]:
    """Cells of `image` and `path` that are no image."""
    half = [
        Case(f"half of a {kind}", 400, "row 0, image: ", split(whole[: len(whole) // 2]))
        for kind in ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000", "TGA", "ICO")
        if (whole := photo(kind))
    ]
    pixels = f"the limit is {MEGAPIXELS:g} megapixels"
    return [
        *half,
        Case("a good and a bad one", 400, "row 1, image: not an image", split(photo(), b"hello")),
        Case("no base64", 400, "row 0, image: is not base64", split("!!")),
        Case("base64 with its end missing", 400, "row 0, image: is not base64", split("QUJDR")),
        Case("base64 of nothing", 400, "row 0, image: not an image", split("")),
        Case("letters beyond ASCII", 400, "row 0, image: is not base64", split("\u00fc\U0001f98b\ud800")),
        Case("a number for an image", 400, "row 0, image: is int", split(5)),
        Case("null for an image", 400, "row 0, image: is NoneType", split(None)),
        Case("a list for an image", 400, "row 0, image: is list", split([1, 2, 3])),
        Case("a page for an image", 400, "row 0, image: not an image", split(b"<html><script>alert(1)</script>")),
        Case("50,000 x 50,000 pixels", 400, "pixels", split(png(50_000, 50_000))),
        Case("51 megapixels", 400, f"too many pixels: 8500x6000, and {pixels}", split(png(8500, 6000))),
        Case("a file here", 400, "files of this machine are not read", split("/etc/passwd", column="path")),
        Case("a device here", 400, "files of this machine are not read", split("/dev/zero", column="path")),
        Case("an explanation of nothing", 400, "not an image", path="/explain"),
        Case("an explanation of a page", 400, "not an image", b"<html>", path="/explain", headers={}),
        Case("an explanation of half a JPEG", 400, "truncated", photo("JPEG")[:1500], path="/explain", headers={}),
        Case("neighbours of a page", 400, "not an image", b"<html>", path="/neighbours", headers={}),
        Case("an answer nobody asked for", 404, "keeps no answers", photo(), path="/feedback?label=cat", headers={}),
        Case("an explanation of 51 megapixels", 400, pixels, png(8500, 6000), path="/explain", headers={}),
    ]


def _pixels() -> list[Case]:
    """Cells of `pixels` that are no image."""

    def of(name: str, reason: str, value: Any) -> Case:
        return Case(f"pixels: {name}", 400, f"row 0, pixels: {reason}", lambda: split(value, column="pixels"))

    numbers = "holds other numbers than integers from 0 to 255"
    return [
        of("a number", "has shape ()", 7),
        of("a text", "has shape ()", "abc"),
        of("null", "has shape ()", None),
        of("an object", "has shape ()", {"0": [1, 2, 3]}),
        of("no rows", "has shape (0,)", []),
        of("two dimensions", "has shape (1, 2)", [[1, 2]]),
        of("four dimensions", "has shape (1, 1, 3, 1)", [[[[1], [2], [3]]]]),
        of("four channels", "has shape (1, 1, 4)", [[[1, 2, 3, 4]]]),
        of("no columns", "has shape (2, 0)", [[], []]),
        of("rows of two lengths", "is no array", [[[1, 2, 3]], [[1, 2, 3], [1, 2, 3]]]),
        of("a row that is a number", "is no array", [[[1, 2, 3]], 5]),
        of("a pixel of two numbers", "is no array", [[[1, 2, 3], [1, 2]]]),
        of("negative", numbers, [[[1, 2, -1]]]),
        of("256", numbers, [[[1, 2, 256]]]),
        of("a number of 300 digits", numbers, [[[1, 2, 10**300]]]),
        of("halves", numbers, [[[0.5, 0.5, 0.5]]]),
        of("texts", numbers, [[["1", "2", "3"]]]),
        of("one text of a megabyte", numbers, [[["x" * 10**6, 0, 0], *[[0, 0, 0]] * 10_000]]),
        of("objects for numbers", numbers, [[[{}, 0, 0]]]),
        of("one million rows of nothing", "has shape (1000000, 0)", [[]] * 10**6),
    ]


def _http() -> list[Case]:
    """Other addresses, methods, headers, and what is no HTTP."""
    here = "Host must be one of"
    traversal = (
        "/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/about/..%2f..%2fparams.yaml",
        "//evil.example/",
        "/ping/",
    )
    return [
        *(Case(f"GET {path}", 404, "not found", method="GET", path=path) for path in traversal),
        *(
            Case(f"GET {path}", 404, "not found", method="GET", path=path)
            for path in ("/docs", "/redoc", "/openapi.json")
        ),
        Case("GET /invocations", 405, "method not allowed", method="GET"),
        Case("DELETE /invocations", 405, "method not allowed", method="DELETE"),
        Case("POST /ping", 405, "method not allowed", path="/ping"),
        Case("POST /", 405, "method not allowed", path="/"),
        Case("a method of no one's", 405, "method not allowed", method="FROBNICATE"),
        Case("no content type", 415, "Content-Type is missing; send application/json", b"{}", headers={}),
        Case(
            "a form",
            415,
            "send application/json",
            b"a=1",
            headers={"Content-Type": "application/x-www-form-urlencoded"},
        ),
        Case("plain text", 415, "send application/json", split(photo()), headers={"Content-Type": "text/plain"}),
        Case(
            "Parquet", 415, "send application/json", b"PAR1", headers={"Content-Type": "application/vnd.apache.parquet"}
        ),
        Case("another charset", 415, "in UTF-8", b"{}", headers={"Content-Type": "application/json; charset=utf-7"}),
        Case("a long content type", 415, "send application/json", b"{}", headers={"Content-Type": "a" * 5000}),
        Case("a host that is not ours", 421, here, split(photo()), headers={**JSON, "Host": "evil.example"}),
        Case(
            "a host that begins as ours", 421, here, method="GET", path="/", headers={"Host": "localhost.evil.example"}
        ),
        Case("a host with a user", 421, here, method="GET", path="/", headers={"Host": "localhost:80@evil.example"}),
        Case("an empty host", 421, here, method="GET", path="/ping", headers={"Host": ""}),
        Case("a broken host", 421, here, method="GET", path="/nowhere", headers={"Host": "[::1"}),
        Case("HTTP/1.0 without a host", 421, here, raw=b"GET /ping HTTP/1.0\r\n\r\n"),
        Case(
            "a page of another site",
            403,
            "--allow-host",
            split(photo()),
            headers={**JSON, "Origin": "http://evil.example"},
        ),
        Case("a page that hides its site", 403, "--allow-host", split(photo()), headers={**JSON, "Origin": "null"}),
        Case("two hosts", 400, "Invalid HTTP", raw=b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n"),
        Case("no host", 400, "Invalid HTTP", raw=b"GET / HTTP/1.1\r\n\r\n"),
        Case("no HTTP", 400, "Invalid HTTP", raw=b"hello\r\n\r\n"),
        Case("TLS", 400, "Invalid HTTP", raw=b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(600)),
        Case("endless headers", 400, "Invalid HTTP", raw=b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 200_000),
        Case("a negative length", 400, "Invalid HTTP", headers={**JSON, "Content-Length": "-1"}),
        Case("a length of 30 digits", 400, "Invalid HTTP", headers={**JSON, "Content-Length": "9" * 30}),
        Case("a length that is no number", 400, "Invalid HTTP", headers={**JSON, "Content-Length": "ten"}),
        Case(
            "a length that is too short",
            400,
            "not valid JSON",
            split(photo()),
            headers={**JSON, "Content-Length": "10"},
        ),
        Case("a length of a terabyte", 413, "more than 32 MB", headers={**JSON, "Content-Length": str(2**40)}),
        Case(
            "broken chunks",
            400,
            "",
            headers={**JSON, "Transfer-Encoding": "chunked"},
            pieces=lambda: [b"5\r\nhello\r\nzz\r\n"],
        ),
        Case("a request for WebSocket", 404, "not found", method="GET", path="/ws", headers={"Upgrade": "websocket"}),
    ]


def _large() -> list[Case]:
    """Bodies at and beyond the limits."""
    chunked = {**JSON, "Transfer-Encoding": "chunked"}

    def chunks() -> Iterable[bytes]:
        for _ in range(LIMIT // 2**20 + 2):
            yield b"100000\r\n" + b"0" * 2**20 + b"\r\n"
        yield b"0\r\n\r\n"

    return [
        Case("a byte too long", 413, "more than 32 MB", lambda: b"0" * (LIMIT + 1)),
        Case("too long in chunks", 413, "more than 32 MB", headers=chunked, pieces=chunks),
        Case(
            "too long for an explanation", 413, "more than 32 MB", lambda: bytes(LIMIT + 1), path="/explain", headers={}
        ),
        Case("ten million lists", 413, "more than 2,000,000 of [", lambda: b"[" + b"[]," * 10_000_000 + b"0]"),
        Case("five million objects", 413, "more than 100,000 of {", lambda: b"[" + b"{}," * 5_000_000 + b"0]"),
        Case("three million texts", 413, 'more than 1,000,000 of \\"', lambda: b"[" + b'"ab",' * 3_000_000 + b"0]"),
        Case("one text of 30 MB", 400, "row 0, image: not an image", lambda: split("A" * (30 * 2**20))),
        Case(
            "a column of 15 million numbers",
            400,
            "rows; send at most",
            lambda: b'{"inputs": {"image": [' + b"0," * 15_000_000 + b"0]}}",
        ),
        Case(
            "CSV of 30 million columns",
            400,
            "give exactly one",
            lambda: b"a" + b"," * 30_000_000,
            headers={"Content-Type": "text/csv"},
        ),
    ]
