"""Records of `bench cost` -> each method's cost in two comparisons, VALID or INVALID with reasons; pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bench.cost.plan import CHAIN_REPETITIONS, COMPILED, MIN_SECONDS
from bench.cost.records import CostRun, MethodSize, OfPair, Repetition, StageSplit, Turn
from bench.device.batching import GAIN
from bench.device.hardware import peak_flops
from bench.device.power import THROTTLING
from bench.report.rates import MAX_SPREAD, REFERENCE, Quartiles, quartiles

MIN_REPETITIONS = 10
"""Repetitions that a valid measurement has at least; chains have CHAIN_REPETITIONS."""

MAX_IMAGE_ERROR = 0.05
"""How far the time of a whole image may lie from that which follows from throughput, as a share of it."""

STAGES = ("noise", "denoiser", "resize", "classifier", "counting", "host")
"""Stages that our methods have, in order; others come before the last."""

PUBLISHED, BEST = "as published", "at best"
"""The two comparisons: float32 at the batch size of the method's program; the fastest setting and batch size."""

UNSEEN = (
    "throttling not checked: NVML is missing (pip install 'rrcm-bench[gpu]'), may not ask or did not answer"
)
"""Of a GPU whose load could not be read."""

POWER_CAP = THROTTLING[0x04]
"""The one reason for lower clocks that invalidates nothing: a board at full load is meant to run at its power cap."""


@dataclass(frozen=True, kw_only=True)
class Pair(OfPair):
    """One method timed in one setting at one batch size, its repetitions in the order of their rounds."""

    repetitions: tuple[Repetition, ...]

    @property
    def rates(self) -> dict[Turn, float]:
        """Turn -> samples per second."""
        return {one.turn: one.samples / one.seconds for one in self.repetitions}

    @property
    def throughput(self) -> Quartiles:
        """Samples per second over the repetitions."""
        return quartiles(np.array(list(self.rates.values())))

    @property
    def seconds_per_sample(self) -> Quartiles:
        """Its inverse; at batch size 1 the latency of a sample."""
        return quartiles(1 / np.array(list(self.rates.values())))

    @property
    def peak_memory_bytes(self) -> int | None:
        """The most over the repetitions, None where one is not known."""
        known = [one.peak_memory_bytes for one in self.repetitions]
        return None if None in known else max(known)  # type: ignore[type-var]


@dataclass(frozen=True, kw_only=True)
class Speedup:
    """How many times the throughput of REFERENCE a method has.

    Attributes:
        ratio: over the rounds that both were timed in. Without any it is unpaired: the ratio of the medians, and in
            place of quartiles those of one throughput over the opposite ones of the other.
        rounds: of one session, and of one setting or duel, in which both were timed, so that drift weighs on both
            alike; 0: unpaired.
        together: repetitions of the method that `rounds` counts; without any, and in another setting than REFERENCE,
            those for which there is one of REFERENCE of the same session.
    """

    ratio: Quartiles
    rounds: int
    together: int


@dataclass(frozen=True, kw_only=True)
class Row:
    """One method in one comparison.

    Attributes:
        latency: the method at batch size 1, in the same setting or, at best, in the fastest one; None: not timed.
        speedup: over REFERENCE in the same comparison; None without it.
        share_of_peak: of the operations per second that the device can do in this arithmetic, None where unknown.
        joules_per_sample: None where power was not read.
        image_ratio: seconds of a whole image over those that follow from throughput; None where not checked.
        reasons: why the measurement is INVALID; none: it is VALID.
    """

    comparison: str
    size: MethodSize
    pair: Pair
    latency: Quartiles | None
    speedup: Speedup | None
    share_of_peak: float | None
    joules_per_sample: float | None
    image_ratio: float | None
    reasons: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """VALID or INVALID."""
        return "INVALID" if self.reasons else "VALID"

    def seconds_per_image(self, samples: int) -> Quartiles:
        """Return the seconds that so many samples take, as they follow from throughput."""
        return self.pair.seconds_per_sample.times(samples)


def pairs(run: CostRun) -> tuple[Pair, ...]:
    """Return what was timed, in the order of the methods' sizes, then of first lines; batch sizes ascending."""
    groups: dict[tuple[str, str, int], list[Repetition]] = {}
    for one in run.repetitions:
        groups.setdefault(one.pair, []).append(one)
    order = [size.method for size in run.sizes]
    settings = list(dict.fromkeys(one.setting for one in run.repetitions))
    keys = sorted(groups, key=lambda key: (order.index(key[0]), settings.index(key[1]), key[2]))
    return tuple(
        Pair(
            method=method,
            setting=setting,
            batch_size=size,
            repetitions=tuple(sorted(groups[method, setting, size], key=lambda one: one.round)),
        )
        for method, setting, size in keys
    )


