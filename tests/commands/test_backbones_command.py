"""`frostline backbones` as a table and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from frostline.commands import backbones as stage
from frostline.models import backbones, hub_presets


def test_the_json_has_every_backbone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    rows = {row["name"]: row for row in json.loads(stage.run(as_json=True))}
    presets = [f"hub/{preset.name}" for preset in hub_presets.usable()]
    assert list(rows) == [*backbones.TABLE, *presets]
    rows = {name: rows[name] for name in backbones.TABLE}
    assert [name for name, row in rows.items() if row["imagenet_top1"] is None] == ["frostnet"]
    assert [name for name, row in rows.items() if row["imagenet_weights"] is None] == ["frostnet"]
    assert all(50 < row["imagenet_top1"] < 90 for name, row in rows.items() if name != "frostnet")
    # Multiply-adds in millions, as the papers state them with the classification layer.
    published = {"MobileNet": 569, "MobileNetV2": 300, "EfficientNetB0": 390, "ResNet50": 3800, "VGG16": 15300}
    for name, millions in published.items():
        assert rows[name]["multiply_adds"] == pytest.approx(millions, rel=0.05)


def test_weights_in_the_cache_of_keras_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    assert backbones.whereabouts("MobileNetV2") == "download"
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_96_no_top.h5").touch()
    assert backbones.whereabouts("MobileNetV2") == "cached"
    line = next(line for line in stage.run().splitlines() if line.startswith("MobileNetV2 "))
    assert " ".join(line.split()) == "MobileNetV2 2.3 M 299 M 224 32 154 73 71.3 cached 0.35 0.5 0.75 1 1.3 1.4"


def test_the_table_is_aligned_and_has_a_line_for_each_backbone() -> None:
    lines = stage.run().splitlines()
    assert len(lines) == 1 + len(backbones.TABLE) + len(hub_presets.usable())
    assert max(map(len, lines)) <= 160
    place = lines[0].index("weights ")
    assert {line[place:].split()[0] for line in lines[2:]} <= {"installed", "cached", "download"}
