"""LaTeX tables: what pdflatex makes of them in one-column and two-column articles, and how text is escaped."""

import re
import shutil
import subprocess

import pytest

from bench.report.compared import compare_all, compare_runs
from bench.report.comparison import compare
from bench.report.markup import Block, Cell, Table
from bench.report.tables.latex import escape_latex, to_latex
from bench.report.write import write_tables
from tests.report.test_compared import trained
from tests.support.fake_runs import METHODS, make_run

PDFLATEX = shutil.which("pdflatex")
needs_latex = pytest.mark.skipif(PDFLATEX is None, reason="no pdflatex here")


def warnings_of(texts, folder, options=""):
    """Return what pdflatex complains of in an article with these tables: errors and boxes that are too large."""
    body = "\n".join([*texts, "~" if not texts else r"\clearpage"])
    (folder / "paper.tex").write_text(
        rf"\documentclass[{options}]{{article}}\usepackage[utf8]{{inputenc}}\usepackage[T1]{{fontenc}}"
        rf"\usepackage{{booktabs}}\begin{{document}}{body}\end{{document}}"
    )
    command = [PDFLATEX, "-interaction=nonstopmode", "-draftmode", "paper.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
    return re.findall(r"^! .*|^Overfull .*|^LaTeX Warning: Float too large.*", done.stdout, re.MULTILINE)


def tables_of(folder, **arguments):
    run = make_run(folder / "run", **arguments)
    write_tables(compare([run]), folder)
    compare_runs([run], methods=None, sigmas=None, out=folder)
    return [path.read_text() for path in sorted(folder.glob("*.tex"))]


@needs_latex
@pytest.mark.parametrize("options", ["", "twocolumn"])
@pytest.mark.parametrize(
    "arguments",
    [{}, {"methods": [*METHODS, "densepure", "smoothadv", "macer", "consistency-model"]}, {"sigmas": [0.5]}],
    ids=["four", "eight", "one sigma"],
)
def test_every_table_of_a_run_compiles_and_fits_its_article(tmp_path, options, arguments):
    texts = tables_of(tmp_path, **arguments)
    assert len(texts) >= 5
    assert warnings_of(texts, tmp_path, options) == []


@needs_latex
@pytest.mark.parametrize("options", ["", "twocolumn"])
def test_tables_of_several_trainings_compile_and_fit_their_article(tmp_path, options):
    runs = [trained(f"{name}-{seed}", seed) for name in ("plain", "changed") for seed in (0, 1)]
    compare_all(compare(runs), has_all=False, against="plain", out=tmp_path / "variants")
    compare_all(compare(runs[:2]), has_all=True, against=None, out=tmp_path / "trainings")
    texts = [path.read_text() for path in sorted(tmp_path.glob("*/*.tex"))]
    assert len(texts) >= 4
    assert warnings_of(texts, tmp_path, options) == []


@needs_latex
def test_names_of_any_letters_compile(tmp_path):
    names = [r"a_b|c*d`e&f$g#h{i}~j^k<l>%m[n](o)\p", "naïve ℓ2 → 模型", "--x", '"q"']
    rows = tuple((name, Cell(text="-3.3", interval=("-7.0", "+0.2"), is_best=True)) for name in names)
    table = Table(caption="p_A & L2, R_max", headers=("method", "σ"), blocks=(Block(title="α", rows=rows),))
    assert warnings_of([to_latex(table, "a_b")], tmp_path) == []


@needs_latex
def test_a_table_that_is_too_wide_is_noticed(tmp_path):
    wide = r"\begin{tabular}{l}" + "x" * 150 + r"\end{tabular}"
    assert any(text.startswith("Overfull") for text in warnings_of([wide], tmp_path))


def test_every_table_has_a_label_of_its_own(tmp_path):
    labels = re.findall(r"\\label\{(.*?)\}", "\n".join(tables_of(tmp_path)))
    assert len(labels) == len(set(labels)) >= 6
    assert {"tab:certified-accuracy", "tab:best", "tab:acr", "tab:cost", "tab:paired"} <= set(labels)


def test_formulas_dashes_and_letters_are_written_as_latex_reads_them():
    assert escape_latex("L2 radius, pixels in [0,1]") == r"$\ell_2$ radius, pixels in $[0,1]$"
    assert escape_latex("bench cost --preset") == "bench cost -{}-preset"
    assert escape_latex("p_A ≥ 0.5 beyond R_max") == r"$p_A$ $\ge$ 0.5 beyond $R_{\max}$"
    assert escape_latex("é 模") == "é ?"


def test_thousands_do_not_part_in_formulas():
    cells = ("m, 1,000 images", Cell(text="5,550", interval=("5,000", "6,000"), is_best=True, aside="1,234"))
    text = to_latex(Table(headers=("method", "samples/s"), blocks=(Block(rows=(cells,)),)))
    assert r"$^{(1{,}234)}\mathbf{5{,}550}_{5{,}000}^{6{,}000}$" in text
    assert "m, 1,000 images &" in text


def test_notes_on_brackets_speak_of_what_stands_in_latex():
    text = to_latex(Table(headers=("m",), blocks=(), notes=("Brackets: exact.", "kept"), details=("kept",)))
    assert "Sub- and superscripts: exact." in text
    assert "% kept" in text.splitlines()
    assert text.count("kept") == 1
