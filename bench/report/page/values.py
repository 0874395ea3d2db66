"""Comparison -> the numbers of the page, as JSON values: those of the CSV files, written as in the tables; pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from bench.config.papers import arxiv_id
from bench.report.comparison import Comparison, Entry
from bench.report.figures.style import styles
from bench.report.markup import Cell, as_cell, format_percent, format_radius, format_significant
from bench.report.published import PublishedNumber
from bench.report.rates import REFERENCE, seconds_per_certificate
from bench.report.tables.accuracy import accuracy_cell, acr_text, radius_headers, share_cell
from bench.report.tables.cost import SPEEDUP
from bench.report.tables.paired import difference_cell, format_p, is_significant
from bench.report.tables.training import COLUMNS, written
from bench.types import Run

Values = dict[str, Any]

USUAL_RADIUS = 0.5
"""The radius nearest to it is shown against cost until another is chosen."""


def cell(value: float, written: Cell | str = "") -> Values:
    """Return one number of the page: its value as in the CSV, written as in the tables; None and "–" for NaN."""
    if math.isnan(value):
        return {"value": None, "text": "–", "low": "", "high": ""}
    made = as_cell(written)
    low, high = made.interval or ("", "")
    return {"value": value, "text": made.text, "low": low, "high": high}


def page_values(
    comparison: Comparison,
    frames: dict[str, pd.DataFrame],
    notes: Sequence[str],
    published: Sequence[PublishedNumber] = (),
) -> Values:
    """Return everything that the page shows as text, but for the pictures.

    Args:
        frames: "accuracy", "acr" and "cost" of `bench.report.tables.accuracy`, and "paired" of
            `bench.report.tables.paired`.
        notes: sentences below the leaderboard.
        published: numbers of papers for the data set, shown in grey.
    """
    header = comparison.runs[0].header
    methods = {one.label: one.method for one in (*comparison.everything, *comparison.costs)}
    return {
        "title": f"Certified robustness on {comparison.dataset}",
        "labels": [
            {"name": label, "color": style.color, "arxiv": arxiv_id(methods[label])}
            for label, style in styles(comparison).items()
            if label in comparison.labels
        ],
        "sigmas": [f"{sigma:g}" for sigma in comparison.sigmas],
        "radii": [
            {"value": radius, "text": text}
            for radius, text in zip(comparison.radii, radius_headers(comparison.radii), strict=True)
        ],
        "rows": [*leaderboard(frames), *published_rows(comparison, published)],
        "paired": paired_rows(frames["paired"]),
        "reference": comparison.name_of(REFERENCE),
        "usual": usual_radius(comparison.radii, max(entry.reach for entry in comparison.entries)),
        "classes": list(header.class_names),
        "images": _images(comparison),
        "entries": [_entry(entry) for entry in comparison.entries],
        "runs": [_provenance(run) for run in comparison.runs],
        "notes": list(notes),
        "summary": _summary(comparison),
    }


def usual_radius(radii: Sequence[float], reach: float) -> int:
    """Return the place of the radius within reach that is nearest to `USUAL_RADIUS`, shown where one is needed."""
    return min(
        range(len(radii)),
        key=lambda place: (radii[place] > reach, abs(radii[place] - USUAL_RADIUS), radii[place]),
    )


def published_rows(comparison: Comparison, numbers: Sequence[PublishedNumber]) -> list[Values]:
    """Return the rows of published numbers at the table's radii: per paper, variant and sigma, and at the best."""
    series: dict[tuple[str, str], dict[float, float]] = {}
    for number in numbers:
        variant = f" ({number.variant})" if number.variant else ""
        label = f"{comparison.name_of(number.method)}, {number.paper}{variant}"
        sigmas = ["best"] if number.sigma is None else [f"{number.sigma:g}", "best"]
        for sigma in sigmas:
            values = series.setdefault((label, sigma), {})
            values[number.radius] = max(values.get(number.radius, 0.0), number.certified_accuracy)
    none = cell(math.nan)
    return [
        {"label": label, "block": "published", "sigma": sigma, "images": 0, "is_published": True}
        | {
            "radii": [
                (cell(values[radius], format_percent(values[radius])) if radius in values else none)
                | {"sigma": sigma, "leads": False}
                for radius in comparison.radii
            ]
        }
        | dict.fromkeys(("acr", "clean", "abstention", "seconds", "speedup"), none)
        for (label, sigma), values in series.items()
        if any(radius in values for radius in comparison.radii)
    ]


