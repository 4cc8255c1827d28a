"""The card of an export: export.md for people, export.json for programs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from frostline.evaluation.gate import Comparison
from frostline.exports.checking import Agreement

GIVES = {
    "label": "int32, the number of the likeliest class in `classes` of labels.json",
    "probabilities": "float32 (classes,)",
    "set": "bool (classes,), whether a class is in the prediction set",
    "unknown": "bool, whether the image shows none of the classes",
    "unknown_score": "float32, higher for images that are less like those of the classes",
}


@dataclass(frozen=True)
class MeasuredFile:
    """A file as it was measured: bytes; the median time of one image in milliseconds; the accuracy, if the classes of
    the test images are known; how far it answers as `predict`."""

    bytes: int
    milliseconds: float
    accuracy: float | None
    agreement: Agreement


@dataclass(frozen=True)
class Checked:
    """What was found by the comparison with `predict`: on which images, by which runtime, for the float file and, if
    the export is in 8 bits, for that file too, with the test of the gate (`lost`)."""

    text: str
    runtime: str
    float: MeasuredFile
    int8: MeasuredFile | None = None
    lost: Comparison | None = None


@dataclass(frozen=True)
class ExportCard:
    """file: its name; about: format, what it takes, the digest of its bundle; takes, note: for people; gives: the names
    of the answers; checked: None if it was not compared."""

    file: str
    about: dict[str, Any]
    takes: str
    note: str
    gives: tuple[str, ...]
    checked: Checked | None

    def as_json(self) -> dict[str, Any]:
        """For export.json."""
        return {"file": self.file, **self.about, "checked": asdict(self.checked) if self.checked else None}

    def as_markdown(self) -> str:
        """For export.md."""
        lines = [f"# {self.file}", "", f"It takes {self.takes}, one image a call, and gives", ""]
        lines += [f"- `{name}`: {text};" for name, text in GIVES.items() if name in self.gives]
        lines[-1] = f"{lines[-1][:-1]}."
        lines += ["", self.note] if self.note else []
        checked = self.checked
        if checked is None:
            return "\n".join([*lines, "", "It was not compared with `frostline predict`."]) + "\n"
        named = {"float": checked.float} | ({"int8": checked.int8} if checked.int8 else {})
        lines += ["", f"Compared with `frostline predict` on {checked.float.agreement.images} {checked.text}, by "]
        lines[-1] += f"{checked.runtime}:"
        lines += ["", f"| | {' | '.join(named)} |", f"|---|{'---|' * len(named)}"]
        lines += [f"| {text} | {' | '.join(values)} |" for text, values in _rows(list(named.values()))]
        if checked.lost:
            lines += ["", f"INT8 against float: {checked.lost.text}."]
        return "\n".join(lines) + "\n"


def _rows(variants: list[MeasuredFile]) -> list[tuple[str, list[str]]]:
    """The rows of the table, without those that have no numbers."""
    agreed = [each.agreement for each in variants]
    rows = [("the same label", [f"{each.labels:.2%}" for each in agreed])]
    for name in agreed[0].flags:
        rows.append((f"the same `{name}`", [f"{each.flags[name]:.2%}" for each in agreed]))
    rows.append(("largest difference of probabilities", [f"{each.largest:.2g}" for each in agreed]))
    if agreed[0].reduced:
        text = f"the same label for {agreed[0].reduced} large JPEGs, decoded at their own size"
        rows.append((text, [f"{each.reduced_labels:.2%}" for each in agreed]))
    if variants[0].accuracy is not None:
        rows.append(("accuracy", [f"{each.accuracy:.4f}" for each in variants]))
    rows.append(("size", [f"{each.bytes / 1e6:.2f} MB" for each in variants]))
    rows.append(("median time of one image", [f"{each.milliseconds:.2f} ms" for each in variants]))
    return rows
