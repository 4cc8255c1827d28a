"""A listing keeps its images in columns, and gives back what was put in, sorted by path."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frostline.ingest import listing
from frostline.ingest.listing import ListedImage, ListedImages
from frostline.ingest.splits import SPLITS

images = st.builds(
    ListedImage,
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    st.sampled_from(["bee", "ant", "\u00e9", "\U0001f41d"]),
    st.sampled_from([None, *SPLITS]),
    st.sampled_from([None, "p", "q"]),
)


@settings(max_examples=60, deadline=None, database=None, derandomize=True)
@given(st.lists(images, unique_by=lambda image: image.path, max_size=30))
def test_the_table_holds_the_images_sorted_by_path(given_images: list[ListedImage]) -> None:
    rows = ListedImages(given_images)
    assert list(rows) == given_images
    assert len(rows) == len(given_images)
    table = rows.table().astype(object)
    found = table.where(table.notna(), None).itertuples(index=False, name=None)
    assert list(found) == sorted(map(tuple, given_images), key=lambda image: image[0])


def test_many_images_are_packed_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "PIECE", 4)
    given_images = [ListedImage(f"{number:02d}", "ab"[number % 2], None, None) for number in range(11)]
    rows = ListedImages(given_images)
    assert list(rows) == given_images
    assert rows.table()["path"].tolist() == [image.path for image in given_images]
    digests = np.frombuffer(b"".join(hashlib.sha256(image.path.encode()).digest() for image in given_images), np.uint8)
    expected = [hashlib.sha256(image.path.encode()).hexdigest() for image in given_images]
    assert listing.hexadecimal(digests.reshape(-1, 32)).tolist() == expected
