"""Checks of any classifier, without a closed form: what it must do for its certificates to hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.checks.selftest import FALSE_ALARM, allowed_violations
from bench.config.run import RunConfig
from bench.errors import UsageError
from bench.runs.single import open_method
from bench.smoothing.certifier import Smoothed
from bench.smoothing.classifiers import check_shape
from bench.smoothing.counting import Draws
from bench.smoothing.stats import clopper_pearson_lower, radius
from bench.types import ABSTAIN, Protocol

REFERENCE_SEED = 1
"""Added to the seed for the reference's noise: independent of the certificates'."""


PROPERTIES = 5
"""How many properties are checked."""


@dataclass(frozen=True, kw_only=True)
class Property:
    """One property: its name, whether it holds, and what was seen."""

    name: str
    holds: bool
    seen: str


def check_method(
    config: RunConfig, trials: int, note: Callable[[str], None] = lambda text: None
) -> Iterator[Property]:
    """Yield the properties of the configuration's first method at its first sigma, on the first test image.

    Args:
        trials: repetitions of each check.
        note: as in `open_method`.

    Raises:
        CheckpointError: the method has no checkpoint for the data set yet, or it does not fit.
        UsageError: its certificates are composed of several bounds.
    """
    one = open_method(config, note)
    x = one.setup.split.images[one.setup.indices[0]].to(one.setup.device)
    protocol = Protocol(n0=20, n=200, alpha=0.05, seed=config.seed)
    return check_classifier(one.smoothed, x, protocol, trials=trials, reference=20 * trials + 2000)


def check_classifier(
    smoothed: Smoothed, x: Tensor, protocol: Protocol, *, trials: int = 100, reference: int = 20_000
) -> Iterator[Property]:
    """Yield the properties of a classifier, one after the other.

    The coverage check certifies the same image `trials` times on fresh noise and compares each radius with the
    one that follows from the class's share of `reference` further samples. The reference's own error is on the
    safe side: its upper bound, at level FALSE_ALARM / 2 over all classes, stands for the true probability.

    Args:
        smoothed: the classifier under its noise.
        x: (C, H, W) float32 in [0,1], on the classifier's device.
        protocol: of the certificates, fixed estimation; a smaller n than usual will do.
        trials: certificates of the same image.
        reference: samples of the reference.
    """
    if hasattr(smoothed, "compose"):
        raise UsageError(
            "its certificates are composed of several bounds, each under its own noise, and the reference has one: "
            "test the parts as methods"
        )
    noise = torch.randn((8, *x.shape), generator=torch.Generator().manual_seed(protocol.seed))
    yield from _check_calls(smoothed, x + smoothed.sigma * noise.to(x.device))
    yield _check_coverage(smoothed, x, protocol, trials, reference)


@torch.inference_mode()
def _check_calls(smoothed: Smoothed, x_noisy: Tensor) -> Iterator[Property]:
    keys = torch.arange(len(x_noisy), device=x_noisy.device)
    kept = x_noisy.clone()
    logits = smoothed.classifier(x_noisy, smoothed.sigma, keys)
    shape = (len(keys), smoothed.num_classes)
    if not isinstance(logits, Tensor):
        check_shape(logits, *shape)
    yield Property(
        name="logits are finite and have a row per sample and a column per class",
        holds=tuple(logits.shape) == shape and bool(logits.isfinite().all()),
        seen=f"shape {tuple(logits.shape)}, expected {shape}",
    )
    changed = float((x_noisy - kept).abs().max())
    yield Property(
        name="the noisy images are left as they are", holds=changed == 0, seen=f"largest change {changed:g}"
    )
    again = smoothed.classifier(kept, smoothed.sigma, keys)
    spread = float((again - logits).abs().max())
    yield Property(
        name="the same samples and keys give the same logits",
        holds=spread == 0,
        seen=f"largest change {spread:g}",
    )
    alone = torch.cat(
        [smoothed.classifier(kept[i : i + 1], smoothed.sigma, keys[i : i + 1]) for i in range(len(keys))]
    )
    spread, scale = float((alone - logits).abs().max()), max(1.0, float(logits.abs().max()))
    yield Property(
        name="a sample's logits do not depend on its batch, up to rounding",
        holds=spread <= 0.02 * scale,
        seen=f"largest change {spread:.2g} of {scale:.2g}",
    )


def _check_coverage(
    smoothed: Smoothed, x: Tensor, protocol: Protocol, trials: int, reference: int
) -> Property:
    draws = Draws(seed=protocol.seed + REFERENCE_SEED, index=0, stage="estimation", samples=reference)
    [known] = smoothed.count(x[None], [draws])
    level = FALSE_ALARM / 2 / smoothed.num_classes
    largest = [
        radius(clopper_pearson_lower(reference - count, reference, level), smoothed.sigma) for count in known
    ]
    certificates = [smoothed.certify(x, index, protocol) for index in range(trials)]
    violations = sum(c.predict != ABSTAIN and c.radius > largest[c.predict] for c in certificates)
    allowed = allowed_violations(trials, protocol.alpha, FALSE_ALARM / 2)
    return Property(
        name="radii hold against a reference of many samples",
        holds=violations <= allowed,
        seen=f"{violations} of {trials} radii too large, at most {allowed} allowed",
    )