def leaderboard(frames: dict[str, pd.DataFrame]) -> list[Values]:
    """Return the rows of the leaderboard: one per label and sigma, and per label for the best over sigma."""
    acr, costs = (
        {(row["label"], row["sigma"]): row for _, row in frames[name].iterrows()} for name in ("acr", "cost")
    )
    rows = []
    for (selection, block, label), part in frames["accuracy"].groupby(
        ["selection", "block", "label"], sort=False
    ):
        sigma = part["sigma"].iloc[0] if selection == "fixed" else None
        rows.append(
            {"label": label, "block": block, "sigma": "best" if sigma is None else f"{sigma:g}"}
            | {"images": int(part["images"].iloc[0])}
            | {"radii": [_accuracy_cell(row) for _, row in part.iterrows()]}
            | _summary_cells(acr.get((label, sigma)))
            | _cost_cells(costs.get((label, sigma)))
            | _training_cells(part.iloc[0] if sigma is not None else {})
        )
    return rows


def cost_points(comparison: Comparison, radius: float) -> list[Values]:
    """Return accuracy at `radius` and the best sigma against cost, one point per label with a measured cost.

    The cost is that at the chosen sigma or, where this was not measured, at the measured sigma nearest to it.
    """
    points = []
    for label in comparison.labels:
        best = comparison.best_at(label, radius)
        cost = None if best is None else comparison.cost_near(label, best.sigma)
        if best is None or cost is None:
            continue
        share, seconds = best.curve.at(radius), seconds_per_certificate(cost)
        low, high = share.interval()
        points.append(
            {"label": label, "sigma": f"{best.sigma:g}"}
            | {"accuracy": 100 * share.value, "low": 100 * low, "high": 100 * high}
            | {"first": seconds.first, "seconds": seconds.median, "third": seconds.third}
            | {"parameters": cost.parameters}
        )
    return [point | {"offset": _offset(point, points)} for point in points]


def _offset(point: Values, points: Sequence[Values]) -> int:
    """Return where a point's name stands, in pixels from it: below where a higher point is near, else above."""
    near = [one for one in points if abs(math.log(one["seconds"] / point["seconds"])) < math.log(1.5)]
    return -9 if point["accuracy"] == max(one["accuracy"] for one in near) else 24


def paired_rows(frame: pd.DataFrame) -> list[Values]:
    """Return the rows of a `bench.report.tables.paired.paired_frame` for the page."""
    return [
        {"first": row["first_label"], "second": row["second_label"], "sigma": f"{row['sigma']:g}"}
        | {"radius": row["radius"], "radius_text": radius}
        | {"is_significant": is_significant(row), "difference": cell(row["difference"], difference_cell(row))}
        | {name: cell(row[name], format_p(row[name])) for name in ("p", "p_holm")}
        | {name: int(row[name]) for name in ("only_first", "only_second")}
        for radius, (_, row) in zip(
            radius_headers(list(frame.get("radius", ()))), frame.iterrows(), strict=True
        )
    ]


def _accuracy_cell(row: Any) -> Values:
    """Return one accuracy, "–" without an interval beyond R_max."""
    written = accuracy_cell(row)
    return cell(row["accuracy"], written) | {"sigma": f"{row['sigma']:g}", "leads": written.is_best}


def _summary_cells(row: Any) -> Values:
    if row is None:
        return dict.fromkeys(("acr", "clean", "abstention"), cell(math.nan))
    low, high = ("" if math.isnan(row[name]) else f"{row[name]:.3f}" for name in ("acr_low", "acr_high"))
    return {"acr": cell(row["acr"], Cell(text=acr_text(row), interval=(low, high)))} | {
        short: cell(row[name], share_cell(row, name))
        for short, name in (("clean", "clean_accuracy"), ("abstention", "abstention"))
    }


def _cost_cells(row: Any) -> Values:
    cells, parts = {}, ("first_quartile", "median", "third_quartile")
    for short, name in (("seconds", "seconds_per_certificate"), ("speedup", SPEEDUP)):
        values = [math.nan if row is None else row.get(f"{name}_{part}", math.nan) for part in parts]
        first, median, third = ("" if math.isnan(value) else format_significant(value) for value in values)
        cells[short] = cell(values[1], Cell(text=median, interval=(first, third)))
    return cells