def stage_names(splits: Iterable[StageSplit]) -> list[str]:
    """Return the stages in the order in which a sample goes through them, host last."""
    found = {name for one in splits for name in one.stages}
    known = [name for name in STAGES if name in found]
    return [*known[:-1], *sorted(found - set(STAGES)), *known[-1:]]


def rows(run: CostRun) -> tuple[Row, ...]:
    """Return the methods as published, then at best; a comparison leaves out methods that were not timed for it."""
    timed = pairs(run)
    return tuple(
        row
        for comparison, chosen in ((PUBLISHED, _published(run, timed)), (BEST, _best(timed)))
        for row in _rows(run, timed, comparison, chosen)
    )


def _published(run: CostRun, timed: Sequence[Pair]) -> dict[str, Pair]:
    """Return each method in float32 at its program's batch size, or at the nearest one that was timed."""
    chosen: dict[str, Pair] = {}
    for size in run.sizes:
        own = [pair for pair in timed if (pair.method, pair.setting) == (size.method, "float32")]
        if own:  # the larger one of two that are equally near
            chosen[size.method] = min(
                own, key=lambda pair: (abs(pair.batch_size - size.batch_size), -pair.batch_size)
            )
    return chosen


def _best(timed: Sequence[Pair]) -> dict[str, Pair]:
    methods = dict.fromkeys(pair.method for pair in timed)
    return {method: _fastest(pair for pair in timed if pair.method == method) for method in methods}


def _fastest(timed: Iterable[Pair]) -> Pair:
    return max(timed, key=lambda pair: pair.throughput.median)


def _rows(run: CostRun, timed: Sequence[Pair], comparison: str, chosen: Mapping[str, Pair]) -> list[Row]:
    sizes = {size.method: size for size in run.sizes}
    speedups = {
        method: _speedup(pair, _reference(sizes, pair, chosen.get(REFERENCE), comparison))
        for method, pair in chosen.items()
    }
    return [
        Row(
            comparison=comparison,
            size=sizes[method],
            pair=pair,
            latency=_latency(timed, pair, comparison),
            speedup=speedups[method],
            share_of_peak=_share_of_peak(run, sizes[method], pair),
            joules_per_sample=_joules(run, pair),
            image_ratio=image_ratio(run, pair),
            reasons=(
                *reasons(run, timed, pair, comparison),
                *_timed_apart(pair, speedups[method], _least(sizes[method])),
            ),
        )
        for method, pair in chosen.items()
    ]


def _reference(
    sizes: Mapping[str, MethodSize], pair: Pair, reference: Pair | None, comparison: str
) -> Pair | None:
    """Return what a pair is compared with: as published nothing, where REFERENCE was not timed at its program's batch
    size, unless both have one batch size."""
    if reference is None or comparison != PUBLISHED or pair.batch_size == reference.batch_size:
        return reference
    return reference if reference.batch_size == sizes[REFERENCE].batch_size else None


def _latency(timed: Sequence[Pair], chosen: Pair, comparison: str) -> Quartiles | None:
    single = [
        pair.seconds_per_sample
        for pair in timed
        if pair.method == chosen.method
        and pair.batch_size == 1
        and (comparison == BEST or pair.setting == chosen.setting)
    ]
    return min(single, key=lambda one: one.median, default=None)


def _speedup(pair: Pair, reference: Pair | None) -> Speedup | None:
    if reference is None:
        return None
    own, other = pair.rates, reference.rates
    is_same = pair.setting == reference.setting  # settings are timed one after another, but for duels
    paired = [own[turn] / other[turn] for turn in own if turn in other and (is_same or turn[2])]
    if not paired and not is_same:
        sessions = {turn[0] for turn in other}
        together = sum(turn[0] in sessions for turn in own)
        return Speedup(ratio=_unpaired_ratio(pair, reference), rounds=0, together=together)
    ratio = quartiles(np.array(paired)) if paired else _unpaired_ratio(pair, reference)
    return Speedup(ratio=ratio, rounds=len(paired), together=len(paired))


def _unpaired_ratio(pair: Pair, reference: Pair) -> Quartiles:
    own, other = pair.throughput, reference.throughput
    return Quartiles(
        first=own.first / other.third, median=own.median / other.median, third=own.third / other.first
    )


def _timed_apart(pair: Pair, speedup: Speedup | None, least: int) -> Iterator[str]:
    """Yield the reason that too few repetitions have one of REFERENCE beside them; a round cut by a stop is none."""
    count = len(pair.repetitions)
    if speedup is not None and 2 * speedup.together < count and speedup.together < least:
        yield (
            f"{speedup.together} of {count} repetitions were timed in one call and round with {REFERENCE}: "
            "measure both in one new --out"
        )


