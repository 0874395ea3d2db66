"""What `bench cost` has to do: steps, in the order in which they are done, which are left, and how long they take."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from bench.cost.records import CostRun, OfPair, StageSplit, Turn
from bench.device.batching import GAIN
from bench.device.timing import interleaved
from bench.errors import UsageError
from bench.training.architectures import Architecture
from bench.types import Precision

COMPILED = "-compiled"
"""Ends a setting whose networks run under torch.compile."""

CHAIN_REPETITIONS = 3
"""Repetitions of methods with more than one network call for a sample, at most."""

WHOLE_IMAGE_SECONDS = 60.0
"""A method that certifies an image faster than this is checked on whole ones, for so long at most."""

WHOLE_BATCHES, WHOLE_LEAST_SECONDS = 60, 1.0
"""Batches that the whole images fill, about, and the least time that they take, about: both stages end with a batch
that is not full, which must weigh little, and a short time is a doubtful one."""

FIRST_CALLS_SECONDS = 5.0
"""Whole images that take less are certified once untimed: a first call at a size chooses algorithms."""

WIDER = 4
"""How many times as large as the largest of a sweep the next batch is, while throughput gains."""

SWEEP_ROUNDS = 3
"""Repetitions that find a batch size, where duels bring the others."""

MIN_SECONDS = 0.2
"""Duration of every repetition, at least."""

COMPILE_SECONDS = 120.0
"""About how long torch.compile takes for a method, where no call has seen it."""

TARGET_SECONDS = 0.4
"""About how long a repetition takes; it holds at least one batch."""

ENERGY_SECONDS = 4.0
"""Seconds of one method alone in which its energy is measured, after as many batches as fill SETTLING_SECONDS."""

SETTLING_SECONDS = 1.5
"""NVML's power is a mean over about one second: so long a method runs alone before its energy counts."""

LAYOUT_OPERATIONS = 4e13
"""Operations of the batch that decides how a method's networks are laid out, about: a second in float32."""

Kind = Literal["layouts", "repetition", "stages", "energy", "image"]


