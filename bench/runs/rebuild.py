"""The classifiers of a finished run, from its header: the same checkpoints, options and precision."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from bench.config.code import check_typed, named_code
from bench.config.methods import methods
from bench.config.names import ANY_CHECKPOINT
from bench.config.overrides import override
from bench.config.run import RunConfig, validate
from bench.errors import CheckpointError, DataError, UsageError, shown
from bench.records.columns import columns_of
from bench.runs.workbench import Setup, entrant, prepare, smoothed
from bench.smoothing.certifier import Smoothed
from bench.training.origin import holds_images_of
from bench.types import Compilation, Precision, Record, Run


@dataclass(frozen=True, kw_only=True)
class Rebuilt:
    """A run with what is needed to compute its certificates again.

    Attributes:
        typed: each "module:function" that the user named beside the run; its records name others in vain.
    """

    run: Run
    setup: Setup
    typed: frozenset[str] = frozenset()

    def check_code(self, methods: Iterable[str]) -> None:
        """Return nothing where the user typed all code that these methods of the run would call.

        Raises:
            UsageError: the records alone name it.
        """
        options = self.setup.config.options
        used = {method: options.get(method, {}) for method in methods}
        check_typed(named_code((), used), self.typed, self.run.folder)

    def smoothed(self, method: str, sigma: float) -> Smoothed:
        """Return the smoothed classifier that the run certified.

        Raises:
            CheckpointError: its checkpoint is not there, or is another one than the run's; likewise what else it is
            built from.
            UsageError: the records alone name its code.
        """
        self.check_code([method])
        one = entrant(self.setup, method, sigma).required(ANY_CHECKPOINT)  # as the run was allowed to
        recorded = self._recorded(method, sigma)
        for name, digest in one.digests().items():
            if recorded.get(name, digest) != digest:
                what = name.removeprefix(one.key).removeprefix("/") or one.checkpoint
                raise CheckpointError(
                    f"{what} is not the one that {self.run.folder} certified ({method} at sigma {sigma:g}, "
                    f"SHA-256 {recorded[name]}): bring that file back, or certify again"
                )
        weights = self.run.header.weights.get(one.key)
        return smoothed(self.setup, one, self.run.header.batch_sizes[method], weights)

    def _recorded(self, method: str, sigma: float) -> dict[str, str]:
        """Return the digests in the header of what one classifier was built from, by name."""
        own = f"{method}/{sigma:g}"
        found = self.run.header.checkpoints.items()
        return {name: digest for name, digest in found if name == own or name.startswith(f"{own}/")}

    def subject(self, method: str, sigma: float) -> str:
        """Return a digest of all that the certificates of one method at one sigma rest on, 64 hexadecimal digits."""
        header = self.run.header
        protocol = (header.dataset, header.image_shape, header.n0, header.n, header.alpha, header.seed)
        noise = (header.noise_block, header.noise_version)
        how = (header.estimation, header.bound, noise, header.precision, header.device_type)
        files, options = list(self._recorded(method, sigma).values()), header.options.get(method, {})
        files += filter(None, [header.weights.get(f"{method}/{sigma:g}")])
        parts = (files, options, header.config.get("compile"), header.batch_sizes.get(method))
        return hashlib.sha256(json.dumps([protocol, how, parts], sort_keys=True).encode()).hexdigest()

    def at_precision(self, precision: Precision, compilation: Compilation = "none") -> Rebuilt:
        """Return the same run with its networks at another precision, compiled or not."""
        config = replace(self.setup.config, precision=precision, compile=compilation)
        return replace(self, setup=replace(self.setup, config=config))

    def records(self, method: str, sigma: float) -> tuple[Record, ...]:
        """Return the run's records of one method at one sigma, by ascending image."""
        columns = columns_of(self.run.records)
        rows = columns.groups.get((method, sigma))
        found = () if rows is None else columns.take(rows)
        return tuple(sorted(found, key=lambda record: record.index))


def rebuild(
    run: Run,
    *,
    data_dir: Path | None = None,
    zoo: Path | None = None,
    typed: frozenset[str] = frozenset(),
    given: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
) -> Rebuilt:
    """Return the run with its data and configuration.

    Args:
        run: a run that was certified here.
        data_dir, zoo: where data and checkpoints lie now; None: where the run found them.
        typed: as in `Rebuilt`.
        given: method -> option -> text that the user gave: the run's own, or where a file of it lies now.

    Raises:
        DataError, UsageError: the data or the device is not there, the data are others, the header holds unknown
            settings, an option is given another value, or the run was made from a published log.
    """
    if run.header.logs:
        raise UsageError(
            f"{run.folder} was made from a published log, which no model can compute again: name a run that was "
            "certified here"
        )
    config = override(RunConfig(), run.header.config, where=f"{run.folder}, header")
    config = replace(config, data_dir=data_dir or config.data_dir, zoo=zoo or config.zoo)
    config = replace(config, device=run.header.device_type, options=_moved(config.options, given, run.folder))
    setup = prepare(validate(replace(config, subset="auto", skip=0, limit=None), methods()))
    setup = replace(setup, config=replace(config, device=setup.config.device), indices=run.header.indices)
    if not holds_images_of(run.header, setup.split):
        raise DataError("the data found are not those that were certified: name their folder with --data-dir")
    return Rebuilt(run=run, setup=setup, typed=typed)


def _moved(
    options: Mapping[str, Mapping[str, Any]], given: Mapping[str, Mapping[str, str]], run: Path | None
) -> dict[str, dict[str, Any]]:
    """Return a run's options with the files that were moved at their new places; digests tell other files."""
    found = {method: dict(values) for method, values in options.items()}
    for method, values in given.items():
        for option, text in values.items():
            old = found.get(method, {}).get(option)
            if old is None or (isinstance(old, str) and old != text and not Path(text).exists()):
                raise UsageError(
                    f"{run} was made with {method}.{option} {'left out' if old is None else shown(old)}, and --set "
                    "repeats its options: give that, or the file where it lies now"
                )
            found[method][option] = text if isinstance(old, str) else old
    return found
