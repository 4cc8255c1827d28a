"""The digest of an image depends on what is seen, and not on its name or metadata."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from frostline.ingest.reading import jpeg_digest


def photo(seed: int) -> Image.Image:
    """A smooth random image of mode RGB."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((160, 120), Image.Resampling.BICUBIC)


def test_the_digest_of_a_jpeg_depends_on_its_image_and_not_on_its_metadata() -> None:
    image, exif = photo(5), Image.Exif()
    exif[0x010E] = "a description"

    def save(kind: str = "JPEG", **options: Any) -> bytes:
        buffer = BytesIO()
        image.save(buffer, kind, **options)
        return buffer.getvalue()

    plain = jpeg_digest(save(), 1)
    assert jpeg_digest(save(exif=exif, comment=b"words", icc_profile=b"x" * 3000), 1) == plain
    others = [
        jpeg_digest(save(), 3),
        jpeg_digest(save(quality=80), 1),
    ]
    assert len({plain, *others}) == 3
    assert jpeg_digest(save("PNG"), 1) is None
    for data in (b"", b"\xff\xd8\xff", b"\xff\xd8\xff\xe0", b"\xff\xd8\xff\xff\xff", b"\xff\xd8\xff\xe1\xff\xffx"):
        jpeg_digest(data, 1)
