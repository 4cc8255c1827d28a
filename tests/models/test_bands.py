"""The band of layers that is trained, by names or by numbers of blocks."""

import pytest

from frostline.errors import ParamsError
from frostline.models import backbones, bands, freeze_rules, freezing
from frostline.models.freeze_rules import Band


@pytest.fixture(scope="module")
def body():
    return backbones.build("frostnet", "none", 64).model


def band(body, *ends):
    return bands.of_rule(body, freeze_rules.parse(None, ends))


def names(body, band):
    return [layer.name for layer in body.layers[band.start : band.stop]]


def test_both_ends_are_included(body):
    found = names(body, band(body, "block3_1_conv", "block4_out"))
    assert found[0] == "block3_1_conv"
    assert found[-1] == "block4_out"
    assert names(body, band(body, "stem_conv", "stem_conv")) == ["stem_conv"]


def test_a_number_is_a_block_from_the_bottom_up(body):
    ends = [0, *bands.blocks(body)]
    assert len(ends) == 5
    for number in range(1, 5):
        assert band(body, number, number) == Band(ends[number - 1], ends[number], 66)
    assert band(body, 1, 4) == bands.of_rule(body, freeze_rules.parse("none")) == Band(0, 66, 66)
    assert band(body, 4, "block8_out") == band(body, 4, 4)


def test_a_line_is_a_band_up_to_the_end(body):
    found = bands.of_rule(body, freeze_rules.parse("block4_out"))
    assert found == Band.above(freezing.depth(body, "block4_out"), 66)
    assert found.frozen == 34
    assert bands.of_rule(body, freeze_rules.parse("all")).places == range(66, 66)


def test_both_spellings_mean_the_same():
    assert freeze_rules.parse(None, "2..3") == freeze_rules.parse(None, (2, 3))
    assert freeze_rules.parse(None, "stem_conv..block2_out").band == ("stem_conv", "block2_out")


@pytest.mark.parametrize(
    ("ends", "message"),
    [
        ((3, 2), "finetune.train: 2 lies before 3; swap them"),
        ((0, 2), "names block 0, but frostnet has blocks 1 to 4"),
        ((1, 5), "names block 5, but frostnet has blocks 1 to 4"),
        (("block3_ot", 4), r"names 'block3_ot', which is not a layer of frostnet.*did you mean block3_out\?"),
        (("block3_out", "block3_out"), "block3_out to block3_out has no weights; widen it"),
    ],
)
def test_a_band_that_is_none_is_refused(body, ends, message):
    with pytest.raises(ParamsError, match=message):
        band(body, *ends)


def test_a_band_needs_two_ends():
    for wrong in ("2", "1..2..3"):
        with pytest.raises(ParamsError, match="has no two ends; write"):
            freeze_rules.parse(None, wrong)


def test_layers_outside_of_the_band_are_frozen_and_audited(body):
    found = band(body, 2, 2)
    freezing.freeze(body, found, True)
    places = [place for place, layer in enumerate(body.layers) if layer.trainable]
    assert places == list(found.places)
    before = freezing.fingerprint(body)
    outside = [weight for place, layer in enumerate(body.layers) if place not in places for weight in layer.weights]
    assert len(before) == len(outside)
    result = freezing.audit(body, body, found, before)
    assert result.frozen_layers == found.frozen == 66 - len(places)
