"""`frostline choose` on a few tiny images with frostnet: its files, its answer, and what it writes into params.yaml."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, make_params, make_shards
from PIL import Image

from frostline import paths
from frostline.choice import measuring
from frostline.commands import choose
from frostline.data import shard_index, shards
from frostline.errors import DataError, UserError
from frostline.models import all_depths, backbones, backend
from frostline.params.schema import load


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def project(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FROSTLINE_CACHE", str(cache))  # so that only the first test computes
    monkeypatch.setattr(all_depths, "DEPTHS", 5)
    (tmp_path / ".dvc").mkdir()
    shutil.copy(ROOT / "params.yaml", tmp_path)
    return tmp_path


@pytest.fixture
def prepared(project: Path) -> None:
    make_shards(project / paths.PREPARED / "train", 30)
    make_shards(project / paths.PREPARED / "val", 9, seed=99)


def run(names: str | None = "frostnet", apply: bool = False, as_json: bool = False, **changes: Any) -> str:
    return choose.run(make_params(data__image_size=32, **changes), names, [], apply, as_json)


@pytest.mark.usefixtures("prepared")
def test_it_writes_a_picture_and_a_record_and_a_second_run_computes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    text = run()
    assert sorted(path.name for path in paths.CHOOSE.iterdir()) == ["choose.json", "depths.png"]
    assert Image.open(paths.CHOOSE / "depths.png").width > 500
    record = json.loads((paths.CHOOSE / "choose.json").read_text())
    (body,) = record["bodies"]
    assert record["body"] == body["name"] == "frostnet"
    assert body["multiply_adds"] == pytest.approx(backbones.sizes()["frostnet"].multiply_adds / 4, rel=0.01)  # 32 px
    assert record["scenario"].startswith("few, ")
    assert set(record["floors"]) == {"frostnet, random", "pixels"}
    best = max(body["depths"], key=lambda depth: depth["ridge"])
    assert best["ridge"] > 0.9, "the bright square is easily told"
    assert all(0 <= end <= 1 for depth in body["depths"] for end in depth["ridge_ci95"])
    lines = text.splitlines()
    assert lines[0].startswith("choose: 1 bodies, 39 images of train and val")
    assert "           backbone.name: frostnet" in lines
    assert any(line.startswith("next     `frostline choose --apply`") for line in lines)
    before = (paths.CHOOSE / "choose.json").read_bytes()
    monkeypatch.setattr(backend, "predict", None)
    again = run(as_json=True)
    assert json.loads(again) == record
    assert (paths.CHOOSE / "choose.json").read_bytes() == before


@pytest.mark.usefixtures("prepared")
def test_apply_keeps_the_comments_and_gives_params_that_load(project: Path) -> None:
    before = (project / "params.yaml").read_text()
    text = run(apply=True)
    assert text.splitlines()[-1].startswith("applied  params.yaml has these settings now")
    after = (project / "params.yaml").read_text()
    assert [line.partition("#")[2] for line in after.splitlines()] == [
        line.partition("#")[2] for line in before.splitlines()
    ]
    settings = json.loads((paths.CHOOSE / "choose.json").read_text())["settings"]
    loaded = load(project / "params.yaml").model_dump()
    for key, value in settings.items():
        section, name = key.split(".")
        assert loaded[section][name] == value, key


@pytest.mark.usefixtures("prepared")
@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("frostnot", r"--bodies: frostnot is not known; .*frostnet"),
        ("frostnet,,", "--bodies:  is not known"),
        ("hub/none", "hub/none"),
    ],
)
def test_a_wrong_name_is_one_line(names: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        run(names)
    assert "\n" not in str(error.value)
    assert not paths.CHOOSE.exists()


def test_without_prepared_images_it_says_what_to_run() -> None:
    with pytest.raises(DataError, match=r"data/prepared/train: holds no prepared images \(.*\); run `dvc repro`$"):
        run()


def prepare(images: int, sets: list[str] | None, folder: Path = paths.PREPARED) -> None:
    """Prepared images of two classes, all in train."""
    for name, count in (("train", images), ("val", 0)):
        (folder / name).mkdir(parents=True)
        table = pd.DataFrame({"path": [f"{n}" for n in range(count)], "label": np.arange(count) % 2})
        table = table.assign(sha256=[f"{n:064x}" for n in range(count)])
        table = table if sets is None else table.assign(together=sets[:count])
        pixels = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        shards.write(folder / name, shards.Layout(("ant", "bee"), 32, "stretch"), table, pixels)


def test_images_that_all_belong_together_can_not_be_compared() -> None:
    prepare(10, ["one"] * 10)
    with pytest.raises(DataError, match="all images of train and val are one group"):
        run()


def test_a_folder_that_an_older_version_prepared_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    write = shard_index.write

    def without_sets(path: Path, columns: dict[str, Any], rows: int) -> None:
        write(path, {name: values for name, values in columns.items() if name != "together"}, rows)

    monkeypatch.setattr(shard_index, "write", without_sets)
    prepare(10, None)
    with pytest.raises(DataError, match="an older frostline prepared it") as error:
        run()
    assert "\n" not in str(error.value)


def test_one_image_is_too_little() -> None:
    prepare(1, None)
    with pytest.raises(DataError, match="has images of fewer than two classes"):
        run()


@pytest.mark.usefixtures("prepared")
def test_a_clearly_worse_body_is_not_measured_on_all_images(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = {body["name"]: body for body in json.loads(run(as_json=True))["bodies"]}
    monkeypatch.setattr(measuring, "FIRST", 24)
    monkeypatch.setattr(measuring, "promising", lambda found, left: [0])
    text = run("frostnet,params", backbone__weights="none")
    record = json.loads((paths.CHOOSE / "choose.json").read_text())
    assert {body["name"]: body["images"] for body in record["bodies"]} == {"frostnet": 39, "frostnet, weights none": 24}
    assert record["bodies"][0] == whole["frostnet"], "what is left is measured as it is alone"
    assert "not measured on all: frostnet, weights none (24 images)" in text


@pytest.mark.process
@pytest.mark.usefixtures("prepared")
def test_what_was_measured_is_one_run_in_mlflow_however_often(monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for _ in range(2):
        record = json.loads(run(as_json=True, tracking__uri="auto"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # MLflow itself sets it
    (found,) = mlflow.search_runs(experiment_names=["frostline"], output_format="list")
    assert found.info.run_name == "digits choose"
    assert found.info.status == "FINISHED"
    assert found.data.params["body"] == "frostnet"
    assert found.data.params["finetune.freeze"] == record["settings"]["finetune.freeze"]
    client = mlflow.MlflowClient()
    curve = client.get_metric_history(found.info.run_id, "ridge/frostnet")
    depths = record["bodies"][0]["depths"]
    assert [(point.step, point.value) for point in curve] == [
        (round(100 * depth["share_of_compute"]), depth["ridge"]) for depth in depths
    ]
    assert [file.path for file in client.list_artifacts(found.info.run_id, "choose")] == [
        "choose/choose.json",
        "choose/depths.png",
    ]
