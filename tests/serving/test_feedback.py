"""What people say images are: a table that a training reads."""

import hashlib

import pytest
from hostile_requests import photo

from frostline.errors import UserError
from frostline.ingest import tables
from frostline.serving.feedback import Feedback, Kept
from frostline.serving.payload import RefusedRequestError
from frostline.serving.scoring import UNKNOWN

CAT, DOG, OWL = photo(seed=1), photo("JPEG", seed=2), photo("TIFF", seed=3)


def test_an_image_is_one_row_in_which_the_last_answer_counts(tmp_path):
    table = tmp_path / "feedback.csv"
    feedback = Feedback(table, Kept())
    for image, label in ((CAT, "dog"), (DOG, "dog, brown"), (CAT, "cat"), (OWL, UNKNOWN)):
        feedback.keep(image, label)
    Feedback(table, Kept()).keep(DOG, "dog")  # after a restart
    listing = tables.listed(table)
    assert [(row.path, row.label) for row in listing.rows] == [
        (f"feedback-images/{hashlib.sha256(image).hexdigest()}{suffix}", label)
        for image, suffix, label in ((CAT, ".png", "cat"), (DOG, ".jpg", "dog"), (OWL, "", UNKNOWN))
    ]
    assert [(tmp_path / row.path).read_bytes() for row in listing.rows] == [CAT, DOG, OWL]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["feedback-images", "feedback.csv"]


@pytest.mark.parametrize("most", [Kept(images=1), Kept(size=len(CAT) + len(DOG) - 1)])
def test_no_more_is_kept_than_the_owner_wants(tmp_path, most):
    feedback = Feedback(tmp_path / "feedback.csv", most)
    feedback.keep(CAT, "cat")
    for keeper in (feedback, Feedback(feedback.table, most)):
        with pytest.raises(RefusedRequestError, match="keeps no more answers") as refusal:
            keeper.keep(DOG, "dog")
        assert refusal.value.status == 507
        keeper.keep(CAT, "tiger")  # a new answer for an image that is there needs no room
    assert [row.label for row in tables.listed(feedback.table).rows] == ["tiger"]
    assert len(list(feedback.folder.iterdir())) == 1


@pytest.mark.parametrize("text", ["a,b\n1,2\n", "path,label\nonly one\n", "", "path,label,split\n"])
def test_another_table_is_not_overwritten(tmp_path, text):
    (tmp_path / "mine.csv").write_text(text)
    with pytest.raises(UserError, match=r"--feedback .*mine.csv: is another table; name a new file"):
        Feedback(tmp_path / "mine.csv", Kept())
    assert (tmp_path / "mine.csv").read_text() == text
