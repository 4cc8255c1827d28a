"""The body of a request to /invocations as a table of one column.

The forms are MLflow's (https://mlflow.org/docs/latest/ml/deployment/deploy-model-locally): JSON with `dataframe_split`,
`dataframe_records`, `inputs` or `instances`, and CSV. They are parsed here and not by MLflow's server, because the size
of a request must be checked before it becomes objects. Parquet is not accepted: its unpacked size is unknown. Besides
these, the body may be the bytes of an image, or a form with files, as `curl --data-binary` and `curl -F` send them.
"""

from __future__ import annotations

import csv
import json
import threading
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from io import BytesIO, TextIOWrapper
from typing import Any, NoReturn

from frostline.data.images import Pixels
from frostline.serving import inputs
from frostline.serving.inputs import Limits, UnusableInputError

JSON, CSV, IMAGE, FORM = "application/json", "text/csv", "image/", "multipart/form-data"

# Limits on the number of objects, which take 50 to 250 bytes each: 400 MB at most. LISTS: one for each of the `pixels`.
LISTS, OBJECTS, QUOTES, CELLS = 2_000_000, 100_000, 1_000_000, 1000
MOST_BOUNDARY = 72  # bytes, with the two dashes: RFC 2046 allows 70
SMALL = 4 * 2**20  # bytes of a body; larger bodies are parsed one at a time
_LARGE_BODY = threading.Lock()


