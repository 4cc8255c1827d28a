"""Fill README's figures and draw the charts of docs/pictures from benchmarks/results: `make figures`.

Nothing is measured here. Each figure is read from the table that a script of benchmarks/ wrote, so a figure that was
measured anew reaches README and the charts by this command alone.
"""

from __future__ import annotations

import re
import subprocess
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
RESULTS = ROOT / "benchmarks" / "results"
PICTURES = ROOT / "docs" / "pictures"
BEGIN, END = "<!-- figures: written by `make figures` -->\n", "<!-- end of figures -->\n"
DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
USED = ("own_folder", "frozen", "sweep", "prepare", "near_copies", "serving", "faults")  # tables in README

Row = dict[str, str]


def main() -> None:
    """Write README's figures and all charts."""
    text = README.read_text(encoding="utf-8")
    README.write_text(filled(text, dates()), encoding="utf-8")
    PICTURES.mkdir(exist_ok=True)
    for name, drawing in charts().items():
        (PICTURES / name).write_text(drawing, encoding="utf-8")


def filled(readme: str, span: str) -> str:
    """README with the present figures. span: the dates that it says."""
    before, _, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise SystemExit(f"README.md: has no place for figures; add the lines {BEGIN}{END}")
    return f"{before}{BEGIN}{figures(span)}{END}{after}"


