"""Runs side by side -> entries over the same images, so that no method is flattered; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from bench.config.labels import DISPLAYED, Labels
from bench.errors import ProtocolError, RecordsError
from bench.records.columns import Columns, columns_of
from bench.report.doubts import (
    cautions_of,
    composed_certificates,
    decided_radii,
    denied_alpha,
    identical_counts,
    impossible_radii,
    log_notes,
    trained_weights,
    unfinished,
    unlike_labels,
    unseen_weights,
)
from bench.report.lower_bounds import LowerBounds, lower_bounds
from bench.report.markup import Table
from bench.report.metrics import (
    Certified,
    Curve,
    Mean,
    Share,
    abstention,
    acr_of,
    certified,
    clean_accuracy,
    common_images,
    curve_of,
    group,
    noisy_accuracy,
)
from bench.report.rates import Quartiles, speedups
from bench.report.variants import variant_of
from bench.smoothing.estimation import largest_radius
from bench.types import CostRecord, Record, Run, RunHeader


@dataclass(frozen=True, kw_only=True)
class Named:
    """One method at one sigma in one run.

    Attributes:
        label: what readers call the method, with the run's folder behind it where there are several runs.
        row: the method's own name, with the folder behind it likewise; CSV files hold it.
        run: name of the run's folder.
        run_number: position of the run among those compared.
    """

    label: str
    row: str
    method: str
    run: str
    run_number: int
    sigma: float


@dataclass(frozen=True, kw_only=True)
class Entry(Named):
    """Its certificates, by ascending image index, and the header of their run."""

    records: Sequence[Record]
    header: RunHeader

    @cached_property
    def columns(self) -> Columns:
        """Its certificates in columns."""
        return columns_of(self.records)

    @property
    def indices(self) -> frozenset[int]:
        """Image indices certified."""
        return frozenset(self.columns.indices.tolist())

    @cached_property
    def curve(self) -> Curve:
        """Certified accuracy at every radius."""
        return curve_of(self.certified.radii)

    @cached_property
    def certified(self) -> Certified:
        """Certified radii by image."""
        return certified(self.columns)

    @cached_property
    def lower_bounds(self) -> LowerBounds:
        """The lower bounds of p_A of its images."""
        return lower_bounds(self)

    @cached_property
    def acr(self) -> Mean:
        """The average certified radius."""
        return acr_of(self.certified.radii)

    @cached_property
    def noisy_accuracy(self) -> Mean:
        """The base classifier's accuracy under noise."""
        return noisy_accuracy(self.columns)

    @cached_property
    def clean_accuracy(self) -> Share | None:
        """The base classifier's accuracy without noise; None where a record does not hold it."""
        return clean_accuracy(self.columns)

    @cached_property
    def abstention(self) -> Share | None:
        """The share of abstentions; None where skipped images leave it unknown."""
        return abstention(self.columns)

    @cached_property
    def reach(self) -> float:
        """R_max: the largest radius that its n samples can certify, or that a published log states.

        Of a sequential run it is the largest radius of the table that they can certify: no other one is decided.
        """
        largest = largest_radius(self.header, self.sigma)
        if self.header.stops_early:
            largest = max((radius for radius in self.header.radii if radius <= largest), default=0.0)
        return max(largest, float(self.columns.radius.max()))

    @cached_property
    def has_counts(self) -> bool:
        """Whether all its certificates have counts, as those of published logs have not."""
        return bool(self.columns.has_counts.all())

    @cached_property
    def is_composed(self) -> bool:
        """Whether several bounds make its certificates, so that no one p_A does."""
        return bool(self.columns.is_composed.any())

    @property
    def checkpoint(self) -> str | None:
        """What tells its training from another, see `doubts.trained_weights`; None where the header holds neither."""
        return trained_weights(self.header, f"{self.method}/{self.sigma:g}")


