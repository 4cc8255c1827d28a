"""From the bytes of a JPEG or PNG file to an upright RGB image, inside an exported graph, like `data.images.load`.

TensorFlow's decoders give Pillow's pixels. ONNX Runtime's give other ones, and not for every file: `foreign`.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from frostline.data import deep_grey
from frostline.data.shards import Layout

if TYPE_CHECKING:
    import tensorflow as tf

JPEG, PNG = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"  # how their files begin
NEITHER = "not a JPEG or PNG file"
SCALES = (1, 2, 4, 8)  # at whose fraction a JPEG can be decoded
EXIF = b"Exif\0\0", b"eXIf"  # what stands before EXIF data: in a JPEG, in a PNG
ORIENTATION = 0x0112  # the tag in EXIF data
MOST_TAGS = 512  # that are looked at


def own(data: tf.Tensor, layout: Layout) -> tf.Tensor:
    """Decode a file by TensorFlow: its bytes, a string, to uint8 (height, width, 3). Other files raise an error."""
    import tensorflow as tf

    octets = tf.io.decode_raw(data, tf.uint8)
    is_jpeg = _begins(octets, JPEG)
    with tf.control_dependencies([tf.debugging.Assert(is_jpeg | _begins(octets, PNG), [NEITHER])]):
        image = tf.cond(is_jpeg, lambda: _jpeg(data, layout.image_size), lambda: _png(data, octets, layout))
    return upright(image, orientation(octets))


def foreign(octets: tf.Tensor, layout: Layout) -> tf.Tensor:
    """Decode a file by the decoder of another runtime: uint8 (n,) to uint8 (height, width, 3).

    A Python function stands for the decoder, see onnx_operations.py. That of onnxruntime-extensions 0.15 ends the
    process where a file is neither JPEG nor PNG, never returns where a JPEG is cut off, corrupts its memory where a
    JPEG is not of three colours, and forgets transparency. So such files, and PNGs that are cut off or have grey of 16
    bits, are kept from it: the runtime refuses to reshape.
    """
    import tensorflow as tf

    header = tf.concat([octets, tf.zeros(32, tf.uint8)], 0)
    depth, kind = header[24], header[25]
    has_alpha = (kind == 4) | (kind == 6) | _has(octets, b"tRNS")
    is_png = _begins(octets, PNG) & ~has_alpha & ~((depth == 16) & (kind == 0)) & _has(octets, b"IEND")
    is_taken = is_png | (_begins(octets, JPEG) & _is_colour_jpeg(octets))
    taken = tf.where(is_taken, tf.size(octets), 0)
    image = tf.numpy_function(np.asarray, [tf.concat([octets[:taken], _dot()[taken:]], 0)], tf.uint8)
    shape = tf.shape(image)
    image = tf.reshape(image, tf.stack([shape[0], shape[1], 4 - tf.cast(is_taken, tf.int32)]))
    return upright(tf.gather(image, (2, 1, 0), axis=2), orientation(octets))  # it gives BGR


def _is_colour_jpeg(octets: tf.Tensor) -> tf.Tensor:
    """Whether all frames of a JPEG, with that of its thumbnail, have three colours, and the last one has an end.

    Source of the markers: ITU-T T.81, annex B.
    """
    import tensorflow as tf

    padded = tf.cast(tf.concat([octets, tf.zeros(10, tf.uint8)], 0), tf.int32)
    part = [padded[i : tf.size(octets) + i] for i in range(10)]
    kind, length, colours, is_marker = part[1], part[2] * 256 + part[3], part[9], tf.equal(part[0], 0xFF)
    is_frame = is_marker & (kind >= 0xC0) & (kind <= 0xC2) & (part[4] == 8) & tf.equal(length, 8 + 3 * colours)
    places = 1 + tf.range(tf.size(octets))
    last_frame = tf.reduce_max(tf.where(is_frame, places, 0))
    last_end = tf.reduce_max(tf.where(is_marker & tf.equal(kind, 0xD9), places, 0))
    return (last_frame > 0) & (last_frame < last_end) & ~tf.reduce_any(is_frame & (colours != 3))


def _dot() -> tf.Tensor:
    """The bytes of a PNG of one pixel, which is decoded in place of what is not an image."""
    import tensorflow as tf

    file = BytesIO()
    Image.new("RGB", (1, 1)).save(file, "PNG")
    return tf.constant(np.frombuffer(file.getvalue(), np.uint8))


def _begins(octets: tf.Tensor, mark: bytes) -> tf.Tensor:
    """Whether a file begins with these bytes."""
    import tensorflow as tf

    padded = tf.concat([octets, tf.zeros(len(mark), tf.uint8)], 0)
    return tf.reduce_all([padded[i] == each for i, each in enumerate(mark)])


def _has(octets: tf.Tensor, chunk: bytes) -> tf.Tensor:
    """Whether a PNG has a chunk with this name."""
    import tensorflow as tf

    return tf.reduce_max(tf.concat([_matches(octets, chunk), [0]], 0)) == 1


def orientation(octets: tf.Tensor) -> tf.Tensor:
    """The EXIF orientation in the bytes of a JPEG or PNG file, uint8 (n,): int32, 1 to 8; 1 if there is none.

    Source of the layout: TIFF 6.0, section 2, and CIPA DC-008 (EXIF 2.32).
    """
    import tensorflow as tf

    size = tf.size(octets)
    padded = tf.concat([tf.cast(octets, tf.int32), tf.zeros(32, tf.int32)], 0)
    places = [_place(padded, size, mark) for mark in EXIF]
    start = tf.reduce_max(tf.stack(places))
    is_little = padded[tf.maximum(start, 0)] == ord("I")

    def number(places: tf.Tensor, count: int) -> tf.Tensor:
        """The numbers of `count` bytes that stand at these places."""
        parts = [tf.gather(padded, tf.clip_by_value(places + i, 0, size + 31)) for i in range(count)]
        little = sum(part * 256**i for i, part in enumerate(parts))
        big = sum(part * 256**i for i, part in enumerate(reversed(parts)))
        return tf.where(is_little, little, big)

    directory = start + tf.clip_by_value(number(start + 4, 4), 0, size)
    entries = directory + 2 + 12 * tf.range(tf.clip_by_value(number(directory, 2), 0, MOST_TAGS))
    is_tag = (number(entries, 2) == ORIENTATION) & (entries + 12 <= size)
    value = tf.reduce_max(tf.where(is_tag, number(entries + 8, 2), 0))
    return tf.where((start >= 0) & (value >= 1) & (value <= 8), value, 1)


def upright(image: tf.Tensor, turned: tf.Tensor) -> tf.Tensor:
    """Apply an EXIF orientation, 1 to 8, to an image, uint8 (height, width, 3)."""
    import tensorflow as tf

    def when(condition: tf.Tensor, change: Callable[[tf.Tensor], tf.Tensor], image: tf.Tensor) -> tf.Tensor:
        return tf.cond(condition, lambda: change(image), lambda: image)

    image = when(turned > 4, lambda each: tf.transpose(each, (1, 0, 2)), image)
    image = when(_is_one_of(turned, (2, 3, 6, 7)), lambda each: each[:, ::-1], image)
    return when(_is_one_of(turned, (3, 4, 7, 8)), lambda each: each[::-1], image)


def _is_one_of(number: tf.Tensor, numbers: tuple[int, ...]) -> tf.Tensor:
    import tensorflow as tf

    return tf.reduce_any(tf.equal(number, tf.constant(numbers)))


def _place(octets: tf.Tensor, size: tf.Tensor, mark: bytes) -> tf.Tensor:
    """Where the TIFF header behind the first `mark` begins, -1 if there is none. octets: int32 (size + 32,)."""
    import tensorflow as tf

    found = _matches(octets[: size + len(mark) - 1], mark)
    start = tf.argmax(found, output_type=tf.int32) + len(mark)
    is_header = (octets[start] == octets[start + 1]) & ((octets[start] == ord("I")) | (octets[start] == ord("M")))
    return tf.where((tf.reduce_max(found) == 1) & is_header, start, -1)


def _matches(octets: tf.Tensor, mark: bytes) -> tf.Tensor:
    """At which places `mark` stands, int32 of 0 and 1. octets: (n,) of any dtype."""
    import tensorflow as tf

    places = tf.size(octets) - len(mark) + 1
    equal = [tf.equal(octets[i : places + i], tf.cast(each, octets.dtype)) for i, each in enumerate(mark)]
    return tf.cast(tf.reduce_all(equal, axis=0), tf.int32)


def _jpeg(data: tf.Tensor, size: int) -> tf.Tensor:
    """Decode a JPEG at the fraction of its size that Pillow's draft mode picks: neither side shorter than `size`."""
    import tensorflow as tf

    shape = tf.io.extract_jpeg_shape(data)
    spare = tf.minimum(shape[0], shape[1]) // size
    number = tf.reduce_sum(tf.cast(spare >= list(SCALES[1:]), tf.int32))

    def at(scale: int) -> Callable[[], tf.Tensor]:
        return lambda: tf.io.decode_jpeg(data, 3, scale, fancy_upscaling=True, dct_method="INTEGER_ACCURATE")

    return tf.switch_case(number, [at(scale) for scale in SCALES])


