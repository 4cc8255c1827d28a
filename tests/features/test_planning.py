"""The plan for real networks, and the features that it gives."""

import numpy as np
import pytest
from conftest import assert_alike

from frostline.core.mapped import Memory
from frostline.features import costs, measurements, planning
from frostline.features.planning import Demand
from frostline.features.prefix import FeatureSource
from frostline.features.store import Store
from frostline.models import backbones, backend, freezing, heads


@pytest.fixture(scope="module")
def network():
    backbone = backbones.build("frostnet", "builtin", 32)
    head = heads.build(backbone.model.output.shape[1:], 3, "avg", [], "relu", False)
    return backbone, head, {cut.layer: cut for cut in freezing.cut_points(backbone.model)}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "features", 1e9, Memory(1e9))


def make(network, store, sets, line="block4_out", mode="auto", dtype="float32", epochs=4):
    backbone, head, cuts = network
    end = list(cuts.values())[-1]
    phases = [Demand("head", end, epochs, {0}), Demand("finetune", cuts[line], epochs, {0})]
    return planning.make(FeatureSource(backbone, head), phases, sets[:1], sets[-1], store, mode, dtype)


def take(rows):
    return rows.take(np.arange(len(rows)))


def test_two_phases_share_what_is_stored_and_the_next_run_measures_nothing(network, store, small_sets, monkeypatch):
    sets = small_sets()
    monkeypatch.setattr(costs, "WORTH_MEASURING", 0)
    plan = make(network, store, sets)
    head, finetune = plan.routes["head"], plan.routes["finetune"]
    assert plan.prefix.stops[head.stop].cut.layer == "block8_out"
    assert plan.prefix.stops[finetune.stop].cut.layer == "block4_out"
    assert plan.text.startswith("plan: head on block8_out, ")
    assert "\n" not in plan.text
    take(plan.rows("head", sets[0]))
    assert store.count(plan.prefix.stops[finetune.kept].entry, sets[0].identities) == 42  # on the way to the head's
    monkeypatch.setattr(costs, "_seconds", lambda *_: pytest.fail("measured again"))
    again = make(network, store, sets)
    assert "42 of 60 images there" in again.text
    take(again.rows("head", sets[-1]))
    take(again.rows("finetune", sets[-1]))
    assert "all there" in make(network, store, sets).text


def test_what_costs_next_to_nothing_is_stored_without_measuring_anything(network, store, small_sets, monkeypatch):
    monkeypatch.setattr(costs, "measure", lambda *_: pytest.fail("measured"))
    plan = make(network, store, small_sets())
    for route in plan.routes.values():
        assert route.kept == route.stop
    assert "images/s" not in plan.text
    slow = measurements.Speed(write=1e-3, read=0.0, cold=0.0)
    monkeypatch.setattr(measurements, "speed", lambda folder: slow)
    with pytest.raises(pytest.fail.Exception, match="measured"):
        make(network, store, small_sets())


@pytest.mark.parametrize("mode", ["auto", "always", "never"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_features_do_not_depend_on_the_plan(network, store, small_sets, mode, dtype):
    sets = small_sets()
    plan = make(network, store, sets, mode=mode, dtype=dtype)
    direct = make(network, store, sets, mode="never", dtype=dtype)
    for phase in ("head", "finetune"):
        expected = take(direct.rows(phase, sets[0]))
        if dtype == "float16" and mode != "never":
            expected = expected.astype(np.float16)
        assert_alike(take(plan.rows(phase, sets[0])), expected)
    assert bool(list(store.folder.glob("*/*.npy"))) == (mode != "never")


@pytest.mark.parametrize("mode", ["auto", "always"])
def test_what_has_no_room_is_one_line_of_warning_a_phase_and_computed(network, store, small_sets, mode, capsys):
    sets = small_sets()
    tight = Store(store.folder, 1000, Memory(1e9))
    plan = make(network, tight, sets, mode=mode)
    assert "head on block8_out, computed for every batch; finetune on block4_out, computed" in plan.text
    lines = capsys.readouterr().err.splitlines()
    assert [line[:43] for line in lines] == [
        "warning: the features for phase finetune ar",
        "warning: the features for phase head are co",
    ]
    assert "there is room for 0.0 MB" in lines[0]
    expected = take(make(network, store, sets, mode="never").rows("head", sets[0]))
    assert_alike(take(plan.rows("head", sets[0])), expected)


@pytest.mark.parametrize("mode", ["auto", "never"])
def test_the_plan_says_where_an_engine_rounds_by_the_place(network, store, small_sets, monkeypatch, mode):
    words = "features are equal to 1e-5 only"
    others = Store(store.folder.with_name("others"), 1e9, Memory(1e9))
    is_there = not backend.has_gpu()
    assert (words not in make(network, others, small_sets(), mode=mode).text) == is_there
    monkeypatch.setattr(backend, "rounds_alike", lambda run, batch: False)
    assert words in make(network, store, small_sets(), mode=mode).text
    monkeypatch.undo()
    assert words in make(network, store, small_sets(), mode=mode).text  # it is tried once