@dataclass(frozen=True, kw_only=True)
class MeasuredCost(Named):
    """Its measured cost, and its speedup relative to `rates.REFERENCE` in the same run, if that was measured."""

    cost: CostRecord
    speedup: Quartiles | None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What tables, figures and the page draw from; `compare` makes it, once per command.

    Attributes:
        runs: what is compared, in the order given.
        entries: per sigma, ascending, then in the order of the runs and their headers; within one sigma all
            entries hold the same images.
        best: entries to choose the best sigma from: every label at the same sigmas, over the same images;
            empty where the labels share no sigma.
        everything: the entries before anything was left out, for timings.
        costs: measured costs, in the order of the runs and their headers.
        radii: table columns, ascending.
        notes: one sentence for each thing left out, and for what is to be known of a row.
        cautions: those of the notes that belong under every table.
        dataset: what readers call the data set.
        chosen: names that the user gave, for what is not among the rows.
    """

    runs: tuple[Run, ...]
    entries: tuple[Entry, ...]
    best: tuple[Entry, ...]
    everything: tuple[Entry, ...]
    costs: tuple[MeasuredCost, ...]
    radii: tuple[float, ...]
    notes: tuple[str, ...]
    cautions: tuple[str, ...] = ()
    dataset: str = ""
    chosen: Labels = DISPLAYED

    def cautioned(self, table: Table) -> Table:
        """Return a table with the cautions among its notes."""
        return replace(table, notes=(*table.notes, *(one for one in self.cautions if one not in table.notes)))

    @property
    def sigmas(self) -> tuple[float, ...]:
        """Sigmas with at least one record, ascending."""
        return tuple(sorted({entry.sigma for entry in self.entries}))

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels with at least one record, in the order of the runs and their headers."""
        return tuple(dict.fromkeys(entry.label for entry in self.everything))

    @cached_property
    def impossible(self) -> tuple[Entry, ...]:
        """Entries of published logs with radii that the stated n and alpha cannot certify."""
        return tuple(entry for entry in self.everything if impossible_radii(entry))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader must know before the numbers: one sentence for each entry whose alpha its radii deny."""
        return tuple(denied_alpha(entry, impossible_radii(entry)) for entry in self.impossible)

    @property
    def compares_acr(self) -> bool:
        """False where the ACR of an entry is a lower bound only, as sequential estimation leaves it."""
        return not any(entry.header.stops_early for entry in self.entries)

    def name_of(self, method: str) -> str:
        """Return what readers call a method, whether it is among the rows or not."""
        held = dict.fromkeys(name for run in self.runs for name in run.header.methods)
        return self.chosen.of_methods([*held, method])[method]

    def at_sigma(self, sigma: float) -> tuple[Entry, ...]:
        """Return the entries of one sigma."""
        return tuple(entry for entry in self.entries if entry.sigma == sigma)

    def best_of(self, label: str) -> tuple[Entry, ...]:
        """Return the entries of one label among which its best sigma is chosen."""
        return tuple(entry for entry in self.best if entry.label == label)

    def best_at(self, label: str, radius: float) -> Entry | None:
        """Return a label's entry of highest certified accuracy at a radius.

        On a tie it is one whose n samples can certify the radius, then that of the smallest sigma.

        It is optimistic: sigma is chosen on the very images that are then counted, as papers do. None where the labels
        share no sigma.
        """
        return min(
            self.best_of(label),
            key=lambda entry: (-entry.curve.at(radius).count, entry.reach < radius, entry.sigma),
            default=None,
        )

    def cost_near(self, label: str, sigma: float) -> CostRecord | None:
        """Return a label's cost at the measured sigma nearest to this one; None where none was measured."""
        costs = (one.cost for one in self.costs if one.label == label)
        return min(costs, key=lambda cost: abs(cost.sigma - sigma), default=None)


def compare(runs: Sequence[Run], chosen: Labels = DISPLAYED) -> Comparison:
    """Return the runs' records made comparable: within a sigma, only images that all methods certified.

    Args:
        runs: what is compared.
        chosen: names in place of the display names.

    Raises:
        RecordsError: there is no run, or the runs hold no record.
        ProtocolError: a run is given twice, an image is certified twice or has two labels, or two methods share none.
        UsageError: a name is chosen for a method that no run holds, or is another's.
    """
    runs = [replace(run, records=columns_of(run.records)) for run in runs]
    names = Names(runs, chosen)
    entries = [entry for number, run in enumerate(runs) for entry in _entries(run, number, names)]
    if not entries:
        raise RecordsError(
            "nothing to compare: the runs hold no certified image; continue one with `bench run`"
        )
    radii, left_out = decided_radii(runs)
    cautions = cautions_of(runs, names)
    notes = [
        *left_out,
        *log_notes(runs, names),
        *unfinished(runs, names, entries),
        *cautions,
        *unseen_weights(runs, names),
    ]
    kept: list[Entry] = []
    for sigma in sorted({entry.sigma for entry in entries}):
        kept += _on_common_images(
            [entry for entry in entries if entry.sigma == sigma], f"sigma {sigma:g}", notes
        )
    return Comparison(
        runs=tuple(runs),
        entries=tuple(kept),
        best=tuple(_best_candidates(entries, notes)),
        everything=tuple(entries),
        cautions=cautions,
        costs=tuple(cost for number, run in enumerate(runs) for cost in _costs(run, number, names)),
        radii=radii,
        notes=(*identical_counts(kept), *composed_certificates(kept), *notes),
        dataset=" and ".join(dict.fromkeys(chosen.of_dataset(run.header.dataset) for run in runs)),
        chosen=chosen,
    )