def dates() -> str:
    """When the tables of README were committed, from the first day to the last."""
    found = []
    for name in USED:
        log = ["git", "log", "-1", "--format=%cs", "--", str(RESULTS / f"{name}.md")]
        found.append(subprocess.run(log, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip())
    first, last = min(found), max(found)
    return first if first == last else f"{first} to {last}"


def figures(span: str) -> str:
    """README's table of why one would switch."""
    own = table("own_folder")[0]
    cases = ("frozen body", "frozen body, another learning rate", "everything trained")
    head, again, whole = (row(table("frozen"), "case", each) for each in cases)
    guide, ours = (row(table("sweep"), "sweep", each) for each in ("Optuna, Keras guide", "frostline"))
    bare, checked = (row(table("prepare"), "", each) for each in ("bare decode and resize", "frostline prepare"))
    recall = min(float(each["recall"]) for each in table("near_copies"))
    server, stock = (
        row(table("serving"), "", each) for each in ("frostline, JPEG in base64", "MLflow's Keras flavour, JSON arrays")
    )
    kills = [(int(each["kills"]), int(each["ended as uninterrupted"])) for each in table("faults") if each["kills"]]
    killed, same = (sum(each) for each in zip(*kills, strict=True))
    guides, script = "guide's acc.", "Keras guide's script:"
    copies = f"planted near-copies found: [{recall:.3f}](benchmarks/results/near_copies.md) or more"
    lines = [
        (
            "photos of your own, all stages",
            "own_folder",
            f"{own['wall time']}, test accuracy {own['test accuracy (95% interval)'].replace('(', '(95%: ')}",
            f"commonest class: {own['commonest class']}",
        ),
        (
            "train the head, 10 epochs",
            "frozen",
            f"{head['frostline']}, accuracy {head['our acc.']}",
            f"{script} {head['guide']}, {head[guides]} (**{short(head['ratio'])}**)",
        ),
        (
            "the same, another learning rate",
            "frozen",
            again["frostline"],
            f"{script} {again['guide']} (**{short(again['ratio'])}**)",
        ),
        (
            "train everything, 3 epochs",
            "frozen",
            f"{whole['frostline']}, accuracy {whole['our acc.']}",
            f"{script} {whole['guide']}, {whole[guides]} (**{short(whole['ratio'])}**)",
        ),
        (
            "search, 20 trials",
            "sweep",
            f"{ours['time']}, test accuracy {ours['test acc.'].split()[0]}",
            f"Optuna around it: {guide['time']}, {guide['test acc.'].split()[0]} (**{short(guide['x frostline'])}**)",
        ),
        (
            "check, decode and resize 3,409 photos",
            "prepare",
            f"{checked['time']}; {copies}",
            f"Pillow, no checks: {bare['time']}",
        ),
        (
            "serve, one JPEG a request, 8 clients",
            "serving",
            f"{server['images/s']} images/s",
            f"MLflow's Keras flavour: {stock['images/s']} images/s (**{server['x stock']}**)",
        ),
        ("kill any command, run it again", "faults", f"{same} of {killed} kills ended as without a kill", ""),
    ]
    rows = [f"| [{what}](benchmarks/results/{name}.md) | {here} | {there} |" for what, name, here, there in lines]
    return "\n".join(
        [
            "| | frostline | compared with |",
            "|---|---|---|",
            *rows,
            "",
            f"Tables of {span}, measured on {machine('frozen')}. Photos of clothing;",
            "MobileNetV2 at 160 pixels, 128 for the search; EfficientNetLite0 in the first row.",
            "[All tables](benchmarks/results/README.md) say what was compared.",
            "",
        ]
    )


def short(ratio: str) -> str:
    """A ratio with one decimal."""
    return f"{float(ratio.rstrip('x')):.1f}x"


def machine(name: str) -> str:
    """What a table says of the machine."""
    text = (RESULTS / f"{name}.md").read_text(encoding="utf-8")
    return re.search(r"^Measured on (.*)\.$", text, re.M)[1].replace(", no GPU used", ", no GPU")


def table(name: str, number: int = 0) -> list[Row]:
    """The rows of a table of benchmarks/results, without bold type. number: which of the file's tables."""
    text = (RESULTS / f"{name}.md").read_text(encoding="utf-8")
    block = re.findall(r"(?:^\|.*\n)+", text, re.M)[number]
    header, _, *rows = (
        [cell.strip().replace("**", "") for cell in line.split("|")[1:-1]] for line in block.splitlines()
    )
    return [dict(zip(header, each, strict=True)) for each in rows]


def row(rows: list[Row], column: str, value: str) -> Row:
    """The first row with this value."""
    return next(each for each in rows if each[column] == value)


def charts() -> dict[str, str]:
    """The charts by file name."""
    frozen = {each["case"]: each for each in table("frozen")}
    cases = ("frozen body", "frozen body, another learning rate", "from half depth", "everything trained")
    sides = (("Keras guide", "guide"), ("frostline", "frostline"))
    pairs = [(f"{case}: {name}", seconds(frozen[case][column])) for case in cases for name, column in sides]
    bands = [
        (each["trained after the head"], float(each["test accuracy"].split(": ")[1])) for each in table("surgical")
    ]
    modes = ("auto", "always", "never")
    plans = [(f"{each['case']}: {mode}", seconds(each[mode])) for each in table("plans") for mode in modes]
    sweeps = [(each["sweep"], seconds(each["time"])) for each in table("sweep")]
    resize = [(each["data.resize"], float(each["mean"])) for each in table("photos")]
    kept = ("all, the head alone", "half, head first", "none, head first")
    depth = [(each, float(row(table("backbone"), "", each)["MobileNetV2, 96 px"])) for each in kept]
    digits = [(each[""], float(each["mean"])) for each in table("digits") if each["labelled images a class"] == "10"]
    return {
        "frozen.svg": bars("Seconds of training, clothing, MobileNetV2 at 160 px", pairs, "{:.1f} s"),
        "surgical.svg": bars("Test accuracy on corrupted photos, by what is trained", bands, "{:.3f}"),
        "plans.svg": bars("Seconds of stage finetune, by cache.mode", plans, "{:.1f} s"),
        "sweep.svg": bars("Seconds of a search of 20 trials, clothing", sweeps, "{:.0f} s"),
        "resize.svg": bars("Validation accuracy by data.resize, mean of three seeds", resize, "{:.3f}"),
        "freeze.svg": bars("Test accuracy by finetune.freeze, clothing, MobileNetV2 at 96 px", depth, "{:.3f}"),
        "digits.svg": bars("Test accuracy from 10 labelled digits a class", digits, "{:.3f}"),
    }


def seconds(text: str) -> float:
    """A time such as `171.9 s`."""
    return float(text.removesuffix(" s"))


def bars(title: str, values: list[tuple[str, float]], form: str) -> str:
    """A chart of horizontal bars from 0, as SVG that is readable on light and dark pages."""
    label, width, line = 350, 300, 22
    most = max(value for _, value in values)
    height = 40 + line * len(values)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{label + width + 90}" height="{height}" '
        'font-family="sans-serif" font-size="13">',
        '<rect width="100%" height="100%" fill="#fff"/>',
        f'<text x="10" y="22" font-weight="bold">{escape(title)}</text>',
    ]
    for number, (name, value) in enumerate(values):
        y, length = 36 + line * number, max(1, round(width * value / most))
        colour = "#2f6f9f" if "Keras guide" not in name and "Tuner" not in name else "#9aa5ae"
        parts += [
            f'<text x="{label - 8}" y="{y + 14}" text-anchor="end">{escape(name)}</text>',
            f'<rect x="{label}" y="{y + 2}" width="{length}" height="{line - 6}" fill="{colour}"/>',
            f'<text x="{label + length + 6}" y="{y + 14}">{form.format(value)}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    main()
