"""Find near-copies: images that are the same except that they are resized, recompressed, made brighter or darker.

Images are compared by thumbnails of 32x32 pixels. Their averages over 2x2 pixels must agree, except in brightness and
contrast. The details that the averages lack must agree too, so that images of one pattern with different noise are not
near-copies. Not all pairs are compared: the signs of 64 random projections of the averages are a code (Charikar,
"Similarity Estimation Techniques from Rounding Algorithms", STOC 2002), and only images are compared whose codes agree,
except in one bit, in one of four bands of 16 bits (Norouzi, Punjani and Fleet, "Fast Search in Hamming Space with
Multi-Index Hashing", CVPR 2012). The projections weigh fine structure as much as coarse structure, so that different
images of a similar scene are rarely compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
from numpy.typing import NDArray

from frostline.data.images import Pixels
from frostline.ingest import thumbnails

SIDE = thumbnails.SIDE // 2  # of the averages

# The share of the averages' variance that the other image doesn't explain. In benchmarks/near_copies.py that of copies
# rarely exceeds this, and no two different photos of its sets come below it.
TOLERANCE = 0.04
BITS, BANDS = 64, 4
BAND_BITS = BITS // BANDS
FAR = 12  # codes that differ in more bits belong to different images
BLOCK = 1 << 17  # pairs of codes in memory at a time
COMPARED = 1 << 7  # pairs of thumbnails in memory at a time
CLIPPED = 20  # grey levels: pixels closer than this to black or white may be clipped
DETAIL = 0.25  # correlation of the details that the averages lack; that of copies is higher, unless there are none
FAINT = 2.0  # grey levels of root mean square: fainter details come from compression
PLAIN = 5.0  # grey levels of standard deviation: an image with less is of a single colour

RowNumbers = NDArray[np.int64]
Read = Callable[[RowNumbers], Pixels]


def find(count: int, read: Read) -> NDArray[np.int64]:
    """Pairs of near-copies, each once: int64 (pairs, 2), the smaller row first.

    count: number of thumbnails; read: returns the thumbnails of some rows, uint8 (rows, 32, 32, 3). If many thumbnails
    have the same code, not all of their pairs are returned, but enough to connect them.
    """
    if not count:
        return np.empty((0, 2), np.int64)
    codes = np.empty(count, np.uint64)
    for start in range(0, count, COMPARED):
        rows = np.arange(start, min(start + COMPARED, count))
        codes[rows] = encode(read(rows))
    copies, rows = _same_code(codes, read)
    copy_pairs = [copies]
    for pairs in _candidates(codes[rows]):
        pairs = rows[pairs]
        copy_pairs.append(pairs[_is_copy(pairs, read)])
    all_pairs = np.concatenate(copy_pairs)
    all_pairs.sort(axis=1)
    return all_pairs


def encode(images: Pixels) -> NDArray[np.uint64]:
    """Codes of thumbnails, uint8 (n, 32, 32, 3) to uint64 (n,). Brightness and contrast don't change a code."""
    signs = _averages(images).reshape(len(images), -1) @ _projections() > 0
    return np.packbits(signs, axis=1, bitorder="little").view(np.uint64)[:, 0]


@cache
def _projections() -> NDArray[np.float32]:
    """Random directions in the space of the averages' cosine transform, weighted by frequency: float32 (768, 64)."""
    place, frequency = np.arange(SIDE), np.arange(SIDE)[:, None]
    cosines = np.cos(np.pi * (2 * place + 1) * frequency / (2 * SIDE)) * np.sqrt(2 / SIDE)
    cosines[0] = np.sqrt(1 / SIDE)
    # The amplitudes of natural images fall with the frequency. Multiplied by the frequency, all count alike.
    weight = np.hypot(place, frequency)[:, :, None, None]
    directions = np.random.default_rng(16).standard_normal((SIDE, SIDE, 3, BITS)) * weight
    return np.einsum("fy,gx,fgcb->yxcb", cosines, cosines, directions).reshape(-1, BITS).astype(np.float32)


def _same_code(codes: NDArray[np.uint64], read: Read) -> tuple[NDArray[np.int64], RowNumbers]:
    """Pairs of near-copies with the same code, and the rows that must still be compared with other codes.

    Each row is compared only with the first row of its code, because thousands of empty pages would be millions of
    pairs.
    """
    _, first, number = np.unique(codes, return_index=True, return_inverse=True)
    pairs = np.stack([first[number], np.arange(len(codes))], axis=1)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    copies = pairs[_is_copy(pairs, read)]
    return copies, np.setdiff1d(np.arange(len(codes)), copies[:, 1])


def _candidates(codes: NDArray[np.uint64]) -> Iterator[NDArray[np.int64]]:
    """Pairs of rows, each once, whose codes are near and agree in a band, except in one bit: int64 (pairs, 2)."""
    bands = codes.view(np.uint16).reshape(-1, BANDS).T  # BAND_BITS is 16, and band 0 holds the lowest bits
    for number, band in enumerate(bands):
        order = np.argsort(band, kind="stable")
        ranked = band[order].astype(np.int64)
        for flip in (0, *(1 << bit for bit in range(BAND_BITS))):
            other = ranked ^ flip
            start, end = np.searchsorted(ranked, other, "left"), np.searchsorted(ranked, other, "right")
            # Yield each pair from one side only.
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
    is_copy = np.empty(len(pairs), np.bool_)
    for start in range(0, len(pairs), COMPARED):
        part = pairs[start : start + COMPARED]
        is_copy[start : start + COMPARED] = are_copies(read(part[:, 0]), read(part[:, 1]))
    return is_copy


def are_copies(one: Pixels, other: Pixels) -> NDArray[np.bool_]:
    """Which pairs of thumbnails, uint8 (n, 32, 32, 3) twice, are near-copies: bool (n,)."""
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
    """The difference of averages, float32 (n, 16, 16, 3) twice to (n,): 0 if they are the same, from 1 on unrelated.

    It is the smaller one of both directions: a brightened image can be computed from the original, but if it is clipped
    at white, the original can't be computed from it.
    """
    flat = [images.reshape(len(images), -1) for images in (one, other)]
    return np.minimum(_unexplained(flat[0], flat[1]), _unexplained(flat[1], flat[0]))


def _unexplained(source: NDArray[np.float32], target: NDArray[np.float32]) -> NDArray[np.float32]:
    """The share of a target's variance that its source doesn't explain after a linear fit clipped to 0..255.

    source, target: one image per row, (n, values) twice to (n,).
    """
    inside = np.ones_like(source)
    for image in (source, target):
        inside *= (image > CLIPPED) & (image < 255 - CLIPPED)
    inside[inside.mean(axis=1) < 0.15] = 1  # too few pixels for a fit
    weight = inside / inside.sum(axis=1, keepdims=True)
    means = [(image * weight).sum(axis=1, keepdims=True) for image in (source, target)]
    around = source - means[0]
    spread = (around * around * weight).sum(axis=1, keepdims=True)
    factor = (around * (target - means[1]) * weight).sum(axis=1, keepdims=True) / np.maximum(spread, 1e-6)
    fit = np.clip(np.maximum(factor, 0) * around + means[1], 0, 255)  # a negative is not a near-copy
    variance = target.var(axis=1)
    is_plain = np.minimum(variance, source.var(axis=1)) < PLAIN**2
    fit[is_plain] = source[is_plain]  # a shift would turn any plain image into any other
    return ((target - fit) ** 2).mean(axis=1) / np.maximum(variance, PLAIN**2)
