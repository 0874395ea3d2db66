"""What the certifier itself costs: its throughput beside the bare network's and beside a plain reference loop."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from bench.config.names import ANY_CHECKPOINT
from bench.cost.work import certificate
from bench.device import hardware
from bench.device.batching import filled
from bench.device.timing import Work, instruments, measure
from bench.errors import UsageError
from bench.report.markup import Block, Row, Table, format_percent, format_significant
from bench.report.rates import Quartiles, quartiles
from bench.report.tables.cost import quartile_cell, quartile_columns
from bench.report.write import write
from bench.runs.stream import Stream
from bench.runs.workbench import Setup, choose_batch_sizes, entrant, first_image_stream, group_size
from bench.types import Precision

RESULTS = Path("results") / "certifier"

FORWARD, CERTIFIER, REFERENCE = "forward", "certifier", "reference"


@dataclass(frozen=True, kw_only=True)
class CertifierCost:
    """Seconds of the samples of a certificate, or of several made together, in three ways.

    Attributes:
        seconds: FORWARD, CERTIFIER and REFERENCE -> one value per repetition, so that ratios can be paired.
        flops: operations of one sample, a multiplication and an addition counting as two.
        precision, reference: arithmetic of the certifier with the forward pass, and of the reference loop.
        peak: operations per second that the device can do at most at `precision`; None where it is not known.
    """

    method: str
    sigma: float
    batch_size: int
    samples: int
    seconds: dict[str, list[float]]
    flops: int
    precision: Precision
    reference: Precision
    peak: float | None

    @property
    def repetitions(self) -> int:
        """Rounds in which all three were timed."""
        return len(self.seconds[CERTIFIER])

    @property
    def rates(self) -> dict[str, Quartiles]:
        """Samples per second."""
        return {name: quartiles(self.samples / np.array(values)) for name, values in self.seconds.items()}

    def over(self, other: str) -> Quartiles:
        """Return the certifier's samples per second over those of FORWARD or REFERENCE, paired by repetition."""
        return quartiles(np.array(self.seconds[other]) / np.array(self.seconds[CERTIFIER]))

    @property
    def flops_per_second(self) -> float:
        """Operations per second of the certifier, its median."""
        return self.flops * self.rates[CERTIFIER].median


def certifier_cost(
    setup: Setup, method: str, repetitions: int, reference: Precision | None = None
) -> CertifierCost:
    """Return what the certifier costs for one method at the configuration's first sigma.

    The three are timed in the same rounds, each round one certificate of n0 + n samples, on an accelerator as many as
    a run makes together.

    Args:
        reference: precision of the reference loop, which is never compiled; None: the configuration's.

    Raises:
        CheckpointError: the method has no checkpoint yet.
        UsageError: the estimation is not fixed, so that a certificate may take fewer samples, or certificates are
            composed of several bounds.
    """
    config, sigma = setup.config, setup.config.sigmas[0]
    if config.estimation != "fixed":
        raise UsageError(
            f"estimation is {config.estimation}, which draws fewer samples than are counted here: leave it fixed"
        )
    one = entrant(setup, method, sigma).required(ANY_CHECKPOINT)  # which takes as long
    size = choose_batch_sizes(setup, [one])[method]
    plain = replace(config, precision=reference or config.precision, compile="none")
    stream = other = first_image_stream(setup, one)
    if hasattr(stream.smoothed, "compose"):
        raise UsageError(
            f"certificates of {method} are composed of several bounds, and the network alone has one: leave it out"
        )
    if plain != config:
        other = first_image_stream(replace(setup, config=plain), one)
    together = group_size(setup, size)
    samples = together * (config.n0 + config.n)
    is_filled = config.compile != "none"
    works = {
        FORWARD: forward_pass(stream, samples, size, is_filled=is_filled),
        CERTIFIER: certificate(stream, config.protocol, size, images=together, is_filled=is_filled),
        REFERENCE: plain_loop(other, samples, size),
    }
    meters = instruments(setup.device)
    timed = measure(list(works.values()), meters, repetitions=repetitions, batches=1)
    return CertifierCost(
        method=method,
        sigma=sigma,
        batch_size=size,
        samples=samples,
        seconds={name: [one.seconds for one in own] for name, own in zip(works, timed, strict=True)},
        flops=flops_of(other),
        precision=config.precision,
        reference=plain.precision,
        peak=hardware.peak_flops(meters.device, config.precision),
    )


@torch.no_grad()
def flops_of(stream: Stream) -> int:
    """Return the operations of one sample, a multiplication and an addition counting as two."""
    keys = torch.zeros(1, dtype=torch.int64, device=stream.images.device)
    with FlopCounterMode(display=False) as counter:
        stream.smoothed.classifier(stream.images[:1], stream.smoothed.sigma, keys)
    return counter.get_total_flops()


