"""`${NAME}` in params.yaml is replaced by the environment variable when the value is used."""

from __future__ import annotations

import pytest

from frostline.errors import ParamsError
from frostline.params.variables import expanded


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("auto", "auto"),
        ("postgresql://me:${PGPASSWORD}@host/${DB}", "postgresql://me:p$x{y}@host/runs"),
        ("$${PGPASSWORD}", "${PGPASSWORD}"),
        ("$PGPASSWORD costs 5$", "$PGPASSWORD costs 5$"),
        ("${EMPTY}", ""),
    ],
)
def test_variables_are_replaced_once(monkeypatch: pytest.MonkeyPatch, text: str, expected: str) -> None:
    for name, value in {"PGPASSWORD": "p$x{y}", "DB": "runs", "EMPTY": ""}.items():
        monkeypatch.setenv(name, value)
    assert expanded(text, "sweep.storage") == expected


def test_a_variable_that_is_not_set_is_reported_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOBODY", raising=False)
    with pytest.raises(ParamsError, match=r"tracking\.uri names \$\{NOBODY\}, which is not set; export NOBODY"):
        expanded("http://${NOBODY}", "tracking.uri")
