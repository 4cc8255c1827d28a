"""A project that is moved, renamed or copied keeps its runs and its registered models."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import make_bundle, make_params

from frostline.commands import sync
from frostline.core import digest
from frostline.errors import StateError
from frostline.tracking import local_database, model_uris, outbox, registry, relocation
from frostline.tracking import tracker as tracking

pytestmark = pytest.mark.process

MODEL = "models:/frostline/1"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose name has letters that a URI encodes, with one registered model."""
    root = tmp_path_factory.mktemp("relocation") / "größe 1"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setenv("DVC_ROOT", str(root))
        bundle = make_bundle(root / "bundle", ("cat", "dog"))
        settings = make_params(tracking__uri="auto")
        tracker = tracking.tracker(settings.tracking)
        with tracker.result(digest.of_folder(bundle), "n") as log:
            log.files([bundle / "bundle.json"])
            log.model(bundle)
        with registry.registry(settings.tracking, "frostline") as models:
            models.register(digest.of_folder(bundle), {}, "")
    return root


@pytest.fixture
def moved(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The project in another folder; the old one is gone for the time of the test."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copytree(made, tmp_path / "new place")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "new place"))
    made.rename(tmp_path / "gone")
    yield tmp_path / "new place"
    (tmp_path / "gone").rename(made)


def test_after_a_move_one_line_names_the_command_that_brings_models_back(made: Path, moved: Path) -> None:
    import mlflow

    settings = make_params(tracking__uri="auto")
    with pytest.raises(StateError) as caught:
        model_uris.bundle_folder(settings.tracking, MODEL)
    for part in (str(made), str(moved), "`frostline sync --moved`"):
        assert part in str(caught.value)
    assert not made.exists()
    box = outbox.Outbox(moved / ".frostline/outbox/1", {"uri": f"sqlite:///{made}/mlflow.db"})
    box.put(outbox.Call("tags", {"values": {"a": "b"}}))
    said = sync.moved(settings)
    assert said == f"sync: 5 places of files were corrected from {made} to {moved}"  # of two experiments
    assert [each.to["uri"] for each in outbox.boxes(moved / ".frostline/outbox")] == [f"sqlite:///{moved}/mlflow.db"]
    box.clear()
    assert sync.moved(settings) == "sync: the project was not moved; nothing to correct"
    found = model_uris.bundle_folder(settings.tracking, MODEL)
    assert digest.of_folder(found) == digest.of_folder(moved / "bundle")
    assert mlflow.pyfunc.load_model(MODEL).metadata.signature is not None
    with registry.registry(settings.tracking, "frostline") as models:
        run = models.version("1").run
    assert [file.path for file in mlflow.MlflowClient().list_artifacts(run)] == ["bundle.json"]


def test_a_copy_does_not_write_into_the_folder_that_it_was_copied_from(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(made, copy)
    shutil.rmtree(copy / "mlartifacts" / "models")  # the model stays where it is
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # MLflow sets it
    monkeypatch.setenv("DVC_ROOT", str(copy))
    settings = make_params(tracking__uri="auto")
    tracker = tracking.tracker(settings.tracking)
    with pytest.raises(StateError, match="moved or copied"):
        tracker.connect()
    assert "3 places of files were corrected" in sync.moved(settings)
    found = model_uris.bundle_folder(settings.tracking, MODEL)
    assert digest.of_folder(found) == digest.of_folder(made / "bundle")
    before = sorted(made.rglob("*"))
    (copy / "file").touch()
    with tracker.training("job", "n") as run:
        run.files([copy / "file"])
    assert sorted(made.rglob("*")) == before
    assert len(list((copy / "mlartifacts").rglob("file"))) == 1


def test_only_a_database_in_the_project_is_looked_at(tmp_path: Path) -> None:
    database, artifacts = tmp_path / "shared" / "mlflow.db", tmp_path / "project" / "mlartifacts"
    database.parent.mkdir()
    local_database.create(database, tmp_path / "other" / "mlartifacts")
    relocation.require_in_place(database, artifacts)
    assert relocation.correct(database, artifacts) == relocation.Corrected((), 0, 0)
    inside = tmp_path / "mlflow.db"
    shutil.move(database, inside)
    with pytest.raises(StateError, match="frostline sync --moved"):
        relocation.require_in_place(inside, tmp_path / "mlartifacts")
    relocation.require_in_place(inside, tmp_path / "artifacts of another name")
    with pytest.raises(StateError, match=r"tracking\.uri is no database in this project"):
        sync.moved(make_params())
