"""Variants are functions of the image, the seed and the number, and transforms have the right geometry."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from frostline.data.augmentation import FILL_MODES, Policy, Transform, apply, draw

NOTHING = Policy(0, 0, 0, 0, 0, False, False, None, "constant")
ALL = Policy(30, 0.2, 0.2, 15, 0.3, True, True, (0.5, 1.5), "reflect")
STILL = Transform(0, 0, 0, 0, 1, 1, False, False, 1)
SHA, OTHER = "ab" * 32, "cd" * 32

quick = settings(max_examples=30, deadline=None, database=None, derandomize=True)


@pytest.fixture
def noise() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)


def dot(y: int, x: int, size: int = 17) -> NDArray[np.uint8]:
    pixels = np.zeros((size, size, 3), np.uint8)
    pixels[y, x] = 200
    return pixels


def brightest(pixels: NDArray[np.uint8]) -> tuple[int, int]:
    """The place (y, x) of the brightest pixel."""
    y, x = np.unravel_index(pixels[..., 0].argmax(), pixels.shape[:2])
    return int(y), int(x)


def test_the_same_inputs_give_the_same_bytes(noise: NDArray[np.uint8]) -> None:
    one, two = (apply(noise, draw(ALL, SHA, 3, 7), ALL.fill_mode) for _ in range(2))
    np.testing.assert_array_equal(one, two)


def test_image_seed_and_number_each_change_the_draw() -> None:
    draws = [draw(ALL, SHA, 1, 7), draw(ALL, OTHER, 1, 7), draw(ALL, SHA, 2, 7), draw(ALL, SHA, 1, 8)]
    assert len(set(draws)) == 4


def test_switching_off_one_setting_does_not_change_the_others() -> None:
    full = draw(ALL, SHA, 1, 7)
    assert draw(replace(ALL, rotation=0), SHA, 1, 7) == replace(full, rotation=0)
    assert draw(replace(ALL, zoom=0), SHA, 1, 7) == replace(full, zoom_y=1, zoom_x=1)
    assert draw(replace(ALL, brightness=None), SHA, 1, 7) == replace(full, brightness=1)


@quick
@given(st.integers(1, 10_000), st.integers(0, 2**32 - 1))
def test_draws_stay_within_their_ranges(variant: int, seed: int) -> None:
    transform = draw(ALL, SHA, variant, seed)
    assert abs(transform.rotation) <= 30
    assert abs(transform.shear) <= 15
    assert max(abs(transform.shift_x), abs(transform.shift_y)) <= 0.2
    assert all(0.7 <= zoom <= 1.3 for zoom in (transform.zoom_x, transform.zoom_y))
    assert 0.5 <= transform.brightness <= 1.5


def test_about_half_is_flipped_each_way() -> None:
    draws = [draw(ALL, SHA, variant, 7) for variant in range(1, 401)]
    for flips in ([d.flip_x for d in draws], [d.flip_y for d in draws]):
        assert 150 < sum(flips) < 250


def test_ranges_of_zero_are_the_identity(noise: NDArray[np.uint8]) -> None:
    assert draw(NOTHING, SHA, 1, 7) == STILL
    np.testing.assert_array_equal(apply(noise, STILL, "constant"), noise)


def test_flips_are_exact(noise: NDArray[np.uint8]) -> None:
    np.testing.assert_array_equal(apply(noise, replace(STILL, flip_x=True), "constant"), noise[:, ::-1])
    np.testing.assert_array_equal(apply(noise, replace(STILL, flip_y=True), "constant"), noise[::-1])


def test_a_positive_shift_moves_right_and_down() -> None:
    image = dot(4, 6)
    assert brightest(apply(image, replace(STILL, shift_x=3 / 17), "constant")) == (4, 9)
    assert brightest(apply(image, replace(STILL, shift_y=3 / 17), "constant")) == (7, 6)
    assert brightest(apply(image, replace(STILL, shift_y=-3 / 17), "constant")) == (1, 6)


def test_a_quarter_turn_is_exact_and_clockwise(noise: NDArray[np.uint8]) -> None:
    rotated_image = apply(noise, replace(STILL, rotation=90), "nearest")
    np.testing.assert_array_equal(rotated_image, np.rot90(noise, -1))
    assert brightest(apply(dot(8, 14), replace(STILL, rotation=90), "constant")) == (14, 8)


def test_the_turn_is_about_the_centre() -> None:
    for rotation in (30, 90, 137, -45):
        assert brightest(apply(dot(8, 8), replace(STILL, rotation=rotation), "constant")) == (8, 8)


def test_a_zoom_above_one_shows_more_like_in_keras() -> None:
    assert brightest(apply(dot(8, 14), replace(STILL, zoom_x=2, zoom_y=2), "nearest")) == (8, 11)
    assert brightest(apply(dot(8, 10), replace(STILL, zoom_x=0.5, zoom_y=0.5), "nearest")) == (8, 12)


def test_shear_slants_rows_but_not_the_middle_one() -> None:
    column = np.zeros((17, 17, 3), np.uint8)
    column[8] = 200
    slanted = apply(column, replace(STILL, shear=30), "constant")
    top = [int(slanted[:, x, 0].argmax()) for x in (4, 8, 12)]
    assert top[1] == 8
    assert top[0] != top[2]


@pytest.mark.parametrize(
    ("fill_mode", "left"),
    [("constant", [0, 0, 0]), ("nearest", [10, 10, 10]), ("reflect", [30, 20, 10]), ("wrap", [60, 70, 80])],
)
def test_every_fill_mode_has_the_meaning_of_its_name(fill_mode: str, left: list[int]) -> None:
    row = np.arange(10, 90, 10, dtype=np.uint8)
    pixels = np.broadcast_to(row[None, :, None], (8, 8, 3)).copy()
    shifted_image = apply(pixels, replace(STILL, shift_x=3 / 8), fill_mode)
    assert shifted_image[0, :, 0].tolist() == [*left, 10, 20, 30, 40, 50]


def test_values_between_pixels_are_interpolated_and_rounded() -> None:
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[:, 2:] = 13
    assert apply(pixels, replace(STILL, shift_x=0.5 / 4), "nearest")[0, :, 0].tolist() == [0, 0, 7, 13]


def test_brightness_scales_rounds_and_clips() -> None:
    pixels = np.array([[[0, 101, 255]]], np.uint8)
    assert apply(pixels, replace(STILL, brightness=0.5), "constant").tolist() == [[[0, 51, 128]]]
    assert apply(pixels, replace(STILL, brightness=2), "constant").tolist() == [[[0, 202, 255]]]
    assert apply(pixels, replace(STILL, brightness=0), "constant").max() == 0


@pytest.mark.parametrize("fill_mode", FILL_MODES)
def test_shape_and_dtype_stay_and_the_input_is_untouched(noise: NDArray[np.uint8], fill_mode: str) -> None:
    before = noise.copy()
    noise.setflags(write=False)  # like a memory-mapped shard
    out = apply(noise, draw(ALL, SHA, 1, 7), fill_mode)
    assert (out.shape, out.dtype) == (noise.shape, np.uint8)
    assert out.flags.c_contiguous
    np.testing.assert_array_equal(noise, before)
    assert not np.array_equal(out, noise)
