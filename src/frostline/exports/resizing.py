"""Resize an image inside an exported graph to the very pixels that `data.images.fit` gives.

Pillow (libImaging/Resample.c) resizes in two passes, along the rows and along the columns. A pass weighs the pixels
under a triangle, rounds the weights to fixed point of 22 bits, and rounds its result to uint8. Here a pass is a product
with a matrix of those weights. Nothing in it needs more than int32 and float32, which every runtime has:

- the centre and the width of a triangle are multiples of half a pixel divided by the side of the result, so the weights
  are quotients of integers, and a long division gives their 22 bits exactly;
- a weight is split into an upper and a lower part of 11 bits, so that a product of float32 adds up integers that
  float32 holds exactly (below 2^24).

So the result equals Pillow's in every pixel where a side is at most 32 times that of the result, and in practice far
beyond. Only for `pad` may one row or column be more or less where the shorter side comes out at exactly half a pixel:
in 115 of 44,985,000 pairs of sides up to 3000 Python's division rounds such a half differently.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import tensorflow as tf

    from frostline.data.images import Resize

BITS = 11  # of each of the two parts of a weight, whose 22 bits are Pillow's 32 - 8 - 2
DIGITS = (8, 7, 7)  # the bits of a weight that are divided out at a time, so that int32 holds what is divided
LARGEST = 2**22  # the sum of the heights under a triangle, above which they are scaled down: 2^(8 + 22) fits int32


class Axis(NamedTuple):
    """How the pixels of one axis become those of the result, each an int32 scalar.

    length: pixels of the image; start: twice the first pixel of what is taken, which may be half a pixel; taken: the
    pixels that are taken, from there on; given: the pixels that they become; offset: the first of these in the result.
    """

    length: tf.Tensor
    start: tf.Tensor
    taken: tf.Tensor
    given: tf.Tensor
    offset: tf.Tensor


def resize(image: tf.Tensor, size: int, how: Resize) -> tf.Tensor:
    """Like `data.images.fit`, as operations of a graph: uint8 (height, width, 3) to uint8 (size, size, 3)."""
    import tensorflow as tf

    shape = tf.shape(image)
    height, width = _axes(shape[0], shape[1], size, how)
    is_swapped = _is_vertical_first(height, width)
    first, second = (
        Axis(*(tf.where(is_swapped, *pair) for pair in zip(*axes, strict=True)))
        for axes in ((height, width), (width, height))
    )
    planes = tf.reshape(_planes(image, is_swapped), (-1, first.length))  # (3 * length of `second`, length of `first`)
    lines = _pass(planes, _weights(first, size))
    lines = tf.transpose(tf.reshape(lines, (3, -1, size)), (0, 2, 1))
    pixels = _pass(tf.reshape(lines, (3 * size, -1)), _weights(second, size))  # (3 * size of `first`, size of `second`)
    pixels = tf.reshape(pixels, (3, size, size))
    pixels = tf.where(is_swapped, tf.transpose(pixels, (1, 2, 0)), tf.transpose(pixels, (2, 1, 0)))
    return tf.cast(pixels, tf.uint8)


def _planes(image: tf.Tensor, is_swapped: tf.Tensor) -> tf.Tensor:
    """The pixels colour by colour and in them row by row, or column by column if they are swapped: uint8 (n,).

    One of two transposed images is empty: LiteRT 2.3 corrupts its memory if an operation `If` meets a second size.
    """
    import tensorflow as tf

    rows = tf.shape(image)[0]
    swapped = rows * tf.cast(is_swapped, tf.int32)
    kept = tf.transpose(image[: rows - swapped], (2, 0, 1)), tf.transpose(image[:swapped], (2, 1, 0))
    return tf.concat([tf.reshape(each, (-1,)) for each in kept], 0)


def _is_vertical_first(height: Axis, width: Axis) -> tf.Tensor:
    """Whether Pillow resizes the columns before the rows, which it does where this is less work."""
    import tensorflow as tf

    shorter, narrower = height.length - height.given, width.length - width.given
    return tf.logical_and(shorter > 0, shorter > 2 * narrower)


def _axes(height: Any, width: Any, size: int, how: Resize) -> tuple[Axis, Axis]:
    """The axes for the height and the width, as `Image.resize`, `ImageOps.fit` and `ImageOps.pad` choose them."""
    import tensorflow as tf

    zero, whole = tf.constant(0), tf.constant(size)
    if how == "crop":
        side = tf.minimum(height, width)
        first, second = ((each, each - side, side, whole, zero) for each in (height, width))
    elif how == "pad":
        side = tf.maximum(height, width)
        given = [_half_even(each * (2 * size), 2 * side) for each in (height, width)]
        first, second = (
            (each, zero, each, part, _half_even(whole - part, tf.constant(2)))
            for each, part in zip((height, width), given, strict=True)
        )
    else:
        first, second = ((each, zero, each, whole, zero) for each in (height, width))
    return Axis(*first), Axis(*second)


def _half_even(number: tf.Tensor, by: tf.Tensor) -> tf.Tensor:
    """A quotient of integers, at least 0, rounded as Python's `round` does: a half goes to the even neighbour."""
    import tensorflow as tf

    quotient = number // by
    twice = 2 * (number - quotient * by)
    is_up = (twice > by) | ((twice == by) & (quotient % 2 == 1))
    return quotient + tf.cast(is_up, tf.int32)


