"""What a header and its lines must mean to be believed: values in range, counts that add up, radii that they certify.

A file is checked whenever it is read, so that no number of a table rests on a digit that was changed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from decimal import Decimal

from bench.config.names import NUM_CLASSES
from bench.errors import clipped, shown
from bench.smoothing.estimation import bounds_fault, certified_radius, composed
from bench.smoothing.stats import largest_radius
from bench.types import (
    ABSTAIN,
    LARGEST_RADIUS,
    LEAST_ALPHA,
    LEAST_RADIUS,
    CostRecord,
    PartBound,
    Protocol,
    Record,
    RunHeader,
)

LONGEST_SECONDS = 1e10
"""Longest time that one certificate may have taken: centuries."""

ROUNDING = 1e-10
"""Share of a radius, or of sigma, by which libraries of another version may round it otherwise."""

ANOTHER_ALPHA = "it was made at another alpha (or n) than"
"""Begins the note of a published log whose radii its n and alpha cannot certify; tables repeat it."""

KEPT = 2**17
"""Radii of counts that are remembered, at most: runs hold the same counts again and again."""

Fault = Callable[[Record], str | None]
"""Says of a record which of its fields is wrong, and why; None where all are right."""


def header_fault(header: RunHeader) -> str | None:
    """Return which field of a header has a value that no run can have, and why; None where there is none."""
    return next(
        (
            f"{name} is {shown(value)}, expected {expected}"
            for name, value, holds, expected in _demands(header)
            if not holds
        ),
        None,
    )


def _demands(header: RunHeader) -> Iterable[tuple[str, object, bool, str]]:
    """Yield (field, value, whether it is in range, what is expected), what others rest on first."""
    is_log = bool(header.logs)
    for name in ("n", "n0"):
        value = getattr(header, name)
        yield name, value, 1 <= value <= 2**53, "1 or more, and not above 2**53"
    yield "alpha", header.alpha, 0 < header.alpha < 1, "a number between 0 and 1"
    yield "alpha", header.alpha, header.alpha >= LEAST_ALPHA, f"{LEAST_ALPHA:g} or more"
    yield "seed", header.seed, header.seed >= (-1 if is_log else 0), "0 or more"
    yield "noise_block", header.noise_block, header.noise_block >= (not is_log), "1 or more"
    drawn = header.drawn_n
    yield "drawn_n", drawn, drawn is None or drawn > header.n, f"more than n, {header.n}"
    alpha = header.drawn_alpha
    yield "drawn_alpha", alpha, alpha is None or LEAST_ALPHA <= alpha < 1, "a number between 0 and 1"
    for name in ("methods", "sigmas", "indices", "class_names", "radii"):
        values = getattr(header, name)
        yield name, values, bool(values), "one value or more"
    for name in ("methods", "sigmas", "indices"):
        values = getattr(header, name)
        yield name, values, len(set(values)) == len(values), "different values"
    yield "indices", min(header.indices), min(header.indices) >= 0, "each 0 or more"
    yield "sigmas", header.sigmas, all(0 < one < math.inf for one in header.sigmas), "finite numbers above 0"
    radii = header.radii
    are_radii = all(0 <= one < math.inf for one in radii) and list(radii) == sorted(radii)
    yield "radii", radii, are_radii, "ascending finite numbers, each 0 or more"
    yield "radii", radii, radii[-1] <= LARGEST_RADIUS, f"each {LARGEST_RADIUS:g} or less"
    are_large = all(one == 0 or one >= LEAST_RADIUS for one in radii)
    yield "radii", radii, are_large, f"each 0, or {LEAST_RADIUS:g} or more"
    yield "image_shape", header.image_shape, min(header.image_shape) >= 1, "three numbers, each 1 or more"
    sizes = header.batch_sizes
    has_sizes = is_log or sizes.keys() >= set(header.methods)
    yield "batch_sizes", sizes, has_sizes, "one for each of the methods"
    yield "batch_sizes", sizes, all(size >= 1 for size in sizes.values()), "each 1 or more"
    options = header.config.get("options", {})
    is_table = isinstance(options, dict) and all(isinstance(values, dict) for values in options.values())
    yield "config.options", options, is_table, "options by method"
    yield "logs", header.logs, all(map(_is_log, header.logs.values())), "a file and notes for each log"
    took = [pair for one in header.training.values() for pair in one.items()]
    yield "training", took, all(map(_is_count, took)), "counts from 0 to 2**53, seconds and a sigma"


def _is_count(pair: tuple[str, int | float]) -> bool:
    name, value = pair
    return 0 <= value <= 2**53 and (isinstance(value, int) or name in ("seconds", "sigma"))


def _is_log(value: object) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("file"), str):
        return False
    notes = value.get("notes")
    return isinstance(notes, list) and all(isinstance(note, str) for note in notes)


def cost_fault(cost: CostRecord, header: RunHeader, *, is_composed: bool = False) -> str | None:
    """Return which field of a cost is wrong, and why; None where all are right.

    Args:
        is_composed: the method has composed certificates, which may ask for other than n0 + n samples.
    """
    if cost.method not in header.methods or cost.sigma not in header.sigmas:
        return f"the cost of {clipped(cost.method)} at sigma {cost.sigma:g} is not part of this run"
    least = {"batch_size": 1, "samples_per_repetition": 1, "samples_per_certificate": 1}
    for name in (*least, "parameters", "peak_memory_bytes"):
        if not least.get(name, 0) <= (getattr(cost, name) or 0) <= 2**53:
            return (
                f"{name} is {getattr(cost, name)}, expected {least.get(name, 0)} or more, and not above 2**53"
            )
    asked = header.n0 + header.n
    if cost.samples_per_certificate != asked and not is_composed:
        return f"samples_per_certificate is {cost.samples_per_certificate}, expected n0 + n = {asked}"
    seconds = cost.repetition_seconds
    if not seconds or not all(0 < one < math.inf for one in seconds):
        return f"repetition_seconds is {shown(seconds)}, expected finite numbers above 0"
    return None


def classes_of(header: RunHeader) -> int:
    """Return how many classes records may have: those of the header, or of a published log's data set."""
    classes = len(header.class_names)
    return max(classes, NUM_CLASSES.get(header.dataset, 0)) if header.logs else classes