@dataclass(frozen=True, kw_only=True)
class Step(OfPair):
    """One step of a measurement, which writes one line; `round` counts the repetitions of one pair from 0.

    `duel`, `group`: see `bench.cost.records.Repetition`.
    """

    kind: Kind
    round: int = 0
    duel: str = ""
    group: str = ""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be measured.

    Attributes:
        architectures: name -> method, in the order of tables.
        settings: arithmetic, each perhaps with COMPILED behind it.
        batch_sizes: samples per call, or None for those of each method and setting that `pairs` gives.
        sweep: what None stands for in settings other than float32 on an accelerator, and everywhere on a CPU.
        n0, n: samples of a certified image.
        energy: whether power can be read.
        first: methods that are measured, and compared, before the others.
        layouts: whether it is measured how networks are best laid out, else a rule says so.
        reference: the method that others are timed against in duels, so that the two stand side by side in one call
            whatever their settings; None: all methods of a setting take turns, and nothing else is compared.
    """

    architectures: Mapping[str, Architecture]
    settings: tuple[str, ...]
    batch_sizes: tuple[int, ...] | None
    sweep: tuple[int, ...]
    device_type: str
    repetitions: int
    n0: int
    n: tuple[int, ...]
    energy: bool = False
    first: tuple[str, ...] = ()
    layouts: bool = False
    reference: str | None = None

    def rounds(self, method: str) -> int:
        """Return how many repetitions of a method a comparison rests on."""
        is_chain = self.architectures[method].calls > 1
        return min(self.repetitions, CHAIN_REPETITIONS) if is_chain else self.repetitions

    def sweep_rounds(self, method: str, setting: str) -> int:
        """Return how often each pair of a method is timed in turns with others; duels bring more of the best ones."""
        is_whole = self.reference is None or (setting == "float32" and method in self.first)
        return self.rounds(method) if is_whole else min(self.rounds(method), SWEEP_ROUNDS)

    def groups(self) -> list[tuple[str, ...]]:
        """Return the methods in the order in which they are measured: those of a group take turns."""
        if self.reference is None:
            return [tuple(self.architectures)]
        first = tuple(name for name in self.architectures if name in {*self.first, self.reference})
        return [first, *((name,) for name in self.architectures if name not in first)]

    def pairs(self, setting: str, run: CostRun) -> list[tuple[str, int]]:
        """Return (method, batch size) of a setting, batch sizes ascending for each method.

        The sweep finds the best batch size of a method. In float32 on an accelerator, which is the comparison as
        published, and for chains, it is one sample for the latency and the batch size of the method's own program.
        Compiling takes minutes: networks are compiled for the batch size that is the fastest without.
        """
        return [
            (name, size)
            for name, one in self.architectures.items()
            for size in self._sizes(setting, one, run)
        ]

    def first_round(self, method: str, setting: str, size: int) -> int:
        """Return the number of a pair's first round: those of wider batches are no turns with the ones before."""
        is_swept = self.batch_sizes is None and not setting.endswith(COMPILED)
        if not is_swept or self._is_fixed(setting, self.architectures[method]):
            return 0
        widest = max(self.sweep)
        return self.repetitions * max(0, round(math.log(size / widest, WIDER)))

    def _is_fixed(self, setting: str, one: Architecture) -> bool:
        return self.device_type != "cpu" and (setting == "float32" or one.calls > 1)

    def _sizes(self, setting: str, one: Architecture, run: CostRun) -> list[int]:
        if self.batch_sizes is not None:
            return sorted(set(self.batch_sizes))
        if setting.endswith(COMPILED):
            eager = setting.removesuffix(COMPILED)
            return [fastest_batch_size(run, one.name, eager) or self._sizes(eager, one, run)[-1]]
        if self._is_fixed(setting, one):
            return sorted({1, one.batch_size})
        sizes = sorted(set(self.sweep))
        while self.reference is not None and _still_gains(rates(run, one.name, setting), sizes):
            sizes.append(WIDER * sizes[-1])
        return sizes


def _still_gains(known: Mapping[int, float], sizes: Sequence[int]) -> bool:
    """Return whether the largest of several batch sizes was timed and gained enough for a larger one to be tried."""
    last = [known.get(size) for size in sizes[-2:]]
    return len(last) == 2 and None not in last and last[1] >= GAIN * last[0]  # type: ignore[operator]


def check_settings(settings: Sequence[str]) -> tuple[str, ...]:
    """Return the settings if each is an arithmetic, perhaps with COMPILED behind it.

    Raises:
        UsageError: another word.
    """
    for setting in settings:
        if setting.removesuffix(COMPILED) not in get_args(Precision):
            known = ", ".join(get_args(Precision))
            raise UsageError(
                f"--precision is {setting!r}, expected a list of {known}, each perhaps with {COMPILED} behind it"
            )
    return tuple(dict.fromkeys(settings))


def steps(plan: Plan, run: Callable[[], CostRun], *, is_forecast: bool = False) -> Iterator[Step]:
    """Yield what is left to do, each step when its turn comes; `run` returns what is recorded by then.

    A forecast lists them before any is done, as if the largest batch size were the fastest; whole images are missing,
    and so are duels of what is not timed yet.

    In each setting, layouts come first where they are measured. Rounds follow: one repetition of every pair, the order
    turned by one from round to round. Then each method's stages, its energy and whole images, at its fastest batch
    size. With a reference, this is done group by group, and each group's duels come before what follows its rounds.
    """
    for group in plan.groups():
        for setting in plan.settings:
            yield from _layouts(plan, group, setting, run)
            yield from _rounds(plan, group, setting, run)
            if plan.reference is None:
                yield from _closing(plan, group, setting, run, is_forecast=is_forecast)
        if plan.reference is None:
            continue
        for method in group:
            yield from duels(plan, method, run)
        for setting in plan.settings:
            yield from _closing(plan, group, setting, run, is_forecast=is_forecast)


