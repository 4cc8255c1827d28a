"""Grey images with more than 8 bits keep their tones, and DICOM files are read as a viewer shows them."""

from __future__ import annotations

import sys
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from frostline.data import deep_grey, images
from frostline.data.images import UnreadableImageError, decode, load


def encode(values: NDArray[Any], kind: str = "TIFF", **options: Any) -> bytes:
    out = BytesIO()
    Image.fromarray(values).save(out, kind, **options)
    return out.getvalue()


def tones(data: bytes, grey_range: deep_grey.GreyRange = None) -> list[int]:
    """The grey values of the first row of an image."""
    return [int(value) for value in np.asarray(load(data, grey_range=grey_range).image)[0, :, 0]]


def test_the_bounds_are_black_and_white_and_values_outside_are_clipped() -> None:
    values = np.array([[-2000, -1000, 500, 2000, 9000]])
    for dtype in (np.int32, np.float32):
        assert tones(encode(values.astype(dtype)), (-1000.0, 2000.0)) == [0, 0, 128, 255, 255]


def test_12_bits_in_16_keep_all_their_tones() -> None:
    values = np.arange(4096, dtype=np.uint16)[None]
    assert len(set(tones(encode(values, "PNG"), (0.0, 4095.0)))) == 256
    assert len(set(tones(encode(values, "PNG"), "dtype"))) == 17


@pytest.mark.parametrize(
    ("dtype", "kind", "low", "high"),
    [
        (np.uint16, "PNG", 0, 65535),
        (np.uint16, "TIFF", 0, 65535),
        (np.uint16, "PPM", 0, 65535),
        (np.int32, "TIFF", -(2**31), 2**31 - 1),
        (np.float32, "TIFF", 0, 1),
    ],
)
def test_the_range_of_a_type(dtype: type, kind: str, low: int, high: int) -> None:
    values = np.array([[low, (low + high) / 2, high]]).astype(dtype)
    black, grey, white = tones(encode(values, kind), "dtype")
    assert (black, white) == (0, 255)
    assert grey in (127, 128)


def test_without_a_range_only_unsigned_16_bits_have_one() -> None:
    assert tones(encode(np.array([[0, 128 * 257, 65535]], np.uint16), "PNG")) == [0, 128, 255]
    for dtype in (np.int32, np.float32):
        with pytest.raises(UnreadableImageError, match=r"set data\.range and train again"):
            decode(encode(np.zeros((2, 2), dtype)))


def test_dead_and_hot_pixels_do_not_move_the_tones() -> None:
    values = np.random.default_rng(0).integers(100, 4000, (100, 100)).astype(np.uint16)
    values[0, :5], values[1, :5] = 0, 65535
    low, high, _ = deep_grey.tones(values)
    assert 100 <= low < 120
    assert 3980 < high < 4000
    assert deep_grey.tones(np.array([np.nan, np.inf, 1, 2], np.float32))[:2] == (1, 2)
    assert deep_grey.tones(np.array([np.nan], np.float32))[:2] == (0, 0)


def test_the_range_of_a_source_is_that_of_almost_all_its_images() -> None:
    lows, highs = np.full(300, -1000.0), np.linspace(2900, 3000, 300)
    lows[0], highs[1] = -32768, 32767  # one image with a defect each
    low, high = deep_grey.measured(lows, highs)
    assert low == -1000
    assert 2990 < high <= 3000
    assert deep_grey.measured(np.array([0.0, 5.0]), np.array([0.0, 5.0])) == (0, 5)


def test_not_a_number_is_black_and_a_constant_image_has_no_infinite_scale() -> None:
    assert tones(encode(np.array([[np.nan, 7]], np.float32)), (0.0, 7.0)) == [0, 255]
    assert tones(encode(np.array([[7, 7]], np.float32)), "own") == [0, 0]


def test_16_bits_of_colour_are_noticed() -> None:
    # Pillow writes no such PNG, so one is put together: 16 bits, colour type 2, a single pixel.
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"\0" + struct.pack(">HHH", 4095, 65535, 0)))
    loaded = load(b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b""))
    assert loaded.has_deep_colour
    assert np.asarray(loaded.image).tolist() == [[[15, 255, 0]]]
    assert not load(encode(np.zeros((1, 1, 3), np.uint8), "PNG")).has_deep_colour


def dicom(values: NDArray[Any], colours: str = "MONOCHROME2", **tags: Any) -> bytes:
    """A DICOM file with these stored values."""
    pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed")
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    data = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = CTImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
    data.Rows, data.Columns = values.shape[:2]
    data.SamplesPerPixel, data.PhotometricInterpretation = (3 if values.ndim == 3 else 1), colours
    if values.ndim == 3:
        data.PlanarConfiguration = 0
    bits = values.dtype.itemsize * 8
    data.BitsAllocated = data.BitsStored = bits
    data.HighBit, data.PixelRepresentation = bits - 1, int(values.dtype.kind == "i")
    data.PixelData = values.tobytes()
    for name, value in tags.items():
        setattr(data, name, value)
    out = BytesIO()
    pydicom.dcmwrite(out, data, enforce_file_format=True)
    return out.getvalue()


CT = np.array([[0, 1000, 2000, 4000]], np.int16)


def test_dicom_values_are_rescaled_before_the_range_counts() -> None:
    data = dicom(CT, RescaleSlope=1, RescaleIntercept=-1000)
    assert tones(data, (-1000.0, 1000.0)) == [0, 128, 255, 255]
    loaded = load(data, grey_range="own")
    assert loaded.deep is not None
    assert loaded.deep.tolist() == [[-1000, 0, 1000, 3000]]


def test_a_dicom_window_is_used_unless_a_range_is_given() -> None:
    data = dicom(CT, RescaleSlope=1, RescaleIntercept=-1000, WindowCenter=[0.5, 7], WindowWidth=[2001, 9])
    assert tones(data) == tones(data, "own") == [0, 128, 255, 255]
    assert tones(data, (0.0, 3000.0)) == [0, 0, 85, 255]


def test_monochrome1_is_inverted() -> None:
    window = {"WindowCenter": 1000.5, "WindowWidth": 2001}
    assert tones(dicom(CT, "MONOCHROME1", **window)) == [255, 128, 0, 0]
    assert tones(dicom(CT, "MONOCHROME1"), (0.0, 2000.0)) == [255, 128, 0, 0]


def test_colour_dicom_and_its_size() -> None:
    colours = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    np.testing.assert_array_equal(decode(dicom(colours, "RGB")), colours)
    with pytest.raises(UnreadableImageError, match="too many pixels: 6x4"):
        load(dicom(colours, "RGB"), most=23)


def test_a_broken_dicom_file_gets_a_reason() -> None:
    for data in (dicom(CT)[:-3], b"\0" * 128 + b"DICM" + b"rubbish"):
        with pytest.raises(UnreadableImageError):
            decode(data)


def test_without_pydicom_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    data = dicom(CT)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(UnreadableImageError, match=r"pip install 'frostline\[dicom\]'"):
        images.load(data)