class Names:
    """What rows of several runs are called.

    Attributes:
        runs: name of each run, see `run_names`.
        methods: method -> what readers call it.
    """

    def __init__(self, runs: Sequence[Run], chosen: Labels) -> None:
        """Name all methods of the runs."""
        self.runs = run_names(runs)
        held = [name for run in runs for name in (*run.header.methods, *(one.method for one in run.costs))]
        held += [method for run in runs for method, _ in columns_of(run.records).groups]
        self.methods = chosen.of_methods(held)

    def label(self, method: str, number: int) -> str:
        """Return what readers call a method of run `number`."""
        return label_of(self.methods.get(method, method), number, self.runs)


def run_names(runs: Sequence[Run]) -> tuple[str, ...]:
    """Return one name per run: its folder's, or the whole path where two folders have the same name.

    Folders that are named as training runs of one variant have the whole path all or none, and stay of one variant.

    Raises:
        ProtocolError: a run is given twice.
    """
    files = Counter(run.folder.resolve() for run in runs)
    repeated = [str(path) for path, times in files.items() if times > 1]
    if repeated:
        raise ProtocolError(f"run {repeated[0]} is given twice; name each run once")
    paths = [run.folder.absolute() for run in runs]
    names = Counter(path.name for path in paths)
    unclear = {variant_of(name) for name, times in names.items() if times > 1}
    return tuple(str(path) if variant_of(path.name) in unclear else path.name for path in paths)


def label_of(method: str, number: int, names: Sequence[str]) -> str:
    """Return the method's name, with the name of run `number` behind it where there are several runs."""
    return method if len(names) == 1 else f"{method} ({names[number]})"


def _entries(run: Run, number: int, names: Names) -> list[Entry]:
    groups = group(run.records)
    return [
        Entry(**_name(key, number, names), records=groups[key], header=run.header)
        for key in _in_header_order(groups, run)
    ]


def _costs(run: Run, number: int, names: Names) -> list[MeasuredCost]:
    costs = {(cost.method, cost.sigma): cost for cost in run.costs}
    ratios = speedups(run.costs)
    return [
        MeasuredCost(**_name(key, number, names), cost=costs[key], speedup=ratios.get(key))
        for key in _in_header_order(costs, run)
    ]


def _name(key: tuple[str, float], number: int, names: Names) -> dict[str, Any]:
    """Return the fields of `Named` for a method and sigma of run `number`."""
    named = {"method": key[0], "sigma": key[1], "run": names.runs[number], "run_number": number}
    return named | {"label": names.label(key[0], number), "row": label_of(key[0], number, names.runs)}


def _in_header_order(keys: Iterable[tuple[str, float]], run: Run) -> list[tuple[str, float]]:
    order = {method: position for position, method in enumerate(run.header.methods)}
    return sorted(keys, key=lambda key: (order.get(key[0], len(order)), *key))


def _on_common_images(entries: Sequence[Entry], where: str, notes: list[str]) -> list[Entry]:
    """Return the entries restricted to the images that all of them hold; add a note if that drops any."""
    common = common_images([entry.certified for entry in entries])
    if not len(common):
        labels = ", ".join(dict.fromkeys(entry.label for entry in entries))
        raise ProtocolError(
            f"{where}: no image was certified by all of {labels}; compare runs of the same subset"
        )
    kept = [
        one if len(one.records) == len(common) else replace(one, records=one.columns.of_images(common))
        for one in entries
    ]
    if (fault := unlike_labels(kept)) is not None:
        raise ProtocolError(f"{where}: {fault}; compare runs whose classes have one order")
    most = max(len(entry.records) for entry in entries)
    if most > len(common):
        notes.append(
            f"{where.capitalize()}: only the {len(common)} images that all rows have are compared, of up to {most}."
        )
    return kept


def _best_candidates(entries: Sequence[Entry], notes: list[str]) -> list[Entry]:
    """Return the entries at the sigmas that every label has, over common images."""
    sigmas: dict[str, set[float]] = {}
    for entry in entries:
        sigmas.setdefault(entry.label, set()).add(entry.sigma)
    shared = set.intersection(*sigmas.values())
    if not shared:
        notes.append("No best over sigma: the rows have no sigma in common.")
        return []
    if shared != set.union(*sigmas.values()):
        listed = ", ".join(f"{sigma:g}" for sigma in sorted(shared))
        notes.append(f"The best over sigma is chosen among {listed}, the sigmas that all rows have.")
    told = notes if len(shared) > 1 else []  # of one sigma its own note tells
    return _on_common_images([entry for entry in entries if entry.sigma in shared], "best over sigma", told)
