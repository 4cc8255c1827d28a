"""Progress passes everything through, and says little where nobody looks."""

from __future__ import annotations

import pytest

from frostline.core import progress


def test_items_pass_through_in_silence_when_it_is_quick(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress.track(iter("abc"), 3, "prepare")) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""


def test_plain_lines_tell_how_far_it_is(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.0)
    assert list(progress.track(range(3), 70, "prepare", 32)) == [0, 1, 2]
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == ["prepare: 32/70 images", "prepare: 64/70 images"]
    assert all(line.endswith("s left") for line in lines)


def test_on_a_terminal_a_bar_counts_images(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert list(progress.track(range(3), 70, "prepare", 32)) == [0, 1, 2]
    assert "prepare" in capsys.readouterr().err
