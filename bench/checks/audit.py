"""Audits of a finished run: attacks inside certified radii, and what precision or batch size change."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bench.checks.attack import Attack, Target, attack
from bench.device.hardware import as_float64
from bench.device.precision import NotCompiledError
from bench.errors import UsageError
from bench.runs.rebuild import Rebuilt
from bench.runs.workbench import Setup
from bench.smoothing.certifier import Smoothed, certificate_of
from bench.smoothing.counting import Draws, predicted_classes
from bench.smoothing.noise import Stage, bound_uniform, stable_seed
from bench.smoothing.stats import binomial_upper_tail
from bench.types import ABSTAIN, Certificate, Compilation, Precision, Record

FALSE_ALARM = 1e-6
"""Probability, at most, that an audit flags a sound run, all its methods and sigmas together."""


@dataclass(frozen=True, kw_only=True)
class Attacked:
    """One certified image after the attack.

    Attributes:
        distance: L2 distance of the attacked point, below the certified radius.
        predict: class that PREDICT returned at the attacked point, or ABSTAIN.
        has_gradients: False where the classifier has none, so that only random directions were tried.
    """

    method: str
    sigma: float
    index: int
    certified: int
    radius: float
    distance: float
    predict: int
    has_gradients: bool

    @property
    def is_violation(self) -> bool:
        """True where PREDICT returned another class; abstention contradicts nothing."""
        return self.predict not in (self.certified, ABSTAIN)


def attack_records(
    rebuilt: Rebuilt, records: Sequence[Record], settings: Attack, seed: int
) -> Iterator[Attacked]:
    """Attack each certified image of one method at one sigma, one point per image, and yield what PREDICT says.

    Args:
        rebuilt: the run.
        records: certified records of one method and sigma, each with a radius > 0.
        settings: how hard to try.
        seed: of the attack and of PREDICT's noise, which is none of the run's.
    """
    if not records:
        return
    smoothed = rebuilt.smoothed(records[0].method, records[0].sigma)
    setup = rebuilt.setup
    protocol = replace(setup.config.protocol, seed=stable_seed(setup.config.seed, seed, "audit"))
    for record in records:
        x = setup.split.images[record.index].to(setup.device)
        target = Target(x=x, label=record.predict, sigma=record.sigma, radius=record.radius)
        generator = torch.Generator(setup.device).manual_seed(stable_seed(seed, record.index, "attack"))
        point, has_gradients = attack(smoothed.classifier, target, settings, generator)
        yield Attacked(
            method=record.method,
            sigma=record.sigma,
            index=record.index,
            certified=record.predict,
            radius=record.radius,
            distance=float(as_float64(point - x).norm()),
            predict=smoothed.predict(point, record.index, protocol),
            has_gradients=has_gradients,
        )


def chance_of_violations(attacked: Sequence[Attacked], alpha: float, made: int) -> float:
    """Return the probability of that many violations, or more, if every certificate is sound.

    A violation needs a wrong certificate or a wrong PREDICT, each with probability alpha at most. A certificate's holds
    before it is known whether the image is certified: those that abstained count as well.

    Args:
        made: certificates among which all that are certified were attacked.
    """
    violations = sum(one.is_violation for one in attacked)
    return binomial_upper_tail(violations, made + len(attacked), alpha)


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to run a classifier: its name, and the smoothed classifier, or why there is none."""

    name: str
    smoothed: Smoothed | None
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Change:
    """What one variant changes against the first one, over the same images and noise.

    Attributes:
        predictions, differing: single predictions compared, and how many differ.
        images, images_changed: images compared, and those whose counts differ.
        largest, mean: of the absolute change of the radius, in pixel units.
        verdicts: changed verdicts (correct at a radius of the table), over all images and radii.
    """

    method: str
    sigma: float
    variant: str
    predictions: int
    differing: int
    images: int
    images_changed: int
    largest: float
    mean: float
    verdicts: int


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    labels: Tensor
    certificate: Certificate


def changes(rebuilt: Rebuilt, records: Sequence[Record], variants: Sequence[Variant]) -> Mapping[str, Change]:
    """Return, for every variant that can run, what it changes against the first one.

    Args:
        rebuilt: the run; its protocol and noise are used.
        records: records of one method at one sigma: which images.
        variants: the first one is the reference.

    Raises:
        UsageError: the certificates are composed of several bounds.
    """
    if any(record.bounds for record in records):
        raise UsageError(
            f"certificates of {records[0].method} are composed of several bounds: what the arithmetic changes is "
            "counted for one classifier under one noise; leave the method out"
        )
    outcomes = {
        variant.name: [_outcome(rebuilt, record, variant.smoothed) for record in records]
        for variant in variants
        if variant.smoothed is not None
    }
    reference = outcomes[variants[0].name]
    return {name: _change(rebuilt, records, name, reference, others) for name, others in outcomes.items()}