def record_fault(header: RunHeader, *, repairs: bool = False) -> Fault:
    """Return what checks each record of a file under this header; n0, n and identity are checked before.

    Args:
        header: without a fault of its own.
        repairs: leave class and radius alone: they are computed anew from the counts.
    """
    classes, wanted = classes_of(header), header.n0 + header.n
    of_counts = _of_counts(header, classes, repairs=repairs)
    of_log, of_bounds = _of_log(header), _of_bounds(header, repairs=repairs)

    def fault(record: Record) -> str | None:
        if not 0 <= record.label < classes:
            return f"label is {record.label}, expected 0 to {classes - 1}"
        if not ABSTAIN <= record.predict < classes:
            return f"predict is {record.predict}, expected {ABSTAIN} to {classes - 1}"
        if record.clean is not None and not 0 <= record.clean < classes:
            return f"clean is {record.clean}, expected 0 to {classes - 1}"
        if not 0.0 <= record.seconds <= LONGEST_SECONDS:
            return f"seconds is {record.seconds}, expected a number from 0 to {LONGEST_SECONDS:g}"
        if record.bounds or record.certified_sigma is not None:
            return of_bounds(record)
        if record.counts_selection:
            return of_counts(record)
        if record.samples != wanted:
            return f"samples is {record.samples}, expected n0 + n, {wanted}"
        return of_log(record)

    return fault


