"""Which images are copies of each other though their pixels differ: resized, recompressed, made brighter or darker.

Images are compared by thumbnails of 32x32 pixels: their averages over 2x2 pixels must agree but for brightness and
contrast, and what the averages lack must not contradict it, so that images of one pattern with noise of their own are
told apart. Candidates are found without comparing all with all: the signs of 64 random projections of the averages are
a code (Charikar, "Similarity Estimation Techniques from Rounding Algorithms", STOC 2002), and only those are compared
whose codes agree, but for one bit, in one of four bands of 16 bits (Norouzi, Punjani and Fleet, "Fast Search in Hamming
Space with Multi-Index Hashing", CVPR 2012). The projections weigh fine structure as much as coarse, so that other
photos of a like scene are rarely compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
from numpy.typing import NDArray

from frostline.data.images import Pixels
from frostline.ingest import thumbnails

SIDE = thumbnails.SIDE // 2  # of the averages

# Of the averages' variance, what the other's don't explain. benchmarks/near_copies.py: that of copies rarely exceeds
# this, and no two different photos of its sets come below.
TOLERANCE = 0.04
BITS, BANDS = 64, 4
BAND_BITS = BITS // BANDS
FAR = 12  # codes that differ in more bits are of different images
BLOCK = 1 << 17  # pairs of codes held at a time
COMPARED = 1 << 7  # pairs of thumbnails held at a time
CLIPPED = 20  # closer than this to black or white a brightened image may have been cut off
DETAIL = 0.25  # correlation of what the averages lack; of copies it is higher, unless there is nothing
FAINT = 2.0  # grey levels of root mean square: details below are those of a compression
PLAIN = 5.0  # grey levels of standard deviation, up to which an image is all of one colour

RowNumbers = NDArray[np.int64]
Read = Callable[[RowNumbers], Pixels]


def find(count: int, read: Read) -> NDArray[np.int64]:
    """Pairs of near-copies, none twice: int64 (pairs, 2), the smaller row first.

    count: number of thumbnails; read: gives the thumbnails of some rows, uint8 (rows, 32, 32, 3). Of many thumbnails
    with one code not all pairs are given, but enough to connect them.
    """
    if not count:
        return np.empty((0, 2), np.int64)
    codes = np.empty(count, np.uint64)
    for start in range(0, count, COMPARED):
        rows = np.arange(start, min(start + COMPARED, count))
        codes[rows] = encode(read(rows))
    copies, rows = _same_code(codes, read)
    found = [copies]
    for pairs in _candidates(codes[rows]):
        pairs = rows[pairs]
        found.append(pairs[_is_copy(pairs, read)])
    return np.sort(np.concatenate(found), axis=1)


def encode(images: Pixels) -> NDArray[np.uint64]:
    """Codes of thumbnails, uint8 (n, 32, 32, 3) to uint64 (n,); brightness and contrast don't change them."""
    signs = _averages(images).reshape(len(images), -1) @ _projections() > 0
    return np.packbits(signs, axis=1, bitorder="little").view(np.uint64)[:, 0]


@cache
def _projections() -> NDArray[np.float32]:
    """Random directions in the space of the averages' cosine transform, frequencies weighed: float32 (768, 64)."""
    place, frequency = np.arange(SIDE), np.arange(SIDE)[:, None]
    cosines = np.cos(np.pi * (2 * place + 1) * frequency / (2 * SIDE)) * np.sqrt(2 / SIDE)
    cosines[0] = np.sqrt(1 / SIDE)
    # Amplitudes of natural images fall with the frequency; times the frequency, all of them count alike.
    weight = np.hypot(place, frequency)[:, :, None, None]
    drawn = np.random.default_rng(16).standard_normal((SIDE, SIDE, 3, BITS)) * weight
    return np.einsum("fy,gx,fgcb->yxcb", cosines, cosines, drawn).reshape(-1, BITS).astype(np.float32)


def _same_code(codes: NDArray[np.uint64], read: Read) -> tuple[NDArray[np.int64], RowNumbers]:
    """Pairs of near-copies that have one code, and the rows that others have still to be compared with.

    Thousands of empty pages would be millions of pairs: each is compared with the first of its code alone.
    """
    _, first, number = np.unique(codes, return_index=True, return_inverse=True)
    pairs = np.stack([first[number], np.arange(len(codes))], axis=1)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    copies = pairs[_is_copy(pairs, read)]
    return copies, np.setdiff1d(np.arange(len(codes)), copies[:, 1])


