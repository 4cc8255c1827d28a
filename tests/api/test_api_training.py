"""A training from a table in a notebook goes the way of the stages."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import frostline
from frostline.errors import ParamsError, UserError
from frostline.params import schema

QUICK = {
    "data.image_size": 32,
    "augment.copies": 0,
    "finetune": {"head_epochs": 4, "epochs": 8, "freeze": "block6_out"},
    "evaluate.bootstrap": 100,
}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """60 images with a bright square at one of two places, in three splits."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    rows = []
    for number in range(60):
        label = ("left", "right")[number % 2]
        pixels = rng.integers(0, 60, (32, 32, 3), dtype=np.uint8)
        pixels[8:24, 16 * (number % 2) :][:, :16] += 150
        path = folder / f"{number}.png"
        Image.fromarray(pixels).save(path)
        split = "train" if number < 36 else "val" if number < 48 else "test"
        rows.append({"path": path, "label": label, "split": split})
    return pd.DataFrame(rows)


@pytest.mark.process
def test_a_table_becomes_a_classifier_with_its_report(table, tmp_path, capsys):
    trained = frostline.train(table, QUICK, tmp_path / "run")
    assert trained.metrics["n_test"] == 12
    assert trained.metrics["accuracy"] > 0.9
    assert len(trained.history) == 12
    assert (tmp_path / "run/reports/model_card.md").is_file()
    assert trained.classifier.predict(table["path"].iloc[0])["label"].item() == "left"
    assert repr(trained).startswith("Trained: test accuracy ")
    assert "macro F1" in trained._repr_html_()
    assert "val_accuracy" in capsys.readouterr().out
    settings = schema.load(tmp_path / "run/params.yaml")
    assert (settings.tracking.uri, settings.finetune.head_epochs) == ("none", 4)

    again = frostline.train(table, settings)  # the same settings, in a folder of its own
    assert again.metrics["accuracy"] == trained.metrics["accuracy"]
    assert again.metrics["test_digest"] == trained.metrics["test_digest"]
    assert again.folder != trained.folder


def test_what_is_wrong_is_said_before_anything_runs(table, tmp_path):
    with pytest.raises(UserError, match="the table of images has no column label; name its columns so"):
        frostline.train(table.drop(columns="label"), QUICK)
    with pytest.raises(ParamsError, match=r"finetune\.epoch"):
        frostline.train(table, {"finetune.epoch": 3})
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    with pytest.raises(UserError, match="is not empty; name another folder for the results"):
        frostline.train(table, QUICK, tmp_path / "full")
