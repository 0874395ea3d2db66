"""A certified accuracy is one number: the same in CSV, Markdown, LaTeX and page, in every cell."""

import json
import re

import pandas as pd
import pytest

from bench.report.comparison import compare
from bench.report.markup import format_percent
from bench.report.page.write import write_page
from bench.report.write import write_tables
from tests.support.fake_runs import LABELS, METHODS, RADII, SIGMAS, make_run


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The folder with the tables and the page of a run whose accuracies are no round numbers."""
    folder = tmp_path_factory.mktemp("same")
    comparison = compare([make_run(folder, images=37)])
    write_tables(comparison, folder)
    write_page(comparison, folder)
    return folder


@pytest.fixture(scope="module")
def csv(written):
    """(sigma or "best", label, radius) -> accuracy, low and high as they are written, "–" out of reach."""
    names = dict(zip(METHODS, LABELS, strict=True))
    found = {}
    for row in pd.read_csv(written / "certified_accuracy.csv").itertuples():
        key = ("best" if row.selection == "best" else f"{row.sigma:g}", names[row.method], row.radius)
        cell = tuple(map(format_percent, (row.accuracy, row.low, row.high)))
        found[key] = cell if row.is_reachable else ("–", "", "")
    return found


def cells_of(text, pattern):
    """Return (block, label, radius) -> what a pattern reads from the cells of a table in lines, "–" for a dash."""
    found, block = {}, None
    for line in text.splitlines():
        if (title := re.search(r"(?:σ|\\sigma\$) = ([\d.]+)", line)) and "&" not in line and "|" not in line:
            block = title[1]
        elif "best over" in line:
            block = "best"
        cells = [cell.strip() for cell in re.split(r"(?<!\\)[&|]", line.strip("| ").removesuffix(r" \\"))]
        if cells[0] in LABELS and len(cells) > len(RADII):
            for radius, cell in zip(RADII, cells[1:], strict=False):
                is_dash = cell in ("–", r"\textendash{}")
                found[block, cells[0], radius] = (
                    ("–", "", "") if is_dash else re.search(pattern, cell).groups()
                )
    return found


def test_every_cell_is_there(csv):
    assert len(csv) == (len(SIGMAS) + 1) * len(LABELS) * len(RADII)
    assert ("–", "", "") in csv.values()
    assert len(set(csv.values())) > 20


def test_the_table_in_markdown_has_the_numbers_of_the_csv(written, csv):
    text = (written / "certified_accuracy.md").read_text()
    assert cells_of(text, r"([\d.]+)\*{0,2}(?: \([\d.]+\))? \[([\d.]+), ([\d.]+)\]") == csv


def test_the_table_in_latex_has_the_numbers_of_the_csv(written, csv):
    text = (written / "certified_accuracy.tex").read_text()
    assert cells_of(text, r"([\d.]+)\}?_\{([\d.]+)\}\^\{([\d.]+)\}") == csv


def test_the_page_has_the_numbers_of_the_csv(written, csv):
    page = (written / "report.html").read_text()
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    shown = {
        (row["sigma"], row["label"], radius["value"]): (cell["text"], cell["low"], cell["high"])
        for row in data["rows"]
        for radius, cell in zip(data["radii"], row["radii"], strict=True)
    }
    assert shown == csv
