"""The README is short and current, and the page of all tables has the numbers of the committed tables.

Its links and commands are checked with those of all pages in test_docs.py.
"""

import json
import re

import pytest
from conftest import ROOT
from ruamel.yaml import YAML

from frostline.params.schema import Params

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = ROOT / "benchmarks" / "results"
MEASURED = (RESULTS / "README.md").read_text(encoding="utf-8")


def test_it_is_short():
    assert len(TEXT.split()) <= 1200


def test_its_table_has_at_most_eight_rows_each_with_its_measurement():
    rows = [line for line in TEXT.split("## Why one would switch")[1].splitlines() if line.startswith("| [")]
    assert 6 <= len(rows) <= 8
    assert all("](benchmarks/results/" in row for row in rows)


def test_its_example_is_what_the_repository_has():
    metrics = json.loads((ROOT / "reports" / "metrics.json").read_text())
    low, high = metrics["accuracy_ci95"]
    assert f"{metrics['accuracy']} (95% interval {low} to {high}, n = {metrics['n_test']})" in TEXT
    assert f"baseline      {metrics['commonest_class']}" in TEXT
    seconds = re.search(r"fresh clone \| (\d+) s", (RESULTS / "main_job.md").read_text())[1]
    assert f"[{seconds} seconds]" in TEXT


def test_the_settings_that_the_pages_show_are_accepted():
    yaml, shown = YAML(typ="safe", pure=True), 0
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("how-to/*.md")):
        values = yaml.load(ROOT / "params.yaml")
        for block in re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.S):
            for section, keys in yaml.load(block).items():
                values[section] |= keys
                shown += 1
        Params.model_validate(values)
    assert shown >= 5


@pytest.mark.parametrize("table", ["main_job", "digits", "photos"])
def test_its_figures_are_those_of_the_committed_tables(table):
    measured = re.findall(r"\b0\.\d{4}\b", (RESULTS / f"{table}.md").read_text())
    known = set(measured) | {f"{float(value):.3f}" for value in measured}
    chosen = {"main_job": "the main job", "digits": "digits, test", "photos": "photos, validation"}[table]
    rows = MEASURED.split(f"[{chosen}")[1].split("\n\n")[0]
    told = re.findall(r"\b0\.\d{3,4}\b", rows)
    assert told
    assert set(told) <= known


def test_its_search_figures_are_those_of_the_committed_table():
    clothing = (RESULTS / "sweep.md").read_text().split("digits, frostnet")[0]
    rows = [line.split(" | ") for line in clothing.splitlines() if line.startswith(("| Optuna, Keras", "| **frost"))]
    guide, ours = ([cell.strip(" |") for cell in row] for row in rows[:2])  # below: what each part contributes
    section = MEASURED.split("| [search]")[1].split("| [`prepare`]")[0]
    for said in (
        guide[3],
        guide[5],
        guide[8].split()[0],
        ours[3],
        ours[5],
        ours[6],
        f"**{ours[7]}**",
        ours[8].split()[0],
    ):
        assert said in section
    assert f"**{float(guide[4].rstrip('x')):.1f}x**" in section


def test_what_it_says_of_each_part_is_in_the_committed_table():
    table = (RESULTS / "sweep.md").read_text().split("What each part")[1].split("digits, frostnet")[0]
    told = re.findall(
        r"without ([a-z ]+?) (\d\.\dx)", MEASURED.split("With one part")[1].split("[More of it")[0].replace("\n", " ")
    )
    assert len(told) == 5
    for part, ratio in told:
        row = next(line for line in table.splitlines() if f"without {part.split(' of ')[0]}" in line)
        assert f"{float(row.split(' | ')[4].rstrip('x')):.1f}x" == ratio


def test_its_serving_figures_are_those_of_the_committed_table():
    table = (RESULTS / "serving.md").read_text()
    section = MEASURED.split("| [one image a request]")[1].split("\n\n")[0]
    told = re.findall(r"[\d.]+ ms|\b[\d.]+x", section)
    assert len(told) == 4
    assert [each for each in told if each not in table] == []


def test_its_figures_of_prepare_are_those_of_the_committed_tables():
    measured = re.findall(r"\| ([\d.]+ s) \| [\d,]+/s \| ([\d.]+) \|", (RESULTS / "prepare.md").read_text())
    section = MEASURED.split("| [`prepare`]")[1].split("| [one image")[0]
    assert re.findall(r"[\d.]+ s(?= \|)", section) == [seconds for seconds, _ in measured]
    assert f"**{measured[-1][1]}x** of the bare limit" in section
    copies = re.findall(
        r"\| ([\d,]+) \| (\d\.\d{4}) \| (\d\.\d{4}) \| (\d+) \|", (RESULTS / "near_copies.md").read_text()
    )
    assert f"at least {min(float(recall) for _, recall, _, _ in copies):.3f} are found, with one wrong pair" in section
    assert max(int(wrong) for *_, wrong in copies) == 1


def test_its_speed_is_that_of_the_committed_table():
    table = (RESULTS / "frozen.md").read_text()
    rows = re.findall(r"\| ([\d.]+ s) \| ([\d.]+ s) \| ([\d.]+)x \| ([\d.]+) \| ([\d.]+) \|", table)
    known = {(guide, a, ours, b, f"{float(ratio):.1f}") for guide, ours, ratio, a, b in rows}
    told = re.findall(r"\| ([\d.]+ s) \(([\d.]+)\) \| ([\d.]+ s) \(([\d.]+)\) \| \*\*([\d.]+)x", MEASURED)
    assert len(told) >= 5
    assert set(told) <= known


def test_the_tests_that_the_page_of_first_users_names_exist():
    page = (ROOT / "docs" / "decisions" / "0019-first-users.md").read_text(encoding="utf-8")
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", page)
    assert len(named) == 26
    texts = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")}
    assert [f"{file}::{test}" for file, test in named if f"def {test}(" not in texts.get(file, "")] == []
