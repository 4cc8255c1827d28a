"""Splits are recognised in the usual spellings, and classes are not taken for splits."""

import pytest

from frostline.ingest.split_names import split_of, split_within

SPELLINGS = {
    "train": [
        "train",
        "Train",
        "TRAINING",
        "x_train",
        "train_set",
        "trainset",
        "train-images",
        "train2017",
        "TrainData",
    ],
    "val": ["val", "valid", "Validation", "dev", "val_images", "validation set", "2_val", "dev-set"],
    "test": [
        "test",
        "Testing",
        "x_test",
        "testset",
        "Evaluation",
        "eval",
        "holdout",
        "hold-out",
        "hold_out",
        "test_data",
    ],
}


@pytest.mark.parametrize(("split", "name"), [(split, name) for split, names in SPELLINGS.items() for name in names])
def test_usual_spellings_name_a_split(split, name):
    assert split_of(name) == split_within(name) == split


@pytest.mark.parametrize(
    "name", ["cat", "test tube", "train station", "trainers", "testudo", "valley", "set", "train_test", ""]
)
def test_other_names_do_not(name):
    assert split_of(name) is None


@pytest.mark.parametrize(("name", "split"), [("seg_train", "train"), ("chest_xray_test", "test"), ("train_val", None)])
def test_a_word_within_a_name_names_a_split_if_it_is_the_only_one(name, split):
    assert split_within(name) == split
