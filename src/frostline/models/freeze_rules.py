"""The values of `finetune.freeze`, and what is wrong with one. This file does not load Keras."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from frostline.core import suggest
from frostline.errors import ParamsError

Freeze = int | str | list[int | str]

# Words that a freeze rule may have in addition to a line, or instead of one.
WORDS = ("gradual", "discriminative")


@dataclass(frozen=True)
class FreezeRule:
    """The value of `finetune.freeze`.

    line: `none`, `all`, a number or a layer's name; is_gradual: the layers above the line thaw block by block from the
    top (Howard & Ruder, "Universal Language Model Fine-tuning for Text Classification", ACL 2018, section 3.3);
    is_discriminative: each block learns slower than the one above it (section 3.2).
    """

    line: int | str
    is_gradual: bool
    is_discriminative: bool


def parse(freeze: Freeze) -> FreezeRule:
    """Parse a freeze rule: a line, `gradual`, `discriminative`, or a list of several of these.

    Without a line, no layer stays frozen. Raises ParamsError for a list with two lines.
    """
    words = freeze if isinstance(freeze, list) else [freeze]
    lines = [word for word in words if word not in WORDS]
    if len(lines) > 1:
        raise ParamsError(
            f"params.yaml: finetune.freeze {freeze!r} names {len(lines)} lines; give one of them, with "
            f"{' and '.join(WORDS)} as you like"
        )
    return FreezeRule(lines[0] if lines else "none", WORDS[0] in words, WORDS[1] in words)


def unknown_layer(line: str, body: str, names: Sequence[str]) -> ParamsError:
    """The error for a line that is no layer of a body with these names."""
    return ParamsError(
        f"params.yaml: finetune.freeze {line!r} is not a layer of {body}; use none, all, a number, gradual, "
        f"discriminative or a layer's name ({suggest.hint(line, names, cutoff=0.0)})"
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
