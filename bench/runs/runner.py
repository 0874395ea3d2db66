"""One run: configuration -> checkpoints, header, then one record per method, sigma and image, then the costs.

The runner prints nothing; it tells an Observer what happens. Repeating a run does only what is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from bench.config.code import check_typed, named_code
from bench.config.run import RunConfig, run_name
from bench.device.timing import instruments, measure
from bench.errors import BenchError, RecordsError
from bench.methods import zoo
from bench.records.columns import columns_of
from bench.records.file import FILE_NAME, RecordsFile, check_extendable, in_use, read_run
from bench.records.shards import Shard, check_folder
from bench.runs import forecast
from bench.runs.engines.base import Engine, LocalEngine
from bench.runs.entrant import configured
from bench.runs.header import make_header
from bench.runs.progress import Estimate, Observer, pending_jobs, write_results
from bench.runs.train import train_missing
from bench.runs.workbench import (
    Entrants,
    Setup,
    Workbench,
    choose_batch_sizes,
    enter_all,
    first_image_stream,
    free_memory,
    prepare,
)
from bench.smoothing.noise import NOISE_BLOCK, why_slow
from bench.types import CostRecord, Run, RunHeader

RUNS = Path("results") / "runs"
"""Where runs lie, below the current folder, when no --out is given."""


def run_folder(config: RunConfig) -> Path:
    """Return the folder of a validated configuration's run."""
    return RUNS / run_name(config) if config.out is None else config.out