def _layouts(plan: Plan, group: Sequence[str], setting: str, run: Callable[[], CostRun]) -> Iterator[Step]:
    """Yield what measures layouts; networks under torch.compile have those of the setting without."""
    if not plan.layouts or setting.endswith(COMPILED):
        return
    flops = {size.method: size.flops for size in run().sizes}
    for method in group:
        most = max(plan.batch_sizes or (plan.architectures[method].batch_size,))
        size = max(1, min(most, int(LAYOUT_OPERATIONS / flops[method])))
        step = Step(kind="layouts", method=method, setting=setting, batch_size=size)
        if not is_done(step, run()):
            yield step


def _rounds(plan: Plan, group: Sequence[str], setting: str, run: Callable[[], CostRun]) -> Iterator[Step]:
    """Yield the repetitions of pairs that take turns; then, again and again, those of wider batches that may gain."""
    known: set[tuple[str, int]] = set()
    alone = group[0] if plan.reference is not None and plan.reference not in group else ""
    while pairs := [one for one in plan.pairs(setting, run()) if one[0] in group and one not in known]:
        for number, (method, size) in interleaved(pairs, plan.repetitions):
            step = Step(
                kind="repetition",
                method=method,
                setting=setting,
                batch_size=size,
                round=plan.first_round(method, setting, size) + number,
                group=alone,
            )
            if number < plan.sweep_rounds(method, setting) and not is_done(step, run()):
                yield step
        known |= set(pairs)


def _closing(
    plan: Plan, group: Sequence[str], setting: str, run: Callable[[], CostRun], *, is_forecast: bool
) -> Iterator[Step]:
    for method in group:
        fastest = fastest_batch_size(run(), method, setting)
        if fastest is None and is_forecast:
            fastest = max(size for name, size in plan.pairs(setting, run()) if name == method)
        yield from _closing_tasks(plan, (method, setting, fastest), run)


def _closing_tasks(
    plan: Plan, pair: tuple[str, str, int | None], run: Callable[[], CostRun]
) -> Iterator[Step]:
    method, setting, size = pair
    if size is None:
        return
    kinds: list[Kind] = [] if setting.endswith(COMPILED) else ["stages"]
    kinds += ["energy"] if plan.energy else []
    kinds += ["image"] if checked(plan, method, setting, run()) is not None else []
    for kind in kinds:
        step = Step(kind=kind, method=method, setting=setting, batch_size=size)
        if not is_done(step, run()):
            yield step


def duels(plan: Plan, method: str, run: Callable[[], CostRun]) -> Iterator[Step]:
    """Yield the repetitions of a method and of the reference, as published and at best, that pairs are short of."""
    if method == plan.reference or plan.reference is None:
        return
    met: set[tuple[object, object]] = set()
    for choose in (published_pair, best_pair):
        ours, theirs = choose(run(), method), choose(run(), plan.reference)
        if ours is None or theirs is None or (ours, theirs) in met:
            continue
        met.add((ours, theirs))
        before = run()
        fought = [
            one.round for one in before.repetitions if one.duel == method and one.pair in (ours, theirs)
        ]
        start, missing = max(fought, default=-1) + 1, plan.rounds(method) - len(common(before, ours, theirs))
        for number in range(start, start + missing):
            for pair in (ours, theirs) if number % 2 == 0 else (theirs, ours):
                name, setting, size = pair
                step = Step(
                    kind="repetition",
                    method=name,
                    setting=setting,
                    batch_size=size,
                    round=number,
                    duel=method,
                )
                if not is_done(step, run()):
                    yield step


def common(run: CostRun, ours: tuple[str, str, int], theirs: tuple[str, str, int]) -> list[Turn]:
    """Return the turns of the repetitions of two pairs that were made side by side."""
    found: list[list[Turn]] = [
        [one.turn for one in run.repetitions if one.pair == pair] for pair in (ours, theirs)
    ]
    return [turn for turn in found[0] if turn in set(found[1]) and (turn[2] or ours[1] == theirs[1])]


