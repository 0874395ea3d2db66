"""Checks of many records at once: which of them need none of the checks of `meaning`, one by one.

What these checks pass, those of `meaning` pass too; what is left is looked at there, which says what is wrong.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import special

from bench.records.columns import Columns, Counts, Flags, Floats, Ints
from bench.records.meaning import LONGEST_SECONDS, ROUNDING, classes_of, is_hopeless
from bench.smoothing.estimation import certified_radius
from bench.smoothing.stats import upper_tails
from bench.types import ABSTAIN, RunHeader

MOST_PAIRS, LARGEST_COUNT = 1000, 2**53
"""Classes with samples, and samples of one, of which an int64 holds any sum."""

FEW_PLACES = 2**22
"""Up to here positions of images are places of an array."""


def strangers(records: Columns, header: RunHeader) -> Flags:
    """Return (I,) which records may not be in the file: of no curve or image of it, of other n, or there twice."""
    places = {name: place for place, name in enumerate(header.methods)}
    methods = np.array([places.get(name, -1) for name in records.names], np.int64)[records.methods]
    sigmas, is_level = _positions(records.sigma, np.array(header.sigmas))
    images, is_image = _positions(records.indices, np.array(header.indices, np.int64))
    belongs = (methods >= 0) & is_level & is_image & (records.n == header.n) & (records.n0 == header.n0)
    keys = (methods * len(header.sigmas) + sigmas) * len(header.indices) + images
    ordered = np.sort(keys[belongs])
    if np.any(ordered[1:] == ordered[:-1]):
        rows = np.flatnonzero(belongs)
        firsts = rows[np.unique(keys[rows], return_index=True)[1]]
        belongs = np.zeros_like(belongs)
        belongs[firsts] = True
    return ~belongs


def two_labels(records: Columns) -> Ints | None:
    """Return the positions (2,) of two records of one image with unlike labels; None where each image has one label."""
    if not len(records):
        return None
    images, labels = records.indices, records.label
    if images.min() < 0 or images.max() > FEW_PLACES + len(images):
        images = np.unique(images, return_inverse=True)[1]
    last = np.zeros(images.max() + 1, np.int64)
    last[images] = labels
    unlike = np.flatnonzero(last[images] != labels)
    if not len(unlike):
        return None
    return np.array([unlike[0], np.flatnonzero(images == images[unlike[0]])[-1]])


def _positions(values: NDArray[np.generic], among: NDArray[np.generic]) -> tuple[Ints, Flags]:
    """Return (I,) where each value is among some unlike ones, and (I,) whether it is there."""
    order = np.argsort(among)
    places = np.minimum(np.searchsorted(among[order], values), len(among) - 1)
    return order[places], among[order][places] == values


def proven(records: Columns, header: RunHeader, *, repairs: bool = False) -> Flags:
    """Return (I,) which records have counts that add up, and the class and radius that these certify.

    Of composed certificates, published logs and randomised bounds none is.

    Args:
        records: n0, n and identity are checked before.
        header, repairs: as in `bench.records.meaning.record_fault`.
    """
    if header.bound == "randomised":
        return np.zeros(len(records), np.bool_)
    drawn, are_samples = records.estimation.sums, records.estimation.lengths > 0
    whole = (drawn > 0) & (drawn <= header.n) if header.stops_early else drawn == header.n
    adds_up = (records.selection.sums == header.n0) & (records.samples == header.n0 + drawn)
    holds = _is_plain(records, classes_of(header)) & adds_up & (whole | ~are_samples)
    rows = np.flatnonzero(holds & ~are_samples)
    holds[rows] = _is_rightly_skipped(records.take(rows), header)
    rows = np.flatnonzero(holds & are_samples)
    if not repairs:
        holds[rows] = _has_outcome(records.take(rows), header)
    return holds


def _is_plain(records: Columns, classes: int) -> Flags:
    """Return (I,) which records have values in range and counts, and are not composed."""
    return np.asarray(
        (records.label >= 0)
        & (records.label < classes)
        & (records.predict >= ABSTAIN)
        & (records.predict < classes)
        & (~records.has_clean | ((records.clean >= 0) & (records.clean < classes)))
        & (records.seconds >= 0)
        & (records.seconds <= LONGEST_SECONDS)
        & ~records.is_composed
        & np.isnan(records.certified_sigma)
        & np.isnan(records.uniform)
        & (records.selection.lengths > 0)
        & _are_counts(records.selection, classes)
        & _are_counts(records.estimation, classes)
    )


def _are_counts(counts: Counts, classes: int) -> Flags:
    """Return (I,) where classes ascend below `classes`, and numbers are none below 0 and safely added."""
    ascends = np.diff(counts.classes, prepend=-1) > 0
    ascends[counts.starts[counts.lengths > 0]] = True
    ascends &= counts.classes >= 0  # a difference of far apart ones wraps
    is_number = (counts.numbers >= 0) & (counts.numbers <= LARGEST_COUNT)
    fits = counts.have(ascends & (counts.classes < classes) & is_number)
    return np.asarray(fits & (counts.lengths <= MOST_PAIRS))


def _is_rightly_skipped(records: Columns, header: RunHeader) -> Flags:
    """Return (I,) which records without estimation samples may lack them, and certify nothing."""
    may_skip = (records.selected != records.label) & (header.estimation != "fixed")
    if header.stops_early:
        for sigma in np.unique(records.sigma).tolist():
            if is_hopeless(header, sigma, None):
                may_skip |= records.sigma == sigma
    outcome = (records.predict == ABSTAIN) | (records.predict == records.selected)
    return np.asarray(may_skip & outcome & (records.radius == 0))


def _has_outcome(records: Columns, header: RunHeader) -> Flags:
    """Return (I,) which records have the class and the radius that their counts certify."""
    certified = _certified(records, header)
    abstains = (records.predict == ABSTAIN) & (records.radius == 0)
    allowed = ROUNDING * np.maximum(certified, records.sigma)
    is_radius = np.abs(records.radius - certified) <= allowed
    return np.where(np.isnan(certified), abstains, is_radius & (records.predict == records.selected))


def _certified(records: Columns, header: RunHeader) -> Floats:
    """Return (I,) the radii that counts certify; NaN for an abstention."""
    hits = records.estimation.of(records.selected)
    if not header.stops_early:  # one bound of p_A at n samples, and sigma a factor of the radius
        kinds, places = np.unique(hits, return_inverse=True)
        tails = upper_tails(kinds, header.n, header.alpha)
        units = np.where(tails < 0.5, -special.ndtri(tails), np.where(tails > 0.5, np.nan, 0.0))
        return np.asarray(units[places] * records.sigma)
    columns = [np.unique(one, return_inverse=True) for one in (hits, records.estimation.sums, records.sigma)]
    keys = np.ravel_multi_index([one[1] for one in columns], [len(one[0]) for one in columns])
    _, firsts, places = np.unique(keys, return_index=True, return_inverse=True)
    rows = zip(*(one[firsts].tolist() for one in (hits, records.estimation.sums, records.sigma)), strict=True)
    protocol = header.protocol
    found = [certified_radius(k, drawn, protocol, sigma) for k, drawn, sigma in rows]
    return np.array([np.nan if radius is None else radius for radius in found], np.float64)[places]
