"""Comparison -> one self-contained HTML page: leaderboard, curves, costs, images and origin; needs the extra `html`."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from bench.config.papers import bibtex
from bench.errors import UsageError
from bench.records.disk import replace_file
from bench.report.comparison import Comparison
from bench.report.figures.style import styles
from bench.report.page.pictures import BUDGET, Pictures, draw_pictures
from bench.report.page.values import cost_points, page_values, usual_radius
from bench.report.published import PublishedNumber
from bench.report.tables.accuracy import (
    ABOUT_ACR,
    ABOUT_CLEAN,
    accuracy_frame,
    accuracy_table,
    acr_frame,
)
from bench.report.tables.best import best_frame, best_table
from bench.report.tables.cost import cost_frame
from bench.report.tables.latex import to_latex
from bench.report.tables.paired import paired_frame, pairs_of
from bench.report.write import csv_of

FILE_NAME = "report.html"

WEIGHT = 980_000
"""Characters of a page beside the plotting library up to which pictures are added: a megabyte, and keys to spare."""


def write_page(
    comparison: Comparison,
    folder: Path,
    data_dir: Path | None = None,
    published: Sequence[PublishedNumber] = (),
) -> Path:
    """Write the page of compared runs as `FILE_NAME`, which needs no other file and no network; return its path.

    Its numbers are those of the CSV files that `bench.report.write.write_tables` writes.

    Args:
        folder: made where missing.
        data_dir: where the images of the first run lie now; None: where it found them. Without them the page has
            no pictures and says so.
        published: numbers of papers for the runs' data set, which stand in grey rows.

    Raises:
        UsageError: the extra `html` is not installed.
    """
    library, values = _library(), _values(comparison, published)
    parts = {"style": _part("page.css"), "script": _part("page.js"), "title": html.escape(values["title"])}
    page = Template(_part("page.html"))
    room = WEIGHT - len(page.template) - len(script_json(values)) - sum(map(len, parts.values()))
    pictures = draw_pictures(
        comparison.runs[0].header,
        comparison.sigmas,
        data_dir,
        budget=min(BUDGET, max(0, room)),
        noisy_for=_differing(comparison),
    )
    text = page.substitute(parts, library=library, data=script_json(values | _pictures(pictures)))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE_NAME
    replace_file(path, text)
    return path


def script_json(values: Any) -> str:
    """Return values as JSON that may stand in a script element: no character of it can end the element."""
    text = json.dumps(values, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _differing(comparison: Comparison) -> frozenset[int]:
    """Return the images that some entry gets right and another one of its sigma does not."""
    verdicts: dict[tuple[float, int], set[bool]] = {}
    for entry in comparison.entries:
        pairs = zip(entry.columns.indices.tolist(), entry.columns.is_correct.tolist(), strict=True)
        for index, is_correct in pairs:
            verdicts.setdefault((entry.sigma, index), set()).add(is_correct)
    return frozenset(index for (_, index), found in verdicts.items() if len(found) > 1)


def _downloads(comparison: Comparison, frames: dict[str, Any]) -> dict[str, str]:
    """Return name -> text of the files that the page offers: those of `bench.report.write.write_tables`, and BibTeX."""
    accuracy = frames["accuracy"]
    best = best_frame(comparison, accuracy)
    tables = [(best_table(best, comparison), "best")] if len(best) else []
    tables.append((accuracy_table(accuracy, comparison), "certified_accuracy"))
    files = {
        "certified_accuracy.csv": csv_of(accuracy.drop(columns="label")),
        "tables.tex": "\n".join(to_latex(table, name) for table, name in tables),
        "methods.bib": bibtex(dict.fromkeys(entry.method for entry in comparison.entries)),
    }
    return {name: text for name, text in files.items() if text}


def _pictures(pictures: Pictures) -> dict[str, Any]:
    return {
        "pictures": {
            "clean": {str(index): uri for index, uri in pictures.clean.items()},
            "noisy": {f"{index}/{sigma:g}": uri for (index, sigma), uri in pictures.noisy.items()},
            "note": pictures.note,
        }
    }


def _values(comparison: Comparison, published: Sequence[PublishedNumber]) -> dict[str, Any]:
    from bench.report.page.plots import curve_plots

    frames = {
        "accuracy": accuracy_frame(comparison),
        "acr": acr_frame(comparison),
        "cost": cost_frame(comparison),
        "paired": paired_frame(comparison, pairs_of(comparison)),
    }
    notes = (*accuracy_table(frames["accuracy"], comparison).notes, ABOUT_ACR, ABOUT_CLEAN)
    return page_values(comparison, frames, notes, published) | {
        "downloads": _downloads(comparison, frames),
        "plots": curve_plots(comparison),
        "cost": _cost(comparison, [cost_points(comparison, radius) for radius in comparison.radii]),
    }


def _cost(comparison: Comparison, points: list[list[dict[str, Any]]]) -> dict[str, Any] | None:
    """Return the figure of accuracy against cost and its points at each radius; None where no cost was measured."""
    from bench.report.page.plots import MARKERS, cost_plot

    usual = usual_radius(comparison.radii, max(entry.reach for entry in comparison.entries))
    if not points[usual]:
        return None
    by_label = styles(comparison)
    return {
        "plot": cost_plot(comparison, points[usual]),
        "points": points,
        "columns": [*points[usual][0], "color", "marker"],
        "styles": [
            {"label": label, "color": style.color, "marker": MARKERS[style.marker]}
            for label, style in by_label.items()
        ],
    }


def _library() -> str:
    """Return the plotting library's own minified script, for a script element."""
    try:
        from bokeh.resources import Resources
    except ImportError as error:
        raise UsageError(
            "the page needs the plotting library Bokeh, which is not installed: pip install 'rrcm-bench[html]'"
        ) from error
    return "\n".join(Resources(mode="inline", components=["bokeh"]).js_raw).replace("</script", "<\\/script")


def _part(name: str) -> str:
    return resources.files("bench.report.page").joinpath(name).read_text(encoding="utf-8")