def _png(data: tf.Tensor, octets: tf.Tensor, layout: Layout) -> tf.Tensor:
    """Decode a PNG. Grey of 16 bits is mapped as `data.deep_grey` does, what is transparent lies over white."""
    import tensorflow as tf

    is_deep_grey = (octets[24] == 16) & (octets[25] == 0)  # bit depth and colour type, in the header

    def deep() -> tf.Tensor:
        grey = tf.cast(tf.io.decode_png(data, 1, tf.uint16), tf.float64)
        low, high = _ends(layout)
        scale = 255 / (high - low) if high != low else 1.0
        return tf.repeat(tf.cast(tf.clip_by_value((grey - low) * scale, 0, 255) + 0.5, tf.uint8), 3, -1)

    # Where it makes up an alpha channel for less than 8 bits, TensorFlow 2.21 fills it with less than 255.
    is_opaque = (octets[24] < 8) & ~_has(octets, b"tRNS")

    def shown() -> tf.Tensor:
        return tf.cond(is_opaque, lambda: tf.io.decode_png(data, 3), lambda: over_white(tf.io.decode_png(data, 4)))

    return tf.cond(is_deep_grey, deep, shown)


def _ends(layout: Layout) -> tuple[float, float]:
    """The values of black and white of grey PNGs with 16 bits."""
    return layout.grey_range if isinstance(layout.grey_range, tuple) else deep_grey.UNSIGNED_16


def over_white(image: tf.Tensor) -> tf.Tensor:
    """uint8 RGBA (height, width, 4) laid over white, as Pillow's `alpha_composite` rounds: uint8 RGB."""
    import tensorflow as tf

    values = tf.cast(image, tf.int32)
    alpha = values[..., 3:]
    total = (values[..., :3] * alpha + 255 * (255 - alpha)) * 128 + 128 * 128
    return tf.cast(((total // 256 + total) // 256) // 128, tf.uint8)