def run(
    config: RunConfig,
    *,
    command: str,
    observer: Observer,
    engine: Engine | None = None,
    shard: Shard | None = None,
    held: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> tuple[RunHeader, Path]:
    """Certify every image with every method at every sigma, measure the costs, and return header and folder.

    Args:
        config: a validated configuration.
        command: the command line, kept in the header.
        engine: computes the records; None: this process.
        shard: the part of the images to certify, into a file of its own; shard 1 measures the costs. A shard
            trains nothing.
        held: entered around each job (an image; on an accelerator a group of them) from its computation to its
            lines on the disk.

    Raises:
        BenchError: whatever the user can mend; all records written before are kept, and repeating continues.
    """
    zoo.check(config.zoo)
    setup = replace(prepare(config), note=observer.note)
    if config.limit is not None and len(setup.indices) < config.limit:
        observer.note(
            f"limit is {config.limit}, and there are {len(setup.indices)} images: all are certified"
        )
    for doubt in (why_slow(setup.device), *_doubts(setup)):
        if doubt:
            setup.note(doubt)
    entrants = enter_all(setup)
    for one in entrants.values():
        one.finished(config.allow)
    folder, name = run_folder(config), shard.file_name if shard else FILE_NAME
    check_begun(setup, folder, shard)
    if shard is None and observer.measures_first:
        observer.estimated(estimate(setup, entrants, folder))
    if shard is None:
        entrants = train_missing(setup, entrants, command, observer)
    for one in entrants.values():
        one.required(config.allow)
    batch_sizes = known_batch_sizes(folder / name)
    if not batch_sizes.keys() >= set(config.methods):
        batch_sizes = choose_batch_sizes(setup, entrants.values()) | batch_sizes
    header = make_header(setup, entrants.values(), command, batch_sizes)
    for key, steps in header.unfinished.items():
        observer.note(f"the training of {key} was stopped after {steps}: every table will name it")
    with RecordsFile.create_or_resume(folder, header, name) as records:
        if records.repaired:
            observer.note(records.repaired)
        measures = config.cost_repetitions > 0 and (shard is None or shard.number == 1)
        if measures and not _is_measured(records.run):
            _check_code(records, config)
        work = Workbench(
            config=replace(config, device=setup.device.type),
            entrants=entrants,
            batch_sizes=records.run.header.batch_sizes,
            weights=records.run.header.weights,
            setup=setup,
        )
        indices = shard.part(setup.indices) if shard else setup.indices
        jobs = pending_jobs(records.run, config, indices, observer, work.together)
        free_memory(setup.device)  # of the estimate, and of training
        write_results((engine or LocalEngine()).results(work, jobs), records, observer, held)
        if measures:
            _measure_once(setup, entrants, records, observer)
        return records.run.header, folder


def _doubts(setup: Setup) -> Iterator[str]:
    """Yield a sentence on each setting that is rarely meant."""
    if setup.config.alpha > 0.5:
        yield (
            f"alpha is {setup.config.alpha:g}, the probability that a certificate is wrong: 95% confidence is 0.05"
        )
    names = setup.split.class_names
    if all(name.isdecimal() for name in names) and list(names) != sorted(names, key=int):
        yield (
            f"classes are numbered in the order of their names as texts, {', '.join(names[:4])}, ...: output 1 of a "
            f"model stands for class {names[1]}"
        )


def check_begun(setup: Setup, folder: Path, shard: Shard | None) -> None:
    """Return nothing for a folder in which a run or its shard may be begun or continued: hours of training may follow.

    Raises:
        ProtocolError, RecordsError: it may not; as `check_folder` and `check_extendable`.
    """
    check_folder(folder, shard)
    file = folder / (shard.file_name if shard else FILE_NAME)
    if file.is_file():
        check_extendable(file, make_header(setup, (), "", {}))


LIKELY_BATCH = 1024
"""Samples per call on a GPU by which a run is forecast whose batch sizes are not chosen yet."""


def estimate(setup: Setup, entrants: Entrants, folder: Path, shard: Shard | None = None) -> Estimate:
    """Return what is left of a run, or of its shard, whose records are or will be in a folder, and the time it takes.

    The time is that of this machine. On a GPU nothing is compiled for it, which would take longer than the forecast.
    """
    if shard is not None:
        setup = replace(setup, indices=shard.part(setup.indices))
    if not setup.indices:  # a shard of fewer images than shards
        return Estimate(certificates=0)
    file, size = folder / (shard.file_name if shard else FILE_NAME), NOISE_BLOCK
    if setup.device.type != "cpu":
        size, setup = LIKELY_BATCH, replace(setup, config=replace(setup.config, compile="none"))
    sizes = dict.fromkeys(setup.config.methods, size) | known_batch_sizes(file)
    try:
        return forecast.estimate(setup, entrants, sizes, done=_done(file))
    except (BenchError, RuntimeError, MemoryError):  # the run meets it again, where it can name what failed
        return Estimate(certificates=len(entrants) * len(setup.indices))


def _done(file: Path) -> set[tuple[str, float, int]]:
    """Return method, sigma and index of the certificates in a records file; none where there is none to read."""
    try:
        return {(one.method, one.sigma, one.index) for one in read_run(file).records}
    except RecordsError:
        return set()


def _measure_once(setup: Setup, entrants: Entrants, records: RecordsFile, observer: Observer) -> None:
    """Measure the costs of the run's methods, unless its file holds them all."""
    header = records.run.header
    if not _is_measured(records.run):
        observer.measuring(header.methods)
        records.append(*measure_costs(setup, entrants, header, _samples_asked(records.path)))


def _samples_asked(file: Path) -> dict[str, int]:
    """Return method -> samples of a certificate by fixed estimation: the median, since bounds may differ in number."""
    columns = columns_of(read_run(file).records)
    return {
        method: int(np.median(columns.take(rows).samples_asked))
        for (method, _), rows in columns.groups.items()
    }


def _is_measured(run: Run) -> bool:
    return {measured.method for measured in run.costs} >= set(run.header.methods)


def _check_code(records: RecordsFile, config: RunConfig) -> None:
    """Refuse, before anything is certified, to call a function that stands among the folder's methods alone."""
    others = [method for method in records.run.header.methods if method not in config.methods]
    options = records.run.header.options
    named = named_code(others, {method: options.get(method, {}) for method in others})
    all_methods = f"--methods {','.join(records.run.header.methods)}"
    more = {
        name: f"{how} (with the others), or --cost-repetitions 0,"
        if how.startswith("--methods")
        else f"{all_methods} {how}, or --cost-repetitions 0,"
        for name, how in named.items()
    }
    check_typed(more, (), records.path)


def measure_costs(
    setup: Setup, entrants: Entrants, header: RunHeader, asked: Mapping[str, int] = MappingProxyType({})
) -> list[CostRecord]:
    """Return the measured cost of every method of a run, at its first sigma, timed in interleaved rounds.

    Cost depends on the network and not on sigma or the weights: a method that this command did not certify is
    measured with random weights, and with the options that the run has of it.

    Args:
        asked: method -> samples of a certificate by fixed estimation; n0 + n for one that is not there.
    """
    config, sigma = setup.config, header.sigmas[0]
    measured = [
        entrants.get((method, sigma))
        or configured(setup.split.task, method, sigma, header.options.get(method, {}))
        for method in header.methods
    ]
    works = [first_image_stream(setup, one).work(header.batch_sizes[one.method]) for one in measured]
    meters = instruments(setup.device)
    timings = measure(works, meters, repetitions=config.cost_repetitions)
    return [
        CostRecord(
            method=one.method,
            sigma=sigma,
            device=meters.device,
            batch_size=header.batch_sizes[one.method],
            samples_per_repetition=rounds[0].samples,
            repetition_seconds=tuple(each.seconds for each in rounds),
            samples_per_certificate=asked.get(one.method, config.n0 + config.n),
            parameters=one.parameters(),
            peak_memory_bytes=max((each.peak_memory for each in rounds if each.peak_memory), default=None),
        )
        for one, rounds in zip(measured, timings, strict=True)
    ]


def known_batch_sizes(file: Path) -> dict[str, int]:
    """Return the batch sizes that the certificates in a records file have; empty where there is none to read."""
    try:
        return in_use(read_run(file)).batch_sizes
    except RecordsError:
        return {}
