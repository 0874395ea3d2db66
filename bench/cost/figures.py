"""Records of `bench cost` -> figures: throughput by batch size, the time of dds by stage, accuracy against seconds."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.config.methods import kinds
from bench.cost.plan import splits_of_fastest
from bench.cost.records import CostRun
from bench.cost.summary import BEST, STAGES, Pair, Row, pairs, rows, stage_names
from bench.report.figures.cost import Point, accuracy_by_seconds
from bench.report.figures.style import (
    COLUMN_WIDTH,
    PAGE_WIDTH,
    SETTINGS,
    Style,
    literal,
    save_figure,
    sized_styles,
    use_plain_numbers,
)
from bench.report.markup import format_significant
from bench.report.published import PublishedNumber, published_numbers

STAGE_COLORS = ("#c9ccd1", "#7fa6c9", "#a8cbb7", "#e0b98c", "#8a8f98", "#57606a", "#d8a7b1", "#bfae83")
"""Colours of the stages of a sample, paler than those of methods, which they are not."""

SEEN = 0.004
"""Share of a sample's time from which a stage can be seen and is in the legend."""


def throughput_figure(run: CostRun) -> Figure | None:
    """Return samples per second against batch size on log axes, a panel per setting; None if nothing was swept.

    Bars are the quartiles over repetitions. Batch size 1 is timed sample by sample.
    """
    timed = pairs(run)
    settings = list(dict.fromkeys(pair.setting for pair in timed))
    if len({pair.batch_size for pair in timed}) < 2:
        return None
    by_method = _styles(run)
    width = min(PAGE_WIDTH, max(COLUMN_WIDTH + 1.2, 2.2 * len(settings) + 1.2))
    figure = Figure(figsize=(width, 2.7), layout="constrained")
    panels = figure.subplots(1, len(settings), sharey=True, squeeze=False).ravel()
    for panel, setting in zip(panels, settings, strict=True):
        for method in by_method:
            own = [pair for pair in timed if (pair.method, pair.setting) == (method, setting)]
            if own:
                _draw_sweep(panel, own, by_method[method])
        panel.set_xscale("log", base=2)
        panel.set_yscale("log")
        sizes = sorted({pair.batch_size for pair in timed if pair.setting == setting})
        panel.set_xticks(sizes, [f"{size:,}" for size in sizes])
        panel.minorticks_off()
        use_plain_numbers(panel.yaxis)
        panel.set_title(setting)
        panel.set_xlabel("batch size")
    panels[0].set_ylabel("samples per second")
    handles: dict[str, Any] = {}
    for panel in panels:
        lines, labels = panel.get_legend_handles_labels()
        handles |= dict(zip(labels, lines, strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside right center")
    return _with_device(figure, run)


def _draw_sweep(axes: Axes, own: Sequence[Pair], style: Style) -> None:
    values = [pair.throughput for pair in own]
    medians = [value.median for value in values]
    lows = [value.median - value.first for value in values]
    highs = [value.third - value.median for value in values]
    axes.errorbar(
        [pair.batch_size for pair in own],
        medians,
        yerr=[lows, highs],
        label=literal(own[0].method),
        color=style.color,
        marker=style.marker,
        linestyle=style.line,
        capsize=1.8,
    )


def stages_figure(run: CostRun) -> Figure | None:
    """Return the seconds of one sample by stage as stacked bars, a bar per method and setting; None without any.

    Each bar is divided by its own length, which stands beside it: methods differ a thousandfold. A stage has the
    same colour in every figure.
    """
    splits = splits_of_fastest(run)
    if not splits:
        return None
    names = [
        name
        for name in stage_names(splits)
        if any(one.stages.get(name, 0.0) > SEEN * sum(one.stages.values()) for one in splits)
    ]
    every = (*STAGES, *sorted({*names} - {*STAGES}))
    colors = dict(zip(every, itertools.cycle(STAGE_COLORS), strict=False))
    figure = Figure(figsize=(PAGE_WIDTH * 0.8, 0.26 * len(splits) + 1.15), layout="constrained")
    axes = figure.subplots()
    for position, one in enumerate(splits):
        total, left = sum(one.stages.values()), 0.0
        for name in names:
            share = 100 * one.stages.get(name, 0.0) / total
            axes.barh(position, share, left=left, height=0.66, color=colors[name], linewidth=0)
            left += share
        axes.annotate(
            _duration(total / one.batch_size),
            (100, position),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    labels = [f"{one.method}, {one.setting}, batch {one.batch_size}" for one in splits]
    axes.set_yticks(range(len(labels)), [literal(label) for label in labels])
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.set_xlim(0, 112)
    axes.set_xticks(range(0, 101, 25))
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("share of the time of a sample (%)")
    patches = [matplotlib.patches.Patch(color=colors[name], label=name) for name in names]
    figure.legend(handles=patches, loc="outside lower center", ncols=min(len(names), 4))
    return _with_device(figure, run)


def _duration(seconds: float) -> str:
    is_long = seconds >= 1
    return f"{format_significant(seconds if is_long else 1000 * seconds)} {'s' if is_long else 'ms'}"


def published_rows(run: CostRun, numbers: Sequence[PublishedNumber]) -> list[tuple[Row, PublishedNumber]]:
    """Return the measured methods at best, with published accuracies at the radius that most of them have.

    Of radii that equally many have, the smallest above 0 counts; of a method's numbers there, the highest.
    """
    measured = {row.size.published: row for row in rows(run) if row.comparison == BEST and row.size.published}
    radii: dict[float, set[str]] = {}
    for number in numbers:
        if number.method in measured and number.radius > 0:
            radii.setdefault(number.radius, set()).add(number.method)
    if not radii:
        return []
    radius = min(radii, key=lambda radius: (-len(radii[radius]), radius))
    found = []
    for name, row in measured.items():
        own = [one for one in numbers if (one.method, one.radius) == (name, radius)]
        if own:
            found.append((row, max(own, key=lambda one: one.certified_accuracy)))
    return found


def accuracy_figure(run: CostRun, numbers: Sequence[PublishedNumber]) -> Figure | None:
    """Return published certified accuracy against measured seconds per image; None where no number is known.

    The method under study is a line at its seconds where nobody has published its accuracy. The source of each
    accuracy is above the panel.
    """
    found = published_rows(run, numbers)
    if not found:
        return None
    session = run.sessions[-1]
    known = {row.size.method: number.certified_accuracy for row, number in found}
    points = [
        Point(
            label=row.size.method,
            parameters=row.size.parameters,
            seconds=row.seconds_per_image(session.n0 + session.n[0]),
            accuracy=known.get(row.size.method, math.nan),
        )
        for row in rows(run)
        if row.comparison == BEST and (row.size.method in known or _is_studied(row.size.method))
    ]
    figure = accuracy_by_seconds(points, _styles(run), PAGE_WIDTH * 0.7)
    figure.set_figheight(figure.get_figheight() + 0.4 + 0.16 * len(found))
    axes = figure.axes[0]
    axes.set_xlabel(f"measured seconds per image (n = {session.n[0]:,}, from throughput)")
    axes.set_ylabel(f"published accuracy at radius {found[0][1].radius:g} (%)")
    sources = [f"{row.size.method}: {number.paper}, {number.source}" for row, number in found]
    axes.set_title(literal("\n".join(sources)), loc="left", fontsize=8, color="0.35")
    return _with_device(figure, run)


def _is_studied(method: str) -> bool:
    """Return whether a method is the one under study, which is drawn also where no accuracy is published."""
    return kinds([method])[method] == "studied"


def _styles(run: CostRun) -> dict[str, Style]:
    return sized_styles(size.method for size in run.sizes)


def _with_device(figure: Figure, run: CostRun) -> Figure:
    is_cpu = run.header.device_type == "cpu"
    figure.suptitle(
        literal(run.header.device + (" (CPU numbers)" if is_cpu else "")), fontsize=8, color="0.35"
    )
    return figure


def write_figures(run: CostRun, folder: Path) -> list[Path]:
    """Write each figure that the records allow as .png and .pdf, the command in their metadata; return the paths."""
    written: list[Path] = []
    with matplotlib.style.context(["default", SETTINGS]):
        made = {
            "throughput": throughput_figure(run),
            "stages": stages_figure(run),
            "accuracy": accuracy_figure(run, published_numbers(run.header.dataset)),
        }
        for name, figure in made.items():
            if figure is not None:
                written += save_figure(figure, folder / name, run.sessions[-1].command)
                continue
            for suffix in (".png", ".pdf"):
                (folder / name).with_suffix(suffix).unlink(missing_ok=True)
    return written
