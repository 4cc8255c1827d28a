"""State hangs from the project root, wherever a stage runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from frostline import paths


def test_root_is_what_dvc_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    assert paths.root() == tmp_path.resolve()
    for place in (
        paths.features(),
        paths.checkpoints(),
        paths.tracking_database(),
        paths.models(),
        paths.training_lock(),
    ):
        assert place.is_relative_to(tmp_path.resolve())


def test_root_without_dvc_is_the_nearest_project_above(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DVC_ROOT", raising=False)
    (tmp_path / "project" / ".dvc").mkdir(parents=True)
    deep = tmp_path / "project" / "a" / "b"
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    assert paths.root() == (tmp_path / "project").resolve()


def test_the_feature_store_can_be_shared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FROSTLINE_CACHE", str(tmp_path / "shared"))
    assert paths.features() == (tmp_path / "shared").resolve()


def test_stage_files_are_relative_to_the_working_directory() -> None:
    assert not any(value.is_absolute() for value in vars(paths).values() if isinstance(value, Path))
