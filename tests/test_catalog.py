"""State hangs from the project root, wherever a stage runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from frostline import catalog


def test_root_is_what_dvc_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    assert catalog.root() == tmp_path.resolve()
    for place in (
        catalog.features(),
        catalog.checkpoints(),
        catalog.tracking_database(),
        catalog.models(),
        catalog.training_lock(),
    ):
        assert place.is_relative_to(tmp_path.resolve())


def test_root_without_dvc_is_the_nearest_project_above(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DVC_ROOT", raising=False)
    (tmp_path / "project" / ".dvc").mkdir(parents=True)
    deep = tmp_path / "project" / "a" / "b"
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    assert catalog.root() == (tmp_path / "project").resolve()


def test_the_feature_store_can_be_shared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FROSTLINE_CACHE", str(tmp_path / "shared"))
    assert catalog.features() == (tmp_path / "shared").resolve()


def test_stage_files_are_relative_to_the_working_directory() -> None:
    assert not any(value.is_absolute() for value in vars(catalog).values() if isinstance(value, Path))
