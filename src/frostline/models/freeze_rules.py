"""The values of `finetune.freeze` and `finetune.train`, and what is wrong with one. This file does not load Keras."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from frostline.core import suggest
from frostline.errors import ParamsError

Freeze = int | str | list[int | str]
BandEnds = str | tuple[int | str, int | str]  # `first..last`, or both as a pair; a number is that of a block, from 1

# Words that a freeze rule may have in addition to a line, or instead of one.
WORDS = ("gradual", "discriminative")

_SHARE = re.compile(r"(\d+(?:\.\d+)?)\s*%")


class Band(NamedTuple):
    """The layers of a backbone that are trained: `layers[start:stop]`, of `of` layers. All others are frozen."""

    start: int
    stop: int
    of: int

    @classmethod
    def above(cls, line: int, of: int) -> Band:
        """All layers from a number on."""
        return cls(line, of, of)

    @property
    def frozen(self) -> int:
        """The number of frozen layers."""
        return self.of - len(self.places)

    @property
    def places(self) -> range:
        """The numbers of the trained layers."""
        return range(self.start, self.stop)


@dataclass(frozen=True)
class FreezeRule:
    """What is trained, by `finetune.freeze` or `finetune.train`.

    line: `none`, `all`, a number, a share of the compute or a layer's name; is_gradual: the layers above the line thaw
    block by block from the top (Howard & Ruder, "Universal Language Model Fine-tuning for Text Classification", ACL
    2018, section 3.3); is_discriminative: each block learns slower than the one above it (section 3.2); band: the first
    and the last layer or block that are trained, None for everything above the line (Lee et al., "Surgical Fine-Tuning
    Improves Adaptation to Distribution Shifts", ICLR 2023).
    """

    line: int | str
    is_gradual: bool = False
    is_discriminative: bool = False
    band: tuple[int | str, int | str] | None = None


def share(line: str) -> float | None:
    """The share of the compute that stays frozen, in [0, 1], of a line such as `60%`; None for any other line.

    Raises ParamsError for more than 100%.
    """
    if not (match := _SHARE.fullmatch(line)):
        return None
    percent = float(match[1])
    if percent > 100:
        raise ParamsError(f"params.yaml: finetune.freeze {line!r} is more than all; use 0% to 100%")
    return percent / 100


def parse(freeze: Freeze | None, train: BandEnds | None = None) -> FreezeRule:
    """Parse a freeze rule: a line, `gradual`, `discriminative`, or a list of several of these. None: the band `train`.

    Without a line, no layer stays frozen. Raises ParamsError for a list with two lines, and for a band without two
    ends.
    """
    if freeze is None:
        return FreezeRule("none", band=_ends(train))
    words = freeze if isinstance(freeze, list) else [freeze]
    lines = [word for word in words if word not in WORDS]
    if len(lines) > 1:
        raise ParamsError(
            f"params.yaml: finetune.freeze {freeze!r} names {len(lines)} lines; give one of them, with "
            f"{' and '.join(WORDS)} as you like"
        )
    return FreezeRule(lines[0] if lines else "none", WORDS[0] in words, WORDS[1] in words)


def _ends(train: BandEnds | None) -> tuple[int | str, int | str]:
    ends = tuple(train.split("..")) if isinstance(train, str) else tuple(train or ())
    if len(ends) != 2:
        raise ParamsError(f"params.yaml: finetune.train {train!r} has no two ends; write [first, last] or first..last")
    first, last = (int(end) if isinstance(end, str) and end.isdecimal() else end for end in ends)
    return first, last


def unknown_end(end: str, body: str, names: Sequence[str]) -> ParamsError:
    """The error for an end of a band that is no layer of a body with these names."""
    return ParamsError(
        f"params.yaml: finetune.train names {end!r}, which is not a layer of {body}; name a layer, or the number of a "
        f"block ({suggest.hint(end, names, cutoff=0.0)})"
    )


def unknown_layer(line: str, body: str, names: Sequence[str]) -> ParamsError:
    """The error for a line that is no layer of a body with these names."""
    return ParamsError(
        f"params.yaml: finetune.freeze {line!r} is not a layer of {body}; use none, all, a number, 60% of the "
        f"compute, gradual, discriminative or a layer's name ({suggest.hint(line, names, cutoff=0.0)})"
    )


def behind_the_cut(line: str, last: str) -> ParamsError:
    """The error for a line that `backbone.until` cuts away. last: the last layer that is left."""
    return ParamsError(
        f"params.yaml: finetune.freeze {line!r} lies behind {last!r}, where backbone.until cuts; name a layer up to "
        "that one in finetune.freeze, or a deeper one in backbone.until"
    )


def unknown_cut(until: str, body: str, names: Sequence[str]) -> ParamsError:
    """The error for a `backbone.until` that is no layer of a body with these names."""
    fix = suggest.hint(until, names, cutoff=0.0)
    return ParamsError(f"params.yaml: backbone.until {until!r} is not a layer of {body}; {fix}")
