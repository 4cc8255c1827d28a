"""Progress yields all items, and prints little if the output is not a terminal."""

from __future__ import annotations

import pytest

from frostline.core import progress


def test_quick_work_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress.track(iter("abc"), 3, "prepare")) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""


def test_plain_lines_show_the_progress(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.0)
    assert list(progress.track(range(3), 70, "prepare", 32)) == [0, 1, 2]
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == ["prepare: 32/70 images", "prepare: 64/70 images"]
    assert all(line.endswith("s left") for line in lines)


def test_on_a_terminal_a_bar_counts_images(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert list(progress.track(range(3), 70, "prepare", 32)) == [0, 1, 2]
    assert "prepare:   0%|" in capsys.readouterr().err
