"""What the certifier itself costs: its throughput beside the bare network's and beside a plain reference loop."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from bench.device import hardware, timing
from bench.device.timing import Contender
from bench.errors import UsageError
from bench.report.markup import Block, Cell, Table, format_percent, format_significant, to_markdown
from bench.report.rates import Quartiles, quartiles
from bench.runs.runner import choose_batch_sizes
from bench.runs.workbench import Setup, load_classifier, protocol_of, require_checkpoint
from bench.smoothing import certifier
from bench.smoothing.certifier import Protocol
from bench.types import Classifier, Precision

FORWARD, CERTIFIER, REFERENCE = "forward", "certifier", "reference"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is timed: one classifier, one image (C,H,W) on its device, and the protocol."""

    classifier: Classifier
    x: Tensor
    sigma: float
    protocol: Protocol
    batch_size: int
    num_classes: int

    @property
    def samples(self) -> int:
        """Samples of one certificate, n0 + n."""
        return self.protocol.n0 + self.protocol.n


@dataclass(frozen=True, kw_only=True)
class CertifierCost:
    """Samples per second of the bare forward pass, the certifier and the reference loop, and paired ratios.

    Attributes:
        flops: operations of one sample, a multiplication and an addition counting as two.
        precision, reference: arithmetic of the certifier with the forward pass, and of the reference loop.
        peak: operations per second that the device can do at most at `precision`; None where it is not known.
    """

    method: str
    sigma: float
    batch_size: int
    samples: int
    repetitions: int
    rates: dict[str, Quartiles]
    over_forward: Quartiles
    over_reference: Quartiles
    flops: int
    precision: Precision
    reference: Precision
    peak: float | None

    @property
    def flops_per_second(self) -> float:
        """Operations per second of the certifier, its median."""
        return self.flops * self.rates[CERTIFIER].median


def certifier_cost(
    setup: Setup, method: str, repetitions: int, reference: Precision | None = None
) -> CertifierCost:
    """Return what the certifier costs for one method at the configuration's first sigma.

    The three are timed in the same rounds, each round one certificate of n0 + n samples.

    Args:
        reference: precision of the reference loop, which is never compiled; None: the configuration's.

    Raises:
        CheckpointError: the method has no checkpoint yet.
        UsageError: the estimation is not fixed, so that a certificate may take fewer samples.
    """
    config, sigma = setup.config, setup.config.sigmas[0]
    if config.estimation != "fixed":
        raise UsageError(
            f"estimation is {config.estimation}, which draws fewer samples than are counted here: leave it fixed"
        )
    checkpoint = require_checkpoint(setup, method, sigma)
    plain = replace(config, precision=reference or config.precision, compile="none")
    subject = Subject(
        classifier=load_classifier(setup, method, sigma, checkpoint),
        x=setup.split.images[setup.indices[0]].to(setup.device),
        sigma=sigma,
        protocol=protocol_of(config),
        batch_size=choose_batch_sizes(setup, {(method, sigma): checkpoint})[method],
        num_classes=setup.split.task.num_classes,
    )
    other = subject
    if plain != config:
        loaded = load_classifier(replace(setup, config=plain), method, sigma, checkpoint)
        other = replace(subject, classifier=loaded)
    works = {
        FORWARD: bare_forward(subject),
        CERTIFIER: whole_certifier(subject),
        REFERENCE: plain_loop(other),
    }
    contenders = [_contender(name, work, subject, setup) for name, work in works.items()]
    measured = timing.measure(
        contenders,
        repetitions=repetitions,
        synchronize=timing.synchronizer(setup.device),
        peak_memory=lambda work: None,
        target_seconds=0.0,
    )
    seconds = {one.method: np.asarray(one.repetition_seconds) for one in measured}
    return CertifierCost(
        method=method,
        sigma=sigma,
        batch_size=subject.batch_size,
        samples=subject.samples,
        repetitions=repetitions,
        rates={name: quartiles(subject.samples / value) for name, value in seconds.items()},
        over_forward=quartiles(seconds[FORWARD] / seconds[CERTIFIER]),
        over_reference=quartiles(seconds[REFERENCE] / seconds[CERTIFIER]),
        flops=_flops(other),
        precision=config.precision,
        reference=plain.precision,
        peak=hardware.peak_flops(hardware.device_name(setup.device), config.precision),
    )


@torch.no_grad()
def _flops(subject: Subject) -> int:
    keys = torch.zeros(1, dtype=torch.int64, device=subject.x.device)
    with FlopCounterMode(display=False) as counter:
        subject.classifier(subject.x[None], subject.sigma, keys)
    return counter.get_total_flops()