def _of_counts(header: RunHeader, classes: int, *, repairs: bool) -> Fault:
    """Return what checks that a record's counts add up, and that class and radius are what they certify."""
    protocol, n0, n, stops = header.protocol, header.n0, header.n, header.stops_early
    known: dict[tuple[int, int, float], float | None] = {}
    uniform_of = _uniforms(protocol)
    is_scaled = header.estimation != "sequential"  # the bound is one of p_A, and sigma a factor of the radius

    def certified(k: int, drawn: int, sigma: float, uniform: float | None) -> float | None:
        if uniform is not None:  # another for each image
            return certified_radius(k, drawn, protocol, sigma, uniform)
        key = k, drawn, 1.0 if is_scaled else sigma
        if key not in known:
            if len(known) >= KEPT:
                known.clear()
            known[key] = certified_radius(k, drawn, protocol, key[2])
        found = known[key]
        return found * sigma if is_scaled and found is not None else found

    def fault(record: Record) -> str | None:
        counts = record.counts_estimation
        selection, drawn = _sum(record.counts_selection, classes), _sum(counts, classes)
        if selection is None or drawn is None:
            name = "counts_selection" if selection is None else "counts_estimation"
            return f"{name} is {shown(getattr(record, name))}, expected counts of ascending classes below {classes}"
        if selection != n0:
            return f"counts_selection adds up to {selection}, expected n0, {n0}"
        if record.samples != selection + drawn:
            return f"samples is {record.samples}, but its counts add up to {selection + drawn}"
        if record.uniform != (uniform := uniform_of(record.index)):
            return f"uniform is {record.uniform}, expected {uniform}"
        if not counts:
            return _skip_fault(record, header)
        if not (0 < drawn <= n if stops else drawn == n):
            return f"counts_estimation adds up to {drawn}, expected {'at most ' * stops}n, {n}"
        if repairs:
            return None
        selected, k = record.selected, 0
        for label, count in counts:
            if label == selected:
                k = count
        return _outcome_fault(record, selected, certified(k, drawn, record.sigma, uniform), header.alpha)

    return fault


def _of_bounds(header: RunHeader, *, repairs: bool) -> Fault:
    """Return what checks that each bound of a composed certificate is certified by its counts, and they the record."""
    whole = header.protocol

    def fault(record: Record) -> str | None:
        bounds, last = record.bounds, record.bounds[-1] if record.bounds else None
        if last is None or record.certified_sigma != last.sigma:
            return f"certified_sigma is {record.certified_sigma}, expected that of the last of the bounds"
        if (wrong := bounds_fault([(one.name, one.share) for one in bounds])) is not None:
            return f"bounds: {wrong}"
        for position, one in enumerate(bounds):
            if (
                wrong := _bound_fault(one, part_of(whole, position, one.share), record.index, repairs)
            ) is not None:
                return f"bound {clipped(one.name)}: {wrong}"
        if last.num_classes != len(header.class_names):
            return f"bound {clipped(last.name)}: num_classes is {last.num_classes}, expected {len(header.class_names)}"
        counts = (last.counts_selection, last.counts_estimation)
        if (record.counts_selection, record.counts_estimation) != counts:
            return "counts are not those of the last of the bounds"
        drawn = sum(count for one in bounds for _, count in one.counts_selection + one.counts_estimation)
        if record.samples != drawn:
            return f"samples is {record.samples}, but the counts of its bounds add up to {drawn}"
        if record.uniform != (uniform := _uniforms(whole)(record.index)):
            return f"uniform is {record.uniform}, expected {uniform}"
        if not repairs and (record.predict, record.radius) != (found := composed(bounds)):
            return (
                f"predict and radius are {record.predict} and {record.radius!r}, but its bounds make {found}"
            )
        return None

    return fault


def part_of(whole: Protocol, position: int, share: float) -> Protocol:
    """Return `bench.smoothing.noise.part_protocol`, without torch where the bound takes no draw from a seed."""
    if whole.bound != "randomised":
        return replace(whole, alpha=whole.alpha * share)
    from bench.smoothing.noise import part_protocol

    return part_protocol(whole, position, share)


def _bound_fault(one: PartBound, part: Protocol, index: int, repairs: bool) -> str | None:
    if not (0 < one.sigma < math.inf and one.num_classes >= 2):
        return f"sigma and num_classes are {one.sigma} and {one.num_classes}, expected above 0 and 2 or more"
    selection, drawn = (
        _sum(one.counts_selection, one.num_classes),
        _sum(one.counts_estimation, one.num_classes),
    )
    if selection != part.n0 or drawn is None:
        return f"its counts add up to {selection} and {drawn}, expected n0, {part.n0}, and n"
    if not (0 <= drawn <= part.n if part.stops_early else drawn == part.n):
        return f"counts_estimation adds up to {drawn}, expected {'at most ' * part.stops_early}n, {part.n}"
    if repairs:
        return None
    k = dict(one.counts_estimation).get(one.selected, 0)
    certified = certified_radius(k, drawn, part, one.sigma, _uniforms(part)(index))
    return _outcome_fault(one, one.selected, certified, part.alpha)