def forward_pass(stream: Stream, samples: int, batch_size: int, *, is_filled: bool = False) -> Work:
    """Return the network alone, on a ready-made noisy batch, as often as a certificate needs it.

    Args:
        is_filled: as in `certificate`.
    """
    smoothed, (x_noisy, keys) = stream.smoothed, stream.noisy_batch(0, batch_size)
    classifier = filled(smoothed.classifier, batch_size) if is_filled else smoothed.classifier

    @torch.inference_mode()
    def forward() -> Tensor:
        for size in _batch_sizes(samples, batch_size):
            logits = classifier(x_noisy[:size], smoothed.sigma, keys[:size])
        return logits

    return Work(batch=forward, size=samples)


def plain_loop(stream: Stream, samples: int, batch_size: int) -> Work:
    """Return a certificate's samples as a plain program draws and counts them.

    It repeats the image, draws noise like it, copies the classes of every batch to the host and counts them one
    by one.
    """
    smoothed = stream.smoothed

    @torch.inference_mode()
    def loop() -> Counter[int]:
        counts: Counter[int] = Counter()
        for size in _batch_sizes(samples, batch_size):
            batch = stream.images[0].repeat((size, 1, 1, 1))
            noise = torch.randn_like(batch) * smoothed.sigma
            keys = torch.arange(size, device=batch.device)
            labels = smoothed.classifier(batch + noise, smoothed.sigma, keys).argmax(1).cpu().numpy()
            for label in labels:
                counts[int(label)] += 1
        return counts

    return Work(batch=loop, size=samples)


def _batch_sizes(samples: int, batch_size: int) -> list[int]:
    whole, rest = divmod(samples, batch_size)
    return [batch_size] * whole + [rest] * (rest > 0)


def cost_frame(costs: Sequence[CertifierCost]) -> pd.DataFrame:
    """Return one row per method, unrounded: rates and ratios as median and quartiles."""
    return pd.DataFrame([_row(one) for one in costs])


def _row(one: CertifierCost) -> dict[str, Any]:
    row: dict[str, Any] = {
        "method": one.method,
        "sigma": one.sigma,
        "batch_size": one.batch_size,
        "samples": one.samples,
        "repetitions": one.repetitions,
        "precision": one.precision,
        "reference_precision": one.reference,
        "flops_per_sample": one.flops,
        "certifier_flops_per_second": one.flops_per_second,
        "share_of_peak": None if one.peak is None else one.flops_per_second / one.peak,
    }
    named = {f"{name}_samples_per_second": rate for name, rate in one.rates.items()}
    named |= {f"certifier_over_{name}": one.over(name) for name in (FORWARD, REFERENCE)}
    for name, value in named.items():
        row |= quartile_columns(name, value)
    return row


def cost_table(costs: Sequence[CertifierCost], command: str, device: str) -> Table:
    """Return one row per method."""
    first = costs[0]
    rows: tuple[Row, ...] = tuple(
        (
            one.method,
            *(quartile_cell(rate) for rate in one.rates.values()),
            *(quartile_cell(one.over(name)) for name in (FORWARD, REFERENCE)),
            format_significant(one.flops_per_second / 1e12),
            "–" if one.peak is None else format_percent(one.flops_per_second / one.peak),
        )
        for one in costs
    )
    return Table(
        caption="Throughput of the certifier (samples/s)",
        headers=(
            *("method", "(a) forward pass", "(b) certifier", "(c) plain loop", "(b)/(a)", "(b)/(c)"),
            *("(b) TFLOP/s", "of the peak (%)"),
        ),
        blocks=(Block(title="", rows=rows),),
        notes=(
            f"Made by: {command}",
            f"{device}, {first.precision}, (c) {first.reference}, {first.samples:,} samples per repetition, batches "
            f"of {', '.join(str(size) for size in sorted({one.batch_size for one in costs}))}, "
            f"{first.repetitions} interleaved repetitions; median [quartiles], ratios paired by repetition.",
            "(a): the network alone on a ready-made noisy batch. (b): noise, network, counts and bound. (c): a plain "
            "loop that copies every batch's classes to the host and counts them in Python. TFLOP/s: of the network's "
            "matrix products, convolutions and attention; the peak is the data sheet's, where the device is known.",
        ),
    )


def write_costs(costs: Sequence[CertifierCost], table: Table, folder: Path) -> list[Path]:
    """Write certifier.csv and certifier.md, and return their paths."""
    return write(folder, "certifier", cost_frame(costs), table)


def folder_name(device: str) -> str:
    """Return the device's name in letters that any file system takes."""
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")
