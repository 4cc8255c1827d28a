"""Live variants equal stored ones for the same draws."""

import keras
import numpy as np
import pytest

from frostline.data import augmentation
from frostline.training import live_variants

POLICY = augmentation.Policy(20, 0.1, 0.2, 15, 0.2, True, True, (0.7, 1.2), "constant")


def images(count=6, size=48):
    """Smooth images, because only the geometry is compared."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 255, (count, 6, 6, 3)).astype(np.float32)
    return np.asarray(keras.ops.image.resize(small, (size, size), interpolation="bilinear"))


@pytest.mark.parametrize("fill", ["constant", "nearest", "reflect", "wrap"])
def test_a_draw_gives_the_same_variant_live_and_stored(fill):
    policy = augmentation.Policy(**{**POLICY.__dict__, "fill_mode": fill})
    x = images()
    draws = np.random.default_rng(1).uniform(-1, 1, (len(x), live_variants.DRAWS)).astype(np.float32)
    live = np.asarray(live_variants.Variants(policy, 1).vary(x, draws))
    for image, draw, variant in zip(np.rint(x).astype(np.uint8), draws, live, strict=True):
        turn, y, left, slant, zoom_y, zoom_x, flip_x, flip_y, light = draw.tolist()
        same = augmentation.Transform(
            20 * turn, 0.2 * y, 0.1 * left, 15 * slant, 1 + 0.2 * zoom_y, 1 + 0.2 * zoom_x,
            flip_x < 0, flip_y < 0, 0.95 + 0.25 * light,
        )  # fmt: skip
        stored = augmentation.apply(image, same, fill).astype(np.float32)
        # Beyond the border, the interpolations differ by one pixel.
        assert np.quantile(np.abs(stored - variant), 0.9) < 2


def test_evaluation_sees_the_images_themselves():
    x = images()
    layer = live_variants.Variants(POLICY, 1)
    np.testing.assert_array_equal(np.asarray(layer(x, training=False)), x)


def test_every_batch_is_drawn_anew_and_reset_starts_again():
    x = images()
    layer = live_variants.Variants(POLICY, 1)
    first, second = (np.asarray(layer(x, training=True)) for _ in range(2))
    assert np.abs(first - second).mean() > 5
    layer.reset()
    np.testing.assert_array_equal(np.asarray(layer(x, training=True)), first)
    assert first.min() >= 0
    assert first.max() <= 255


def test_a_policy_without_any_move_changes_nothing():
    x = images()
    policy = augmentation.Policy(0, 0, 0, 0, 0, False, False, None, "constant")
    np.testing.assert_array_equal(np.asarray(live_variants.Variants(policy, 1)(x, training=True)), x)
