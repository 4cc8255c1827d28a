"""How objects look in a notebook: HTML with small images, without scripts, in light and dark themes."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from frostline.data.images import Pixels

if TYPE_CHECKING:
    import pandas as pd

    from frostline.models.account import Account

SIDE = 96  # pixels of a thumbnail
MOST = 50  # rows of a table
BAR = "display:inline-block;height:0.8em;background:#4a90d9;vertical-align:baseline"


def predictions(table: pd.DataFrame, pictures: Sequence[Pixels], names: Sequence[str]) -> str:
    """A row for each prediction: the image, its name, and a bar for each of the three likeliest classes.

    names: of the classes, whose probabilities are the last columns.
    """
    probabilities = table.iloc[:, len(table.columns) - len(names) :].to_numpy(float)
    is_unknown = table["unknown"].to_numpy() if len(table.columns) > 3 + len(names) and "unknown" in table else None
    rows = []
    for place, (name, *_) in enumerate(table.itertuples(index=False)):
        if place == MOST:
            break
        shares = probabilities[place]
        best = np.argsort(-shares, kind="stable")[:3]
        bars = "<br>".join(_bar(names[each], shares[each]) for each in best)
        if is_unknown is not None and is_unknown[place]:
            bars = f"<b>unknown</b>; most like<br>{bars}"
        rows.append((_image(pictures[place]) if place < len(pictures) else "", escape(str(name)), bars))
    more = f"<p>and {len(table) - MOST} more</p>" if len(table) > MOST else ""
    return _table(("", "image", "label"), rows) + more


def explanation(image: Pixels, overlay: Pixels, caption: str) -> str:
    """The image beside its heat."""
    return f"{_image(image, 2 * SIDE)} {_image(overlay, 2 * SIDE)}<p>{escape(caption)}</p>"


def classifier(caption: str, account: Account) -> str:
    """What a classifier is and was made from."""
    made_from = account.made_from
    rows = [
        ("classes", escape(", ".join(account.layout.classes))),
        ("images", f"{account.layout.image_size} pixels, {account.layout.resize}"),
        ("backbone", escape(f"{made_from.backbone.name}, weights: {made_from.backbone.weights}")),
        ("frozen", f"{made_from.audit.frozen_layers} of {made_from.audit.layers} layers"),
        ("head", escape(f"{made_from.classifier}, {made_from.head['pooling']} pooling")),
    ]
    return f"<p><b>{escape(caption)}</b></p>{_table(('', ''), rows)}"


def scores(caption: str, metrics: Iterable[tuple[str, str]]) -> str:
    """A table of metrics. metrics: name and value."""
    return (
        f"<p><b>{escape(caption)}</b></p>{_table(('', ''), [(escape(name), escape(value)) for name, value in metrics])}"
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{name}</th>" for name in header) if any(header) else ""
    body = "".join(
        "<tr>" + "".join(f"<td style='text-align:left'>{cell}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>" if head else f"<table>{body}</table>"


def _bar(name: str, share: float) -> str:
    return f"<span style='{BAR};width:{80 * share:.0f}px'></span> {escape(str(name))} {share:.3f}"


def _image(pixels: Pixels, side: int = SIDE) -> str:
    from PIL import Image

    image = Image.fromarray(pixels)
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    return f"<img src='data:image/png;base64,{data}' width='{side}' alt=''>"
