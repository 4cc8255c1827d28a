"""The blocks of backbones, and how they thaw."""

import pytest

from frostline.errors import ParamsError
from frostline.models import backbones, bands, freeze_rules, freezing
from frostline.training import thawing


@pytest.fixture(scope="module")
def vgg():
    return backbones.build("VGG16", "none", 32).model


def test_blocks_are_those_that_vgg_names(vgg):
    names = [[layer.name for layer in vgg.layers[:end] if layer.weights][-1] for end in bands.blocks(vgg)]
    assert names == ["block1_conv2", "block2_conv2", "block3_conv3", "block4_conv3", "block5_conv3"]
    depths = thawing.from_top(vgg)
    assert depths["block5_conv1/kernel"] == 1
    assert depths["block1_conv1/kernel"] == 5


def test_blocks_thaw_one_after_another_and_none_is_frozen_again(vgg):
    stages = thawing.stages(vgg, freeze_rules.parse("gradual"), 10)
    assert [list(span) for _, span in stages] == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    first, *_, last = [band.start for band, _ in stages]
    assert vgg.layers[first].name.startswith(("block4_pool", "block5"))
    assert last == 0


@pytest.mark.parametrize(("epochs", "count"), [(1, 1), (3, 3), (5, 5)])
def test_few_epochs_thaw_several_blocks_at_once(vgg, epochs, count):
    stages = thawing.stages(vgg, freeze_rules.parse("gradual"), epochs)
    assert len(stages) == count
    assert stages[-1][0].start == 0
    assert [epoch for _, span in stages for epoch in span] == list(range(epochs))


def test_a_line_bounds_the_thaw(vgg):
    rule = freeze_rules.parse(["gradual", "block3_conv1"])
    stages = thawing.stages(vgg, rule, 6)
    assert stages[-1][0].start == freezing.depth(vgg, "block3_conv1")
    groups = thawing.groups(vgg, stages, 0.1, 0.5)
    assert [group.learning_rate for group in groups] == [0, 0, 0, 0.0125, 0.025, 0.05]
    assert [group.thawed for group in groups] == [0, 0, 0, 5, 3, 1]
    assert sum(group.layers for group in groups) == len(vgg.layers)
    assert sum(group.parameters for group in groups) == vgg.count_params()


def test_two_freeze_lines_are_an_error():
    with pytest.raises(ParamsError, match=r"finetune\.freeze .* names 2 lines; give one of them"):
        freeze_rules.parse(["block3_conv1", 5])