class RefusedRequestError(Exception):
    """A request that is refused; the text is for the client. status: of HTTP."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True)
class Table:
    """A column, one of `inputs.COLUMNS`, and its cells; the cells of `pixels` are already arrays."""

    column: str
    values: list[Any]


def kind_of(content_type: str | None) -> str:
    """The kind of content: JSON, CSV, IMAGE or FORM. Raises RefusedRequestError for any other."""
    if not content_type:
        raise RefusedRequestError(415, f"the header Content-Type is missing; send {JSON}")
    kind, *options = (part.strip().lower() for part in content_type.split(";"))
    if kind.startswith(IMAGE):
        return IMAGE
    if kind == FORM:
        return FORM
    charsets = {each.removeprefix("charset=").strip('"') for each in options if each.startswith("charset=")}
    if kind not in (JSON, CSV) or charsets - {"utf-8", "utf8", "us-ascii"}:
        raise RefusedRequestError(
            415, f"Content-Type is {content_type[:60]}; send {JSON} or {CSV}, in UTF-8, {IMAGE}* or {FORM}"
        )
    return kind


def parse(body: bytes, kind: str, limits: Limits) -> Table:
    """The table in a body. Raises RefusedRequestError, or UnusableInputError if a cell is not an image."""
    if kind in (IMAGE, FORM):
        files = [body] if kind == IMAGE else _form_files(body)
        limits.require("image", len(files))
        return Table("image", files)
    with _LARGE_BODY if len(body) > SMALL else nullcontext():
        table = (_csv if kind == CSV else _json)(body, limits)
        if table.column == "pixels":
            table = Table(table.column, [_array(row, each, limits) for row, each in enumerate(table.values)])
        return table


def _form_files(body: bytes) -> list[bytes]:
    """The files in the body of a form (RFC 7578), which begins with its own boundary."""
    boundary, _, rest = body.partition(b"\r\n")
    if not boundary.startswith(b"--") or len(boundary) > MOST_BOUNDARY:
        raise RefusedRequestError(400, f"the body is not valid {FORM}; send files by `curl -F file=@NAME`")
    parts = rest.split(b"\r\n" + boundary, CELLS + 1)
    if len(parts) > CELLS:
        raise RefusedRequestError(413, f"the form has more than {CELLS} parts; send fewer files")
    files = []
    for part in parts:
        headers, separator, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        if separator and b"filename" in headers:
            files.append(content)
    if not files:
        raise RefusedRequestError(400, "the form has no files; send files by `curl -F file=@NAME`")
    return files


def _array(row: int, value: Any, limits: Limits) -> Pixels:
    try:
        return inputs.array(value, limits.pixels)
    except UnusableInputError as reason:
        raise UnusableInputError(f"row {row}, pixels: {reason}") from None


def _json(body: bytes, limits: Limits) -> Table:
    for sign, limit in ((b"[", LISTS), (b"{", OBJECTS), (b'"', QUOTES)):
        if body.count(sign) > limit:
            raise RefusedRequestError(413, f"the body has more than {limit:,} of {sign.decode()}; send fewer rows")
    try:
        document = json.loads(body.decode("utf-8"), parse_constant=_refuse_number)
    except RecursionError:
        raise RefusedRequestError(400, "the body is no JSON that can be read: it is nested too deeply") from None
    except ValueError as error:  # from decoding, from the JSON grammar, or for a number with thousands of digits
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error).split(";")[0][:80]
        raise RefusedRequestError(400, f"the body is not valid JSON in UTF-8: {reason}") from None
    forms = [name for name in FORMS if isinstance(document, dict) and name in document]
    if len(forms) != 1:
        raise RefusedRequestError(400, f"the body must be a JSON object with exactly one of {', '.join(FORMS)}")
    return FORMS[forms[0]](document[forms[0]], limits)


def _refuse_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _split(value: Any, limits: Limits) -> Table:
    table: dict[str, Any] = value if isinstance(value, dict) else {}
    names, rows = table.get("columns"), table.get("data")
    if not isinstance(names, list) or not _is_list_of(names, str) or not isinstance(rows, list):
        raise RefusedRequestError(400, 'dataframe_split must be {"columns": ["image"], "data": [["..."], ...]}')
    column = _column(names, len(rows), limits)
    for row, cells in enumerate(rows):
        if not isinstance(cells, list) or len(cells) != len(names):
            raise RefusedRequestError(400, f"row {row} is no list with one cell for each of the columns")
    place = names.index(column)
    return Table(column, [cells[place] for cells in rows])


def _records(value: Any, limits: Limits) -> Table:
    if not _is_list_of(value, dict):
        raise RefusedRequestError(400, 'records must be a list of objects: [{"image": "..."}, ...]')
    column = _column({name for record in value for name in record}, len(value), limits)
    return Table(column, [record.get(column) for record in value])


def _columns(value: Any, limits: Limits) -> Table:
    """MLflow's `inputs` and `instances`: {"image": ["...", ...]} or records."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return _records(value, limits)
    if not isinstance(value, dict):
        value = {}
    column = _column(value, 0, limits)
    values = value[column] if isinstance(value[column], list) else [value[column]]
    return Table(_column(value, len(values), limits), values)


FORMS: dict[str, Callable[[Any, Limits], Table]] = {
    "dataframe_split": _split,
    "dataframe_records": _records,
    "inputs": _columns,
    "instances": _columns,
}


def _csv(body: bytes, limits: Limits) -> Table:
    csv.field_size_limit(len(body) + 1)
    rows = csv.reader(TextIOWrapper(BytesIO(body), "utf-8-sig", newline=""), strict=True)
    try:
        names = next(rows, [])
        column = _column(names[:CELLS], 0, limits)
        place = names.index(column)
        values: list[Any] = []
        for cells in rows:
            if not cells:  # an empty line
                continue
            if len(cells) != len(names):
                raise RefusedRequestError(400, f"row {len(values)} has {len(cells)} cells for {len(names)} columns")
            values.append(cells[place])
            _column([column], len(values), limits)
    except (csv.Error, UnicodeDecodeError) as error:
        raise RefusedRequestError(400, f"the body is not valid CSV in UTF-8: {error}") from None
    return Table(column, values)


def _column(names: Any, rows: int, limits: Limits) -> str:
    """The one of `inputs.COLUMNS` in these names. Raises UnusableInputError if the limits do not allow the table."""
    column = inputs.column_of(names)
    limits.require(column, rows)
    return column


def _is_list_of(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(each, kind) for each in value)
