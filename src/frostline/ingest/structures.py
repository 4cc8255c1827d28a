"""Which folders of a source are splits and which are classes, by their names alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from frostline.errors import DataError
from frostline.ingest.split_names import split_of, split_within
from frostline.params.schema import DataSection


@dataclass(frozen=True)
class Structure:
    """How to read a folder of folders, if its names do not say it.

    splits: the folders of the splits, by the split's name; class_level: 1 if the top folders are the classes, 2 if
    their subfolders are; None to find both out.
    """

    splits: Mapping[str, str] | None = None
    class_level: int | None = None

    @classmethod
    def of(cls, data: DataSection) -> Structure:
        """The structure that params.yaml gives."""
        return cls(dict(data.splits.items()) if data.splits else None, data.class_level)


AUTOMATIC = Structure()


def splits(root: Path, inner: Mapping[str, list[str]], structure: Structure) -> dict[str, str]:
    """The split of each top folder that is one; empty if the top folders are classes.

    inner: the subfolders of each top folder. Raises DataError if the folders look like splits, but it is not clear
    which they are.
    """
    if structure.splits is not None:
        missing = sorted(set(structure.splits.values()) - set(inner))
        if missing:
            raise DataError(f"{root}: has no folder {missing[0]!r} but {', '.join(sorted(inner)[:8])}; fix data.splits")
        return {folder: split for split, folder in structure.splits.items()}
    if structure.class_level is not None:
        return {}
    by_name = {name: split for name in inner if (split := split_of(name))}
    has_train = any(split == "train" and inner[name] for name, split in by_name.items())
    alike = _with_the_same_classes(inner)
    if not has_train:
        within = {name: split for name in alike if (split := split_within(name))}
        if "train" in within.values() and len(within) == len(alike):
            by_name, has_train = within, True
    unclear = [name for name in alike if name not in by_name] if has_train else alike
    are_named = len(set(by_name.values())) > 1 and not has_train
    if unclear or are_named:
        names = unclear or sorted(by_name)
        why = "hold the same class folders" if unclear else "are called like splits, and none has classes to train on"
        raise DataError(
            f"{root}: {', '.join(sorted(set(names) | set(alike))[:6])} {why}, so it is not clear what they are; set "
            "data.splits to {train: FOLDER, test: FOLDER}, or data.class_level to 1 if they are classes, or to 2 if "
            "their subfolders are"
        )
    return by_name if has_train else {}


def _with_the_same_classes(inner: Mapping[str, list[str]]) -> list[str]:
    """The top folders of which another one has mostly the same subfolders, at least two of them."""
    names = {top: {name.lower() for name in below} for top, below in inner.items()}
    return [
        top
        for top, own in names.items()
        if any(
            len(own & others) >= max(2, (len(own | others) + 1) // 2) for other, others in names.items() if other != top
        )
    ]


def are_classes_with_splits(inner: Mapping[str, list[str]], structure: Structure) -> bool:
    """Whether each top folder is a class whose subfolders are splits: `cat/train`, `cat/test`, `dog/train`."""
    return structure.class_level is None and all(
        "train" in (splits := [split_of(name) for name in below]) and None not in splits for below in inner.values()
    )