def _candidates(codes: NDArray[np.uint64]) -> Iterator[NDArray[np.int64]]:
    """Pairs of rows, none twice, whose codes agree in a band but for one bit and are near; int64 (pairs, 2)."""
    bands = [codes >> np.uint64(band * BAND_BITS) & np.uint64(2**BAND_BITS - 1) for band in range(BANDS)]
    for number, band in enumerate(bands):
        keys = band.astype(np.int64)
        order = np.argsort(keys, kind="stable")
        ranked = keys[order]
        for flip in (0, *(1 << bit for bit in range(BAND_BITS))):
            other = ranked ^ flip
            start, end = np.searchsorted(ranked, other, "left"), np.searchsorted(ranked, other, "right")
            # Each pair from one side alone.
            start = np.where(other == ranked, np.arange(len(ranked)) + 1, np.where(other > ranked, start, end))
            for one, two in _expanded(order, start, end):
                is_new = np.bitwise_count(codes[one] ^ codes[two]) <= FAR
                for earlier in bands[:number]:
                    is_new &= np.bitwise_count(earlier[one] ^ earlier[two]) > 1
                if is_new.any():
                    yield np.stack([one[is_new], two[is_new]], axis=1)


def _expanded(order: RowNumbers, start: RowNumbers, end: RowNumbers) -> Iterator[tuple[RowNumbers, RowNumbers]]:
    """All pairs (order[i], order[start[i]:end[i]]), block by block."""
    counts = end - start
    total = np.cumsum(counts)
    first = 0
    while first < len(counts):
        before = total[first - 1] if first else 0
        last = max(int(np.searchsorted(total, before + BLOCK, "right")), first + 1)
        size = counts[first:last]
        left = np.repeat(np.arange(first, last), size)
        right = np.arange(len(left)) - np.repeat(np.cumsum(size) - size, size) + np.repeat(start[first:last], size)
        yield order[left], order[right]
        first = last


def _is_copy(pairs: NDArray[np.int64], read: Read) -> NDArray[np.bool_]:
    """Which pairs of rows are near-copies, bool (pairs,)."""
    found = np.empty(len(pairs), np.bool_)
    for start in range(0, len(pairs), COMPARED):
        part = pairs[start : start + COMPARED]
        found[start : start + COMPARED] = are_copies(read(part[:, 0]), read(part[:, 1]))
    return found


def are_copies(one: Pixels, other: Pixels) -> NDArray[np.bool_]:
    """Which pairs of thumbnails, uint8 (n, 32, 32, 3) twice, are of copies: bool (n,)."""
    averages = [_averages(images) for images in (one, other)]
    is_alike = difference(*averages) < TOLERANCE
    details = [
        (images - average.repeat(2, axis=1).repeat(2, axis=2)).reshape(len(images), -1)
        for images, average in zip((one, other), averages, strict=True)
    ]
    energies = [(detail * detail).mean(axis=1) for detail in details]
    product = (details[0] * details[1]).mean(axis=1)
    is_faint = np.minimum(*energies) < FAINT**2
    return is_alike & (is_faint | (product > DETAIL * np.sqrt(energies[0] * energies[1])))


def _averages(images: Pixels) -> NDArray[np.float32]:
    """Thumbnails averaged over 2x2 pixels: uint8 (n, 32, 32, 3) to float32 (n, 16, 16, 3)."""
    wide = images.astype(np.float32)
    rows = wide[:, ::2] + wide[:, 1::2]
    return (rows[:, :, ::2] + rows[:, :, 1::2]) * np.float32(0.25)


def difference(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """How unlike averages are, float32 (n, 16, 16, 3) twice to (n,): 0 the same, from 1 on unrelated.

    It is the lesser of both directions: a brightened image can be computed from the original, but where it was cut
    off at white not the original from it.
    """
    flat = [images.reshape(len(images), -1) for images in (one, other)]
    return np.minimum(_unexplained(flat[0], flat[1]), _unexplained(flat[1], flat[0]))


def _unexplained(source: NDArray[np.float32], target: NDArray[np.float32]) -> NDArray[np.float32]:
    """The share of a target's variance that its source, times a factor, plus a shift, cut to 0..255, doesn't explain.

    RowNumbers of values, (n, values) twice to (n,).
    """
    inside = np.ones_like(source)
    for image in (source, target):
        inside *= (image > CLIPPED) & (image < 255 - CLIPPED)
    inside[inside.mean(axis=1) < 0.15] = 1  # too little to fit by
    weight = inside / inside.sum(axis=1, keepdims=True)
    means = [(image * weight).sum(axis=1, keepdims=True) for image in (source, target)]
    around = source - means[0]
    spread = (around * around * weight).sum(axis=1, keepdims=True)
    factor = (around * (target - means[1]) * weight).sum(axis=1, keepdims=True) / np.maximum(spread, 1e-6)
    fitted = np.clip(np.maximum(factor, 0) * around + means[1], 0, 255)  # a negative is another image
    variance = target.var(axis=1)
    is_plain = np.minimum(variance, source.var(axis=1)) < PLAIN**2
    fitted[is_plain] = source[is_plain]  # a shift would make any plain image another one
    return ((target - fitted) ** 2).mean(axis=1) / np.maximum(variance, PLAIN**2)
