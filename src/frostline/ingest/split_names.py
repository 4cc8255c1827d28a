"""The names of splits as people spell them, in folders and in tables: `Training`, `x_train`, `train_set`, `dev`."""

from __future__ import annotations

import re

WORDS = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "validate", "dev", "devel", "development"),
    "test": ("test", "testing", "tst", "eval", "evaluation", "holdout"),
}
SPLIT_OF = {word: split for split, words in WORDS.items() for word in words}

# Words that stand beside a split's name and name no class.
FILLER = re.compile(
    "sets?|data|dataset|split|folder|dir|part|subset|x|y|all|new|final|imgs?|images?|pics?|photos?|jpe?g|png|files|samples"
)


def split_of(name: str) -> str | None:
    """The split that a name stands for; None if it stands for none.

    The name may have fillers around the word, and numbers (`train2017`), but no other word: `test tube` is a class.
    """
    words = _words(name)
    splits = {SPLIT_OF[word] for word in words if word in SPLIT_OF}
    if len(splits) == 1 and all(word in SPLIT_OF or FILLER.fullmatch(word) or word.isdigit() for word in words):
        return splits.pop()
    return None


def split_within(name: str) -> str | None:
    """The split whose word is a part of a name, whatever the other parts are (`seg_train`); None if there is none."""
    splits = {SPLIT_OF[word] for word in _words(name) if word in SPLIT_OF}
    return splits.pop() if len(splits) == 1 else None


def _words(name: str) -> list[str]:
    """The words of a name in lower case, separated at punctuation, digits and capitals."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[^\W\d_])(?=\d)|(?<=\d)(?=[^\W\d_])", " ", name)
    words = [word for word in re.split(r"[\W_]+", spaced.lower()) if word]
    words = " ".join(words).replace("hold out", "holdout").split()
    return [part for word in words for part in _without_filler(word)]


def _without_filler(word: str) -> list[str]:
    """`trainset` as `train` and `set`; any other word as it is."""
    for filler in ("set", "data", "dataset", "images"):
        if word.removesuffix(filler) in SPLIT_OF:
            return [word.removesuffix(filler), filler]
    return [word]