def _change(
    rebuilt: Rebuilt,
    records: Sequence[Record],
    name: str,
    reference: Sequence[_Outcome],
    others: Sequence[_Outcome],
) -> Change:
    pairs = list(zip(reference, others, strict=True))
    radii = [abs(old.certificate.radius - new.certificate.radius) for old, new in pairs]
    verdicts = [
        _verdicts(old.certificate, record.label, rebuilt) != _verdicts(new.certificate, record.label, rebuilt)
        for record, (old, new) in zip(records, pairs, strict=True)
    ]
    return Change(
        method=records[0].method,
        sigma=records[0].sigma,
        variant=name,
        predictions=sum(len(old.labels) for old, _ in pairs),
        differing=sum(int((old.labels != new.labels).sum()) for old, new in pairs),
        images=len(pairs),
        images_changed=sum(_counts(old) != _counts(new) for old, new in pairs),
        largest=max(radii),
        mean=sum(radii) / len(radii),
        verdicts=sum(verdicts),
    )


def _counts(outcome: _Outcome) -> tuple[object, object]:
    return outcome.certificate.counts_selection, outcome.certificate.counts_estimation


def _verdicts(certificate: Certificate, label: int, rebuilt: Rebuilt) -> list[bool]:
    is_correct = certificate.predict == label
    return [is_correct and certificate.radius >= radius for radius in rebuilt.run.header.radii]


@torch.inference_mode()
def _outcome(rebuilt: Rebuilt, record: Record, smoothed: Smoothed) -> _Outcome:
    """Return every prediction of one image under the run's noise, and what all n samples certify."""
    setup = rebuilt.setup
    protocol = replace(setup.config.protocol, estimation="fixed")
    x = setup.split.images[record.index].to(setup.device)

    def labels_of(stage: Stage, samples: int) -> Tensor:
        draws = Draws(seed=protocol.seed, index=record.index, stage=stage, samples=samples)
        batches = predicted_classes(
            smoothed.classifier,
            x[None],
            sigma=smoothed.sigma,
            draws=[draws],
            sizes=itertools.repeat(smoothed.batch_size),
            num_classes=smoothed.num_classes,
        )
        return torch.cat(list(batches)).cpu()

    selection, estimation = labels_of("selection", protocol.n0), labels_of("estimation", protocol.n)
    classes = smoothed.num_classes
    counts = [tuple(torch.bincount(part, minlength=classes).tolist()) for part in (selection, estimation)]
    uniform = bound_uniform(protocol, record.index)
    return _Outcome(
        labels=torch.cat([selection, estimation]),
        certificate=certificate_of(*counts, sigma=smoothed.sigma, protocol=protocol, uniform=uniform),
    )


def batch_size_variants(
    rebuilt: Rebuilt, method: str, sigma: float, batch_sizes: Sequence[int]
) -> list[Variant]:
    """Return the run's classifier at each batch size; the first one is the reference."""
    smoothed = rebuilt.smoothed(method, sigma)
    return [Variant(name=str(size), smoothed=replace(smoothed, batch_size=size)) for size in batch_sizes]


def precision_variants(rebuilt: Rebuilt, method: str, sigma: float) -> list[Variant]:
    """Return the run's classifier in float32, TF32, bfloat16 and compiled, with the reason where one cannot run."""

    def at(precision: Precision, compilation: Compilation = "none") -> Smoothed:
        return rebuilt.at_precision(precision, compilation).smoothed(method, sigma)

    device = rebuilt.setup.device.type
    return [
        Variant(name="float32", smoothed=at("float32")),
        Variant(name="bfloat16", smoothed=at("bfloat16")),
        Variant(name="tf32", smoothed=at("tf32"))
        if device == "cuda"
        else Variant(name="tf32", smoothed=None, reason=f"TF32 exists on CUDA only, this device is {device}"),
        _tried(rebuilt.setup, lambda: at("float32", "default")),
    ]


def _tried(setup: Setup, made: Callable[[], Smoothed]) -> Variant:
    """Return the compiled variant where it classifies an image, or else what torch.compile says."""
    try:
        smoothed = made()
        x = setup.split.images[setup.indices[0]].to(setup.device)[None]
        with torch.inference_mode():
            smoothed.classifier(x, smoothed.sigma, torch.zeros(1, dtype=torch.int64, device=setup.device))
    except NotCompiledError as error:
        reason = f"torch.compile fails here ({error.reason})"
        return Variant(name="compiled", smoothed=None, reason=reason)
    return Variant(name="compiled", smoothed=smoothed)
