"""The documentation: no dead link or anchor, pages that the code writes are current, commands and messages exist."""

import re
import shlex
import subprocess
from urllib.parse import unquote

import make_figures
import make_reference
import pytest
from conftest import ROOT
from typer.main import get_command

from frostline.cli import app

DOCS = ROOT / "docs"
LINK = re.compile(r"!?\[(?:[^\]\[]|\[[^\]]*\])*\]\(([^()\s]*(?:\([^()]*\))?[^()\s]*)\)")
NUMBER = re.compile(r"\b0\.\d{3,4}\b|\b\d+\.\d+x")


def markdown_files():
    """All Markdown files that git has or would add."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    return [ROOT / name for name in listed if not name.startswith("src/") and (ROOT / name).is_file()]


def without_code(text):
    """The text without blocks of code, in which brackets mean nothing, and without code in lines."""
    text = re.sub(r"^(```|~~~).*?^\1[^\n]*$", "", text, flags=re.M | re.S)
    return re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", text)


def anchors(text):
    """The anchors of a page, as a forge makes them of its headings."""
    found = {}
    for title in re.findall(r"^#{1,6} +(.*?)\s*$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M):
        title = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title)
        slug = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        found[slug] = found.get(slug, -1) + 1
    return {f"{slug}-{number}" if number else slug for slug, last in found.items() for number in range(last + 1)}


def problems(page):
    """The dead links of a page."""
    text = page.read_text(encoding="utf-8")
    for target in LINK.findall(without_code(text)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = unquote(target).partition("#")
        other = (page.parent / path).resolve() if path else page
        if not other.exists() or not other.is_relative_to(ROOT):
            yield f"{page.relative_to(ROOT)}: {target} is not there"
        elif anchor and anchor not in anchors(other.read_text(encoding="utf-8")):
            yield f"{page.relative_to(ROOT)}: {target} has no such anchor"


def test_no_link_and_no_anchor_is_dead():
    pages = markdown_files()
    assert len(pages) > 60
    assert [problem for page in pages for problem in problems(page)] == []


def test_a_dead_link_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr("test_docs.ROOT", tmp_path)
    (tmp_path / "b.md").write_text("# Two `words`, here\n")
    page = tmp_path / "a.md"
    page.write_text("[a](b.md) [b](b.md#two-words-here) [c](c.md) ![d](d.png) [e](b.md#three) `[f](f.md)`")
    assert [each.split(": ")[1] for each in problems(page)] == [
        "c.md is not there",
        "d.png is not there",
        "b.md#three has no such anchor",
    ]


def test_every_page_can_be_reached_from_the_index():
    reached, new = set(), {DOCS / "index.md"}
    while new:
        page = new.pop()
        reached.add(page)
        links = (link.partition("#")[0] for link in LINK.findall(page.read_text(encoding="utf-8")))
        pages = {(page.parent / link).resolve() for link in links if link.endswith(".md") and ":" not in link}
        new |= pages - reached
    assert {page for page in markdown_files() if page.is_relative_to(DOCS)} <= reached


@pytest.mark.parametrize("name", ["params.md", "cli.md", "files.md", "metrics.md", "http.md"])
def test_the_reference_is_what_the_code_says(name):
    assert (DOCS / "reference" / name).read_text(encoding="utf-8") == make_reference.pages()[name], (
        "run `make reference`"
    )


def test_the_figures_are_those_of_the_committed_tables():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    span = re.search(r"Tables of ([\d-]+(?: to [\d-]+)?), measured", text)[1]
    assert make_figures.filled(text, span) == text, "run `make figures`"
    drawn = {path.name: path.read_text(encoding="utf-8") for path in (DOCS / "pictures").glob("*.svg")}
    assert {name: drawn.get(name) for name in make_figures.charts()} == make_figures.charts(), "run `make figures`"


def test_numbers_in_the_pages_were_measured():
    sources = [*(ROOT / "benchmarks/results").glob("*.md"), *(DOCS / "decisions").glob("*.md"), DOCS / "tutorial.md"]
    known = {
        number.removesuffix("x")
        for path in sources
        for number in re.findall(r"\d+\.\d+x?", path.read_text(encoding="utf-8"))
    }
    known |= {f"{float(number):.3f}" for number in known}
    computed = {"0.786", "0.957", "0.851", "0.934", "0.877", "0.919"}  # Wilson's intervals of an example
    pages = [*(DOCS / "how-to").glob("*.md"), *(DOCS / "explanation").glob("*.md")]
    told = {
        (page.name, each)
        for page in pages
        for each in NUMBER.findall(re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S))
    }
    assert len(told) >= 10
    assert [each for each in sorted(told) if each[1].removesuffix("x") not in known | computed] == []


def commands():
    """The `frostline` commands of all pages, in console, bash and text blocks and in lines."""
    for page in [ROOT / "README.md", *DOCS.rglob("*.md")]:
        if "decisions" in page.parts:
            continue
        text = page.read_text(encoding="utf-8")
        for line in re.findall(r"^(?:\$ |    )?(frostline [^\n|&#]*)", text, re.M) + re.findall(
            r"`(frostline [^`\n]+)`", text
        ):
            yield page.name, line


def test_every_command_and_option_of_the_pages_exists():
    group, checked = get_command(app), 0
    for page, line in commands():
        words = [word for word in shlex.split(line.replace("'", "")) if word not in ("--debug",)]
        if len(words) < 2 or not re.fullmatch("[a-z][a-z-]+", words[1]):
            continue
        assert words[1] in group.commands, f"{page}: {line}"
        known = {name for each in group.commands[words[1]].params for name in each.opts} | {"--help", "-h"}
        assert {word for word in words[2:] if re.match("--?[a-z]", word)} <= known, f"{page}: {line}"
        checked += 1
    assert checked > 60


def test_every_make_target_of_the_pages_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md")]
    told = {
        each for page in pages for each in re.findall(r"`make ([a-z-]+)|^\$ make ([a-z-]+)", page.read_text(), re.M)
    }
    assert {one or other for one, other in told} <= targets


def test_every_message_of_the_troubleshooting_page_exists():
    def flat(text):
        return re.sub(r"\s+", " ", re.sub(r'"\s*\n\s*f?"', "", text))

    code = " ".join(flat(path.read_text(encoding="utf-8")) for path in (ROOT / "src/frostline").rglob("*.py"))
    page = (DOCS / "how-to" / "troubleshooting.md").read_text(encoding="utf-8")
    messages = re.findall(r"^\| `([^`]+)`", page, re.M)
    assert len(messages) > 25
    assert [message for message in messages if message not in code] == []