def _share_of_peak(run: CostRun, size: MethodSize, pair: Pair) -> float | None:
    peak = peak_flops(run.header.device, pair.setting.removesuffix(COMPILED))
    return None if peak is None else size.flops * pair.throughput.median / peak


def _joules(run: CostRun, pair: Pair) -> float | None:
    return next((one.joules / one.samples for one in run.energies if one.pair == pair.pair), None)


def image_ratio(run: CostRun, pair: Pair) -> float | None:
    """Return the time of a whole image over that which follows from the pair's throughput, None where not checked."""
    whole = next((one for one in run.images if one.pair == pair.pair), None)
    return None if whole is None else whole.seconds * pair.throughput.median / whole.samples


def reasons(run: CostRun, timed: Sequence[Pair], pair: Pair, comparison: str | None) -> tuple[str, ...]:
    """Return why a measurement is INVALID, in words; none: it is VALID.

    Args:
        timed: all pairs of the run, among which the batch size of the comparison at best must be at the knee.
        comparison: what the pair is chosen for; None: for itself.
    """
    size = next(size for size in run.sizes if size.method == pair.method)
    found = _reasons_of_repetitions(pair, _least(size))
    if run.header.device_type == "cuda" and any(one.other_processes is None for one in pair.repetitions):
        found.append(UNSEEN)
    if comparison == PUBLISHED and pair.batch_size != size.batch_size:
        found.append(f"batch size {pair.batch_size} is not the program's {size.batch_size}")
    if comparison == BEST and (missed := _missed_knee(run, timed, pair)):
        found.append(missed)
    ratio = image_ratio(run, pair)
    if comparison is not None and ratio is not None and abs(ratio - 1) > MAX_IMAGE_ERROR:
        found.append(f"a whole image took {ratio:.2f} times as long as throughput says")
    return tuple(found)


def _least(size: MethodSize) -> int:
    return CHAIN_REPETITIONS if size.calls > 1 else MIN_REPETITIONS


def _reasons_of_repetitions(pair: Pair, least: int) -> list[str]:
    found = []
    if len(pair.repetitions) < least:
        found.append(f"{len(pair.repetitions)} repetitions, not {least}")
    rate = pair.throughput
    if (spread := (rate.third - rate.first) / rate.median) > MAX_SPREAD:
        found.append(f"spread {spread:.0%}, above {MAX_SPREAD:.0%}")
    if (shortest := min(one.seconds for one in pair.repetitions)) < MIN_SECONDS:
        found.append(f"a repetition of {shortest:.2g} s, below {MIN_SECONDS:g} s")
    throttling = {name for one in pair.repetitions for name in one.throttling} - {POWER_CAP}
    if throttling:
        found.append(f"throttled ({', '.join(sorted(throttling))})")
    if any(one.other_processes for one in pair.repetitions):
        found.append("another process on the device")
    return found


def _missed_knee(run: CostRun, timed: Sequence[Pair], best: Pair) -> str | None:
    """Return why the fastest batch size may not be the best one, None where a larger one gained less than 3%.

    A chain is excused where a method that calls networks of its parameters and image once passed its sweep in the same
    setting.
    """
    missed = _missed_own_knee(run, timed, best)
    size = next(size for size in run.sizes if size.method == best.method)
    if missed is None or size.calls == 1:
        return missed
    same = {
        one.method
        for one in run.sizes
        if (one.calls, one.parameters, one.image) == (1, size.parameters, size.image)
    }
    single = [pair for pair in timed if pair.method in same and pair.setting == best.setting]
    if single and _missed_own_knee(run, timed, _fastest(single)) is None:
        return None
    return f"{missed}, and no sweep of one call found it"


def _missed_own_knee(run: CostRun, timed: Sequence[Pair], best: Pair) -> str | None:
    same = _sweep(timed, best)
    if any(pair.batch_size > best.batch_size for pair in same):
        return None
    failed = [one.batch_size for one in run.standing_failures if one.pair[:2] == same[0].pair[:2]]
    if any(size > best.batch_size for size in failed):
        return None
    if len(same) == 1:
        return "batch size not at the knee: no other was timed"
    if same[-1].throughput.median < GAIN * same[-2].throughput.median:
        return None
    return f"batch size not at the knee: {best.batch_size} is the largest that was timed"


def _sweep(timed: Sequence[Pair], best: Pair) -> list[Pair]:
    """Return the pairs among which a batch size was chosen: compiled networks take that of those that are not."""
    own = [pair for pair in timed if pair.method == best.method]
    eager = [pair for pair in own if pair.setting == best.setting.removesuffix(COMPILED)]
    return eager or [pair for pair in own if pair.setting == best.setting]
