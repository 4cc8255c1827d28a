from frostline.features import measurements


def test_what_is_remembered_is_recalled(tmp_path):
    assert measurements.recall(tmp_path, "costs-x") is None
    measurements.remember(tmp_path, "costs-x", [1.5])
    assert measurements.recall(tmp_path, "costs-x") == [1.5]
    (tmp_path / "costs-x.json").write_text("{")
    assert measurements.recall(tmp_path, "costs-x") is None


def test_a_folder_is_measured_once(tmp_path):
    speed = measurements.speed(tmp_path)
    assert speed.write > 0
    assert 0 < speed.read <= speed.cold
    assert measurements.speed(tmp_path) == speed
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
