"""Collect the pages for the site generator: `make docs`.

Pages link to files outside docs/, such as the tables of measurements, so that they can be read on a forge. A site
generator knows one folder only. This collects the pages and all files that they link to in one folder, with the same
places, so that no link has to be written anew. README.md is the home page.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / ".site"
LINK = re.compile(r"\]\(([^()\s]+)\)")

NAVIGATION = (
    ("How-to", "docs/how-to"),
    ("Reference", "docs/reference"),
    ("Explanation", "docs/explanation"),
    ("Decisions", "docs/decisions"),
)
OTHERS = ("docs/glossary.md", "benchmarks/results/README.md", "SECURITY.md", "CHANGELOG.md", "CONTRIBUTING.md")

SETTINGS = """\
[project]
site_name = "frostline"
site_description = "Transfer learning on your folder of images."
docs_dir = "pages"
site_dir = "html"
use_directory_urls = false
nav = [
    {{ "Home" = "README.md" }},
    {{ "Tutorial" = "docs/tutorial.md" }},
    {{ "All pages" = "docs/index.md" }},
{nav}
]

[project.theme]
font = false
features = ["navigation.indexes", "navigation.top", "content.code.copy"]

[[project.theme.palette]]
media = "(prefers-color-scheme: light)"
scheme = "default"

[[project.theme.palette]]
media = "(prefers-color-scheme: dark)"
scheme = "slate"
"""


def main() -> None:
    """Write .site/pages and .site/zensical.toml."""
    shutil.rmtree(SITE, ignore_errors=True)
    waiting, done = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], set()
    while waiting:
        page = waiting.pop()
        if page in done:
            continue
        done.add(page)
        target = SITE / "pages" / page.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(page, target)
        if page.suffix == ".md":
            waiting += linked(page)
    (SITE / "zensical.toml").write_text(SETTINGS.format(nav=navigation()), encoding="utf-8")


def linked(page: Path) -> list[Path]:
    """The files of this repository that a page links to."""
    targets = (unquote(each.partition("#")[0]) for each in LINK.findall(page.read_text(encoding="utf-8")))
    files = ((page.parent / each).resolve() for each in targets if each and ":" not in each)
    return [each for each in files if each.is_file() and each.is_relative_to(ROOT)]


def navigation() -> str:
    """The lines of the table of contents."""
    lines = []
    for title, folder in NAVIGATION:
        pages = ", ".join(f'"{page.relative_to(ROOT)}"' for page in sorted((ROOT / folder).glob("*.md")))
        lines.append(f'    {{ "{title}" = [{pages}] }},')
    others = ", ".join(f'"{name}"' for name in OTHERS)
    return "\n".join([*lines, f'    {{ "More" = [{others}] }},'])


if __name__ == "__main__":
    main()