def _training_cells(row: Any) -> Values:
    """Return what a row of one sigma took to train, from its columns in an `accuracy_frame`."""
    found = {column: row.get(column) for column in COLUMNS.values()}
    return {
        name: cell(math.nan) if value is None or pd.isna(value) else cell(float(value), written(value))
        for name, value in found.items()
    }


def _images(comparison: Comparison) -> list[Values]:
    """Return the images that any entry holds, by index, with their labels."""
    labels: dict[int, int] = {}
    for entry in comparison.entries:
        labels.update(zip(entry.columns.indices.tolist(), entry.columns.label.tolist(), strict=True))
    return [{"index": index, "label": labels[index]} for index in sorted(labels)]


def _entry(entry: Entry) -> Values:
    """Return the certificates of one entry: per image index the class, radius and counts of both stages."""
    return {
        "label": entry.label,
        "sigma": f"{entry.sigma:g}",
        "records": {
            record.index: [
                record.certified,
                record.radius,
                format_radius(record.radius, 3),
                sorted(record.counts_estimation, key=lambda pair: -pair[1]),
                sorted(record.counts_selection, key=lambda pair: -pair[1]),
            ]
            for record in entry.records
        },
    }


def _summary(comparison: Comparison) -> str:
    """Return what is compared and under which protocol; what a log denies comes first, and is not stated after it."""
    images = max(len(entry.records) for entry in comparison.entries)
    counted = (
        _counted(len(comparison.labels), "method"),
        _counted(len(comparison.sigmas), "noise level"),
        _counted(images, "image"),
    )
    from_logs = [label for label in comparison.labels if _is_from_log(comparison, label)]
    measured = [label for label in comparison.labels if label not in from_logs]
    sentences = [*comparison.warnings, f"{', '.join(counted)}."]
    if from_logs:
        whose = f"Radii of {', '.join(from_logs)}" if measured else "All radii"
        sentences.append(
            f"{whose} are those of published logs: noise and counts are unknown, and n, n0 and alpha are as stated for "
            "them."
        )
    if measured:
        sentences.append(_protocol(comparison, "Every other method" if from_logs else "Every method"))
    return " ".join(sentences)


def _protocol(comparison: Comparison, who: str) -> str:
    """Return one sentence on the protocol of the runs that no log stands behind."""
    headers = [run.header for run in comparison.runs if not run.header.logs]
    first = headers[0]
    fields = ("seed", "noise_version", "n0", "n", "alpha", "estimation", "bound")
    unlike = [name for name in fields if any(getattr(one, name) != getattr(first, name) for one in headers)]
    if unlike:
        named = ", ".join(unlike).replace("_", " ")
        return f"{who} is certified on the same images; the runs differ in {named}: see how each was made."
    return (
        f"{who} is certified by one protocol: the same images under the same noise, {first.n0} samples to select a "
        f"class and {first.n:,} to estimate its probability, each certificate wrong with probability {first.alpha:g} "
        "at most."
    )


def _is_from_log(comparison: Comparison, label: str) -> bool:
    return any(entry.label == label and entry.header.logs for entry in comparison.everything)


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _provenance(run: Run) -> Values:
    header = run.header
    is_drawn_here, stated = header.seed >= 0, ", as stated for the log" if header.logs else ""
    shown = {
        "command": header.command,
        "created": header.created,
        "git revision": header.git_revision,
        "data set": f"{header.dataset}, subset {header.subset}, {len(header.indices)} images",
        "samples": f"n0 = {header.n0}, n = {header.n}, estimation {header.estimation}{stated}",
        "bound": f"{header.bound}, alpha = {header.alpha:g}{stated}",
        "noise": f"seed {header.seed}, blocks of {header.noise_block}" if is_drawn_here else "unknown",
        "arithmetic": f"{header.precision} on {header.device_type}" if is_drawn_here else "unknown",
        "published logs": _pairs({name: log["file"] for name, log in header.logs.items()}),
        "hardware": _pairs(header.hardware),
        "libraries": _pairs(header.libraries),
        "checkpoints (SHA-256)": _pairs({name: sha[:16] for name, sha in header.checkpoints.items()}),
    }
    return {"name": str(run.folder), "facts": [[name, text] for name, text in shown.items() if text]}


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
