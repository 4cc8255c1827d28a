"""The resizing of an exported graph gives Pillow's pixels, to the last level, in every runtime."""

import itertools
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frostline.data import images
from frostline.data.shards import Layout
from frostline.exports import graph, resizing
from frostline.exports.formats import FORMATS

SIZE = 64
WAYS = ("stretch", "crop", "pad")
# Larger, smaller, equal, odd, one pixel, long, and where Pillow begins with the columns.
SIDES = [(1, 1), (1, 400), (400, 1), (64, 64), (63, 65), (31, 33), (100, 77), (128, 128), (481, 640), (1000, 3), (7, 5)]


def picture(height, width):
    return np.random.default_rng(height * 10_000 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def resizers():
    import tensorflow as tf

    signature = [tf.TensorSpec((None, None, 3), tf.uint8)]
    return {
        (size, how): tf.function(partial(resizing.resize, size=size, how=how), input_signature=signature)
        for size, how in itertools.product((32, SIZE, 160, 224), WAYS)
    }


@pytest.mark.parametrize("how", WAYS)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(size=st.sampled_from((32, SIZE, 160, 224)), height=st.integers(1, 700), width=st.integers(1, 700))
def test_every_pixel_is_that_of_pillow(resizers, how, size, height, width):
    image = picture(height, width)
    np.testing.assert_array_equal(resizers[size, how](image), images.resize(image, size, how))


@pytest.mark.parametrize(("height", "width", "how"), [(4000, 3000, "crop"), (1, 20_000, "stretch"), (9000, 2, "pad")])
def test_every_pixel_of_a_large_or_long_image_is_that_of_pillow(resizers, height, width, how):
    image = picture(height, width)
    np.testing.assert_array_equal(resizers[SIZE, how](image), images.resize(image, SIZE, how))


@pytest.mark.process
@pytest.mark.parametrize("form", FORMATS)
def test_every_pixel_is_that_of_pillow_in_every_runtime(form, tmp_path):
    """One loaded file takes one size after the other, as its users do."""
    import tensorflow as tf

    module = tf.Module()

    def serve(image):
        return {how: resizing.resize(image, SIZE, how) for how in WAYS}

    module.serve = tf.function(serve, input_signature=[tf.TensorSpec((None, None, 3), tf.uint8, name="image")])
    path = tmp_path / FORMATS[form].file
    FORMATS[form].write(graph.Graph(module, Layout(("a",), SIZE, "crop")), path)
    run = FORMATS[form].load(path)
    for height, width in SIDES:
        found = run(picture(height, width))
        for how in WAYS:
            expected = images.resize(picture(height, width), SIZE, how)
            np.testing.assert_array_equal(found[how], expected, err_msg=f"{height} x {width}, {how}")
