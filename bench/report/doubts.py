"""What a reader should doubt before believing a table: rows that are one classifier, radii that their alpha denies,
training runs that had not ended.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

import numpy as np

from bench.report.markup import format_radius
from bench.smoothing.estimation import largest_radius
from bench.types import UNSEEN, Run, RunHeader

if TYPE_CHECKING:
    from bench.report.comparison import Entry, Names


def identical_counts(entries: Iterable[Entry]) -> list[str]:
    """Return one sentence for each set of entries whose counts are the same for every image.

    Args:
        entries: those of one sigma over the same images.
    """
    alike: dict[object, list[Entry]] = {}
    for entry in entries:
        if entry.has_counts:
            stages = (entry.columns.selection, entry.columns.estimation)
            key = (entry.sigma, len(entry.records), *(counts.content for counts in stages))
            alike.setdefault(key, []).append(entry)
    return [
        f"{_listed([one.label for one in same])} have identical counts at sigma {same[0].sigma:g} on all "
        f"{len(same[0].records)} images: {_reason(same)}."
        for same in alike.values()
        if len(same) > 1
    ]


def composed_certificates(entries: Iterable[Entry]) -> list[str]:
    """Return one sentence for each entry whose certificates several bounds make: of which, and at which sigma."""
    sentences = []
    for entry in entries:
        if not entry.is_composed:
            continue
        levels = Counter(one.certified_sigma for one in entry.records if one.certified_sigma is not None)
        if not levels:
            continue
        names = dict.fromkeys(bound.name for record in entry.records for bound in record.bounds)
        chosen = ", ".join(f"{level:g} ({levels[level]})" for level in sorted(levels))
        sentences.append(
            f"{entry.label} at sigma {entry.sigma:g}: each certificate is composed of bounds that share α "
            f"({', '.join(names)}); its radius is the smallest of them. Certified at sigma (images): {chosen}."
        )
    return sentences


def impossible_radii(entry: Entry) -> list[float]:
    """Return the radii of a published log that exceed what its n and alpha can certify by more than their rounding.

    An entry with counts has none: its radii follow from them.
    """
    if entry.has_counts:
        return []
    radii: list[float] = entry.columns.radius[~entry.columns.has_counts].tolist()
    largest = largest_radius(entry.header, entry.sigma)
    digits = max(len(Decimal(repr(radius)).normalize().as_tuple().digits) for radius in radii)
    limit = max(largest * (1 + 1e-9), float(f"{largest:.{digits}g}"))
    return [radius for radius in radii if radius > limit]


def denied_alpha(entry: Entry, radii: Sequence[float]) -> str:
    """Return one sentence on an entry with these impossible radii."""
    header = entry.header
    return (
        f"Warning: {entry.label} at sigma {entry.sigma:g} cannot have the stated α = {header.alpha:g} and n = "
        f"{header.n:,}: {len(radii):,} of its {len(entry.records):,} radii are larger than "
        f"{format_radius(largest_radius(header, entry.sigma), 3)}, which is the most that these certify."
    )


def log_notes(runs: Sequence[Run], names: Names) -> list[str]:
    """Return what is to be known of each published log that a run was made from."""
    return [
        f"{names.label(key, number)}: {note}"
        for number, run in enumerate(runs)
        for key, log in run.header.logs.items()
        for note in log["notes"]
    ]


def unfinished(runs: Sequence[Run], names: Names, entries: Sequence[Entry]) -> list[str]:
    """Return one sentence, or none, on what holds fewer images than the header asks for."""
    done = {(entry.run_number, entry.method, entry.sigma): len(entry.records) for entry in entries}
    gaps = []
    for number, run in enumerate(runs):
        asked = len(run.header.indices)
        for method, sigma in itertools.product(run.header.methods, run.header.sigmas):
            images = done.get((number, method, sigma), 0)
            if images < asked:
                gaps.append(f"{names.label(method, number)} at sigma {sigma:g} ({images} of {asked} images)")
    return [f"Unfinished: {', '.join(gaps)}."] if gaps else []


def unlike_labels(entries: Sequence[Entry]) -> str | None:
    """Return which image has two labels, of entries over the same images; None where each has one."""
    for one in entries[1:]:
        differ = np.flatnonzero(one.columns.label != entries[0].columns.label)
        if len(differ):
            place = differ[0]
            index, *labels = (
                int(values[place])
                for values in (one.columns.indices, entries[0].columns.label, one.columns.label)
            )
            return f"image {index} has label {labels[0]} in {entries[0].row} and {labels[1]} in {one.row}"
    return None


def decided_radii(runs: Sequence[Run]) -> tuple[tuple[float, ...], list[str]]:
    """Return the radii of the runs' tables, ascending, and one sentence, or none, on those that are left out.

    A run that stops early decides 0 and the radii of its own table; at any other its accuracy is a lower bound, so that
    a difference to another run would show the radii that were asked for.
    """
    radii = {radius for run in runs for radius in run.header.radii}
    own = [{0.0, *run.header.radii} for run in runs if run.header.stops_early]
    kept = radii.intersection(*own) or {0.0}
    if not (dropped := sorted(radii - kept)):
        return tuple(sorted(kept)), []
    listed = ", ".join(f"{radius:g}" for radius in dropped)
    sentence = f"Left out: radius {listed}, which not every run with sequential estimation has in its table."
    return tuple(sorted(kept)), [sentence]


def cautions_of(runs: Sequence[Run], names: Names) -> tuple[str, ...]:
    """Return a sentence on each kind of checkpoint whose rows do not show what their method can do."""
    return (*stopped_trainings(runs, names), *other_noise(runs, names))


def stopped_trainings(runs: Sequence[Run], names: Names) -> list[str]:
    """Return one sentence, or none, on checkpoints that were certified before their training had ended."""
    stopped = [
        f"{_row(key, number, names)} ({steps})"
        for number, run in enumerate(runs)
        for key, steps in run.header.unfinished.items()
    ]
    if not stopped:
        return []
    return [
        f"Training stopped before its end: {', '.join(stopped)}; such a row does not say what its method can do."
    ]


def other_noise(runs: Sequence[Run], names: Names) -> list[str]:
    """Return one sentence, or none, on checkpoints that were trained at another noise level than they are used at."""
    others = [
        f"{_row(key, number, names)} (trained at {took['sigma']:g})"
        for number, run in enumerate(runs)
        for key, took in run.header.training.items()
        if "sigma" in took
    ]
    return [f"Trained at another noise level: {', '.join(others)}."] if others else []


def unseen_weights(runs: Sequence[Run], names: Names) -> list[str]:
    """Return one sentence, or none, on rows whose weights the header has no digest of, or only of a part."""
    unseen = [
        f"{names.label(key.rpartition('/')[0], number)}{'' if text == UNSEEN else ' in part'}"
        for number, run in enumerate(runs)
        for key, text in run.header.weights.items()
        if not re.fullmatch("[0-9a-f]{64}", text)
    ]
    if not unseen:
        return []
    return [
        f"Weights unseen: {', '.join(dict.fromkeys(unseen))}; that its certificates are of one model rests on its user."
    ]


def trained_weights(header: RunHeader, key: str) -> str | None:
    """Return the digests of the files of "<method>/<sigma>", else that of all its weights, else None."""
    files = [name for name in header.checkpoints if name == key or name.startswith(f"{key}/")]
    if files:
        return " ".join(header.checkpoints[name] for name in sorted(files))
    digest = header.weights.get(key, "")
    return digest if re.fullmatch("[0-9a-f]{64}", digest) else None


def _row(key: str, number: int, names: Names) -> str:
    """Return how "<method>/<sigma>", or with "/<part>" behind it, is called in a sentence."""
    method, sigma, part = [*key.split("/"), "", ""][:3]
    return f"{part}{' of ' * bool(part)}{names.label(method, number)} at sigma {sigma}"


def _reason(same: Sequence[Entry]) -> str:
    checkpoints = {one.checkpoint for one in same}
    if None not in checkpoints and len(checkpoints) == 1:
        return "they are one checkpoint under one noise"
    return f"they may be one classifier under {len(same)} names"


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"
