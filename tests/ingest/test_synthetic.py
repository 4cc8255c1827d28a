"""Generated images are pure functions of seed, class and instance."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from frostline.ingest.synthetic import LETTERS, Synthetic, _system

IMAGES = Synthetic(fractals=2, letters=2, size=24, seed=3)


def test_classes_are_named_fractals_first() -> None:
    assert IMAGES.classes == ("fractal-0000", "fractal-0001", "letter-0041", "letter-0042")
    assert len(set(Synthetic(0, len(LETTERS), 8, 0).classes)) == len(LETTERS)


def test_equal_objects_give_equal_images() -> None:
    twin = replace(IMAGES)
    for label in range(4):
        pixels = IMAGES.image(label, 1)
        assert (pixels.shape, pixels.dtype) == ((24, 24, 3), np.uint8)
        np.testing.assert_array_equal(twin.image(label, 1), pixels)
    _system.cache_clear()  # the cache of systems must not matter
    np.testing.assert_array_equal(IMAGES.image(0, 0), twin.image(0, 0))


def test_seed_class_and_instance_each_make_another_image() -> None:
    other = replace(IMAGES, seed=4)
    images = [IMAGES.image(label, instance) for label in range(4) for instance in range(3)]
    images += [other.image(label, 0) for label in range(4)]
    assert len({pixels.tobytes() for pixels in images}) == len(images)


def test_a_class_keeps_its_images_when_classes_are_added() -> None:
    np.testing.assert_array_equal(replace(IMAGES, letters=3).image(2, 0), IMAGES.image(2, 0))


def test_no_image_is_empty() -> None:
    assert all(IMAGES.image(label, instance).std() > 5 for label in range(4) for instance in range(5))