def _contender(name: str, work: Callable[[], object], subject: Subject, setup: Setup) -> Contender:
    return Contender(
        method=name,
        sigma=subject.sigma,
        device=hardware.device_name(setup.device),
        batch_size=subject.samples,
        work=work,
        samples_per_certificate=subject.samples,
        parameters=0,
    )


def bare_forward(subject: Subject) -> Callable[[], object]:
    """Return the network alone, on a ready-made noisy batch, as often as a certificate needs it."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn((subject.batch_size, *subject.x.shape), generator=generator).to(subject.x.device)
    x_noisy = subject.x + subject.sigma * noise
    keys = torch.arange(subject.batch_size, device=subject.x.device)
    sizes = _batch_sizes(subject)

    @torch.inference_mode()
    def work() -> Tensor:
        for size in sizes:
            logits = subject.classifier(x_noisy[:size], subject.sigma, keys[:size])
        return logits

    return work


def whole_certifier(subject: Subject) -> Callable[[], object]:
    """Return a certificate by `smoothing.certify`."""

    def work() -> object:
        return certifier.certify(
            subject.classifier,
            subject.x,
            sigma=subject.sigma,
            index=0,
            protocol=subject.protocol,
            batch_size=subject.batch_size,
            num_classes=subject.num_classes,
        )

    return work


def plain_loop(subject: Subject) -> Callable[[], object]:
    """Return a certificate's samples as a plain program draws and counts them.

    It repeats the image, draws noise like it, copies the classes of every batch to the host and counts them one
    by one.
    """
    sizes = _batch_sizes(subject)

    @torch.inference_mode()
    def work() -> Counter[int]:
        counts: Counter[int] = Counter()
        for size in sizes:
            batch = subject.x.repeat((size, 1, 1, 1))
            noise = torch.randn_like(batch) * subject.sigma
            keys = torch.arange(size, device=batch.device)
            labels = subject.classifier(batch + noise, subject.sigma, keys).argmax(1).cpu().numpy()
            for label in labels:
                counts[int(label)] += 1
        return counts

    return work


def _batch_sizes(subject: Subject) -> list[int]:
    whole, rest = divmod(subject.samples, subject.batch_size)
    return [subject.batch_size] * whole + [rest] * (rest > 0)


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
    named |= {"certifier_over_forward": one.over_forward, "certifier_over_reference": one.over_reference}
    for name, value in named.items():
        row |= {f"{name}_first_quartile": value.first, f"{name}_median": value.median}
        row[f"{name}_third_quartile"] = value.third
    return row


def cost_table(costs: Sequence[CertifierCost], command: str, device: str) -> Table:
    """Return one row per method."""
    first = costs[0]
    rows = tuple(
        (
            Cell(text=one.method),
            *(_cell(one.rates[name]) for name in (FORWARD, CERTIFIER, REFERENCE)),
            _cell(one.over_forward),
            _cell(one.over_reference),
            Cell(text=format_significant(one.flops_per_second / 1e12)),
            Cell(text="–" if one.peak is None else format_percent(one.flops_per_second / one.peak)),
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
            f"{device}, {first.precision}, (c) {first.reference}, {first.samples:,} samples per certificate, batches "
            f"of {', '.join(str(size) for size in sorted({one.batch_size for one in costs}))}, "
            f"{first.repetitions} interleaved repetitions; median [quartiles], ratios paired by repetition.",
            "(a): the network alone on a ready-made noisy batch. (b): noise, network, counts and bound. (c): a plain "
            "loop that copies every batch's classes to the host and counts them in Python. TFLOP/s: of the network's "
            "matrix products, convolutions and attention; the peak is the data sheet's, where the device is known.",
        ),
    )


def _cell(value: Quartiles) -> Cell:
    return Cell(
        text=format_significant(value.median),
        interval=(format_significant(value.first), format_significant(value.third)),
    )


def write_costs(costs: Sequence[CertifierCost], table: Table, folder: Path) -> list[Path]:
    """Write certifier.csv and certifier.md, and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "certifier.csv": cost_frame(costs).to_csv(index=False, lineterminator="\n"),
        "certifier.md": to_markdown(table),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
    return [folder / name for name in texts]


def default_folder(device: str) -> Path:
    """Return results/certifier/<device>, the device's name in letters that any file system takes."""
    return Path("results") / "certifier" / re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")