def _sum(counts: Iterable[tuple[int, int]], classes: int) -> int | None:
    """Return the sum of counts; None where one is negative, or the classes do not ascend below `classes`."""
    total, last = 0, -1
    for label, count in counts:
        if label <= last or count < 0:
            return None
        total += count
        last = label
    return total if last < classes else None


def _uniforms(protocol: Protocol) -> Callable[[int], float | None]:
    """Return what gives an image's own draw for a randomised bound; None for a bound that takes none."""
    if protocol.bound != "randomised":
        return lambda index: None
    from bench.smoothing.noise import bound_uniform  # here, since torch comes with it

    return lambda index: bound_uniform(protocol, index)


def _skip_fault(record: Record, header: RunHeader) -> str | None:
    """Check an image without estimation samples; older files hold its selected class, newer ones an abstention."""
    mode = header.estimation
    is_right = record.selected == record.label
    if mode == "fixed" or (
        is_right and (mode == "skip-wrong" or not is_hopeless(header, record.sigma, record.uniform))
    ):
        return f"counts_estimation is empty, which {mode} estimation leaves no such image"
    if record.predict not in (ABSTAIN, record.selected):
        return f"predict is {record.predict}, but the image was skipped"
    return f"radius is {record.radius!r}, but the image was skipped" if record.radius else None


def is_hopeless(header: RunHeader, sigma: float, uniform: float | None) -> bool:
    """Return whether not even n samples of one class would certify it, so that none need be drawn.

    At the alpha that sampling went by; of both bounds one that is recertified may have had the lower.
    """
    protocol = header.protocol
    if header.drawn_alpha is not None:
        protocol, uniform = replace(protocol, alpha=header.drawn_alpha, bound="clopper-pearson"), None
    return certified_radius(header.n, header.n, protocol, sigma, uniform) is None


def _outcome_fault(
    record: Record | PartBound, selected: int, certified: float | None, alpha: float
) -> str | None:
    if certified is None:
        if record.predict != ABSTAIN:
            return f"predict is {record.predict}, but its counts certify no class at alpha {alpha:g}"
        return f"radius is {record.radius!r}, but its counts certify none" if record.radius else None
    if record.predict != selected:
        return f"predict is {record.predict}, but its counts certify class {selected} at alpha {alpha:g}"
    difference = record.radius - certified
    if difference and not abs(difference) <= ROUNDING * max(certified, record.sigma):
        return f"radius is {record.radius!r}, but its counts certify {certified!r} at alpha {alpha:g}"
    return None


def _of_log(header: RunHeader) -> Fault:
    """Return what checks a record without counts: it is of a log, and no radius is beyond what n draws certify."""
    limits = {sigma: largest_radius(header.n, header.alpha, sigma) for sigma in header.sigmas}

    def fault(record: Record) -> str | None:
        log = header.logs.get(f"{record.method}/{record.sigma:g}")
        if log is None:
            return "counts_selection is empty, which only records of a published log may be"
        if record.counts_estimation:
            return "counts_estimation holds samples, but counts_selection none"
        if not 0.0 <= record.radius < math.inf:
            return f"radius is {record.radius!r}, expected a finite number, 0 or more"
        if record.predict == ABSTAIN and record.radius:
            return f"radius is {record.radius!r}, but the image abstains"
        limit = limits[record.sigma]
        if record.radius <= limit * (1 + ROUNDING) or _is_noted(log):
            return None
        rounded = float(f"{limit:.{significant_digits(record.radius)}g}")
        if record.radius <= rounded:
            return None
        return f"radius is {record.radius!r}, but n and alpha certify {limit:.6g} at most"

    return fault


def _is_noted(log: Mapping[str, list[str]]) -> bool:
    return any(ANOTHER_ALPHA in note for note in log["notes"])


def significant_digits(number: float) -> int:
    """Return with how many significant digits Python writes a number."""
    return len(Decimal(repr(number)).normalize().as_tuple().digits)
