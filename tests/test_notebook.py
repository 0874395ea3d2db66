"""The notebook of the guide: it runs from its first cell to the last, and holds no numbers that nothing checks."""

from __future__ import annotations

from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[1] / "bench" / "guide" / "tour.ipynb"

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")


def cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_the_committed_notebook_has_no_outputs():
    assert not any(cell.outputs or cell.execution_count for cell in cells(nbformat.read(NOTEBOOK, 4)))


@pytest.mark.filterwarnings("ignore")  # those of Jupyter's own packages
def test_every_cell_runs_and_shows_what_it_says(tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    notebook = nbformat.read(NOTEBOOK, 4)
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3", resources=resources).execute()
    shown = [output.data for cell in cells(notebook) for output in cell.outputs if "data" in output]
    assert sum("image/png" in data for data in shown) == 2
    assert sum("text/html" in data for data in shown) == 5
    assert any("Certificate(predict=" in data["text/plain"] for data in shown)
    assert not any(output.output_type == "stream" for cell in cells(notebook) for output in cell.outputs)