def _weights(axis: Axis, size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """The upper and lower part of the weights in fixed point, float32 (length, size) each, of integers.

    A weight is upper * 2^BITS + lower, with -2^(BITS - 1) <= lower < 2^(BITS - 1).
    """
    import tensorflow as tf

    given = tf.maximum(axis.given, 1)
    row = tf.range(size) - axis.offset
    # All in units of half a pixel of the image, times `given`: the centre and half the width of the triangle.
    centre = axis.start * given + (2 * row + 1) * axis.taken
    reach = 2 * tf.maximum(axis.taken, given)
    pixel = (2 * tf.range(axis.length) + 1) * given
    height = tf.maximum(reach - tf.abs(pixel[:, None] - centre[None, :]), 0)
    is_inside = (row >= 0) & (row < axis.given)
    height *= tf.cast(is_inside, tf.int32)[None, :]
    # The sum of the heights is about the triangle's area. Only sides of more than 8,000 pixels make it too large.
    area = tf.cast(reach, tf.float32) ** 2 / tf.cast(2 * given, tf.float32)
    height //= 1 + tf.cast(area / LARGEST, tf.int32)
    weight = _quotient(height, tf.maximum(tf.reduce_sum(height, 0, keepdims=True), 1))
    upper = (weight + 2 ** (BITS - 1)) // 2**BITS
    return tf.cast(upper, tf.float32), tf.cast(weight - upper * 2**BITS, tf.float32)


def _quotient(number: tf.Tensor, by: tf.Tensor) -> tf.Tensor:
    """number / by as fixed point of 22 bits, rounded: int32. number: int32, from 0 to `by`."""
    import tensorflow as tf

    quotient = tf.zeros_like(number)
    for bits in DIGITS:
        number *= 2**bits
        digit = number // by
        number -= digit * by
        quotient = quotient * 2**bits + digit
    return quotient + tf.cast(2 * number >= by, tf.int32)


def _pass(pixels: tf.Tensor, weights: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
    """One pass of the resizing: integers in [0, 255] of any dtype, (n, length), to float32 (n, size) of integers."""
    import tensorflow as tf

    pixels = tf.cast(pixels, tf.float32)
    upper, lower = (tf.matmul(pixels, part) for part in weights)
    # (upper * 2^BITS + lower + 2^(2 * BITS - 1)) / 2^(2 * BITS), rounded down, with numbers that stay below 2^24
    total = tf.floor(lower / 2**BITS) + upper + 2 ** (BITS - 1)
    return tf.minimum(tf.floor(total / 2**BITS), 255)
