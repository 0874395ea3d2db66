"""README, guide and studies: commands and code as written, at a tiny size (installation itself is .ci/run's)."""

import csv
import re
import shlex
from pathlib import Path

import pytest
import torch
from torch import nn

from bench.cli import cli
from bench.commands.report import fill_tables
from bench.config.methods import BUILT_IN
from bench.errors import UsageError
from bench.runs import runner
from bench.runs.progress import Estimate
from tests.support.tiny import bench

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = sorted(
    path
    for pattern in ("*.md", "bench/*.md", "bench/guide/*.md", "baselines/*.md", "results/**/README.md")
    for path in ROOT.glob(pattern)
)
CODE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def commands_of(text):
    """Return the `bench` commands of a page, those in code blocks without a language and those in tables."""
    blocks = [block for language, block in CODE.findall(text) if not language]
    lines = [line.split(" #")[0].split("&& ")[-1].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("bench ")] + re.findall(r"\| `(bench [^`]+)` \|", text)


COMMANDS = commands_of(README)


def test_it_is_short_and_holds_the_two_commands_of_a_new_user():
    assert len(README.splitlines()) <= 170
    assert len(README.encode()) <= 10_000
    assert "pip install -e . && bench run " in README
    assert "pip install -e '.[test]' && pytest " in README
    assert len(COMMANDS) >= 12


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("bench run")])
def test_runs_resolve(monkeypatch, command):
    monkeypatch.setattr(runner, "estimate", lambda *given: Estimate(certificates=1))
    assert bench(monkeypatch, *shlex.split(command)[1:], "--dry-run") == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_of_a_page_has_these_options(page):
    for command in commands_of(page.read_text()):
        name, *options = shlex.split(command.replace("i/k", "1/2"))[1:]
        if name.startswith("--"):
            continue  # of bench itself
        command = cli.commands[{"import": "import-log"}.get(name, name)]
        if {"--help", "-h"}.isdisjoint(options) and "LOG.tsv" not in options:
            known = {word for one in command.params for word in (*one.opts, *one.secondary_opts)}
            given = {word.split("=")[0] for word in options if word.startswith("-")}
            assert given <= known | {"--json", "-q"}, (name, given - known)


def links(text):
    """Return the targets of links and images of a page, outside code."""
    return re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files(page):
    for target in links(page.read_text()):
        path, _, anchor = target.partition("#")
        if not target.startswith(("https://", "mailto:")):
            found = (page.parent / path).resolve() if path else page
            assert found.is_file(), target
            assert not anchor or re.search(rf"(?im)^#+ {anchor.replace('-', '.')}\s*$", found.read_text()), (
                target
            )


def test_every_method_is_linked_to_its_paper():
    for entry in BUILT_IN.values():
        assert f"https://arxiv.org/abs/{re.search(r'arXiv ([0-9.]+)', entry.summary)[1]}" in README


def test_five_lines_of_python_certify_a_users_own_module(capsys):
    code = next(block for language, block in CODE.findall(README) if "from_module" in block)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3, bias=False))
    model[1].weight.data = torch.tensor([[0.0] * 4, [1.0] * 4, [0.0] * 4])
    exec(code, {"model": model, "image": torch.ones(1, 2, 2)})
    label, radius = capsys.readouterr().out.split()
    assert label == "1"
    assert 0 < float(radius) < 2.0  # the distance of the image to the classifier's boundary


MARKED = [page for page in PAGES if re.search(r"^<!-- (table|summary): ", page.read_text(), re.MULTILINE)]


@pytest.mark.parametrize("page", MARKED, ids=lambda path: str(path.relative_to(ROOT)))
def test_tables_are_those_of_the_results(page):
    text = page.read_text()
    assert text.count("<!-- table: ") == text.count("<!-- end of table -->")
    assert fill_tables(text, page.parent) == text


def test_the_verdicts_on_rrcm_count_the_paired_tests():
    with (ROOT / "results" / "mnist5k" / "paired.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["first"] == "rrcm"]
    for other in {row["second"] for row in rows}:
        beside = [row for row in rows if row["second"] == other]
        found = [float(row["difference"]) for row in beside if float(row["p_holm"]) < 0.05]
        higher, lower = (sum(sign * difference > 0 for difference in found) or "none" for sign in (1, -1))
        label = BUILT_IN[other].display_name
        verdict = next(line for line in README.splitlines() if line.startswith(f"- rRCM beside {label}:"))
        assert re.search(rf"higher in {higher}\b.* lower in {lower}\b.* of {len(beside)} cells", verdict)


def test_readme_and_most_studies_have_tables():
    assert ROOT / "README.md" in MARKED
    assert len(MARKED) > 3


def test_every_study_has_question_answer_and_command():
    for page in (ROOT / "results").glob("*/README.md"):
        text = page.read_text()
        assert "**Question.**" in text, page
        assert "**Answer.**" in text, page
        assert "bench " in text or "python " in text, page
        assert f"]({page.parent.name}/README.md)" in (ROOT / "results" / "README.md").read_text()


def test_a_changed_table_is_put_back(tmp_path, monkeypatch, capsys):
    (tmp_path / "table.md").write_text("| new \\1 |\n")
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- table: table.md -->\n| old |\n<!-- end of table -->\nb\n")
    assert bench(monkeypatch, "readme", str(page)) == 0
    assert page.read_text() == "a\n<!-- table: table.md -->\n| new \\1 |\n<!-- end of table -->\nb\n"
    assert capsys.readouterr().out == f"{page}: changed\n"


@pytest.mark.parametrize("name", ["missing.md", "../table.md"])
def test_a_table_that_is_not_below_the_page_is_refused(tmp_path, name):
    (tmp_path / "table.md").write_text("outside\n")
    (tmp_path / "inner").mkdir()
    with pytest.raises(UsageError, match=f"names {name}, which is no file below"):
        fill_tables(f"<!-- table: {name} -->\n<!-- end of table -->", tmp_path / "inner")


def test_a_summary_of_what_is_no_run_is_refused(tmp_path):
    mark = "<!-- summary: nowhere -->\n<!-- end of summary -->"
    with pytest.raises(UsageError, match="names nowhere, which is no run below"):
        fill_tables(mark, tmp_path)