def published_pair(run: CostRun, method: str) -> tuple[str, str, int] | None:
    """Return a method in float32 at its program's batch size, None where that was not timed."""
    own = next(size.batch_size for size in run.sizes if size.method == method)
    return (method, "float32", own) if own in rates(run, method, "float32") else None


def best_pair(run: CostRun, method: str) -> tuple[str, str, int] | None:
    """Return a method in its fastest setting and batch size, None where nothing was timed."""
    settings = dict.fromkeys(one.setting for one in run.repetitions if one.method == method)
    found = {
        (method, setting, size): rate
        for setting in settings
        for size, rate in rates(run, method, setting).items()
    }
    return max(found, key=lambda pair: found[pair]) if found else None


def is_done(step: Step, run: CostRun) -> bool:
    """Return whether a step's line is there, or its batch size, or a smaller one, cannot be measured.

    Layouts are measured once for each method and setting, before its first repetition; stages, energy and a whole image
    once for each batch size that was the fastest when they were.
    """
    session = run.sessions[-1].created if run.sessions else ""
    for failure in run.failures:
        is_void = failure.may_pass and failure.session != session
        if failure.pair[:2] == step.pair[:2] and failure.batch_size <= step.batch_size and not is_void:
            return True
    if step.kind == "repetition":
        asked = (step.pair, step.round, step.duel)
        return any((one.pair, one.round, one.duel) == asked for one in run.repetitions)
    if step.kind == "layouts":
        return any(one.pair[:2] == step.pair[:2] for one in (*run.layouts, *run.repetitions))
    lines: Mapping[str, Sequence[OfPair]] = {
        "stages": run.splits,
        "energy": run.energies,
        "image": run.images,
    }
    return any(one.pair == step.pair for one in lines[step.kind])


def rates(run: CostRun, method: str, setting: str) -> dict[int, float]:
    """Return batch size -> median samples per second, for those that were timed."""
    found: dict[int, list[float]] = {}
    for one in run.repetitions:
        if (one.method, one.setting) == (method, setting):
            found.setdefault(one.batch_size, []).append(one.samples / one.seconds)
    return {size: float(np.median(values)) for size, values in sorted(found.items())}


def fastest_batch_size(run: CostRun, method: str, setting: str) -> int | None:
    """Return the batch size with the most samples per second, None where none was timed."""
    known = rates(run, method, setting)
    return max(known, key=lambda size: known[size]) if known else None


def splits_of_fastest(run: CostRun) -> tuple[StageSplit, ...]:
    """Return the split of each method and setting at its fastest batch size, the last one where that has none."""
    chosen = {one.pair[:2]: one for one in run.splits}
    for one in run.splits:
        if one.batch_size == fastest_batch_size(run, one.method, one.setting):
            chosen[one.pair[:2]] = one
    return tuple(chosen.values())


def checked(plan: Plan, method: str, setting: str, run: CostRun) -> tuple[int, int] | None:
    """Return how many images are certified together as a check, and the samples n0 + n of each.

    The samples are the most of `plan.n` of which an image takes under WHOLE_IMAGE_SECONDS, and the images as many as
    fill WHOLE_BATCHES, and take WHOLE_LEAST_SECONDS, within that time. None where no image is that fast, and for
    chains.
    """
    size = fastest_batch_size(run, method, setting)
    if size is None or plan.architectures[method].calls > 1:
        return None
    rate = rates(run, method, setting)[size]
    fitting = [plan.n0 + n for n in plan.n if (plan.n0 + n) / rate < WHOLE_IMAGE_SECONDS]
    if not fitting:
        return None
    samples = max(fitting)
    enough = max(WHOLE_BATCHES * size, WHOLE_LEAST_SECONDS * rate)
    images = min(math.ceil(enough / samples), int(WHOLE_IMAGE_SECONDS * rate / samples))
    return max(1, images), samples


def samples_of(step: Step, run: CostRun) -> int | None:
    """Return the samples of the last repetition of a step's pair, None where none was timed for long enough."""
    same = [one for one in run.repetitions if one.pair == step.pair]
    return same[-1].samples if same and same[-1].seconds >= MIN_SECONDS else None
