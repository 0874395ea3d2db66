"""Does a published log fit its claim: its radii on the Clopper-Pearson grid, its images, its columns; pure.

A radius that n draws certify at level alpha is one of n/2 values. Written with few digits it still tells, where the
grid is coarser than the digits, whether n and alpha are what the log is said to be made with.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special

from bench.config.levels import check_alpha
from bench.config.names import NUM_CLASSES, STANDARD_IMAGES, STANDARD_STRIDE
from bench.errors import RecordsError, UsageError, shown
from bench.records.log_claim import claim_fault
from bench.records.logs import Log, LogRow, about_correct
from bench.smoothing.stats import largest_radius, radius, upper_tail

ALPHAS = (0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0005, 0.0001)
"""Levels that are tried besides the claimed one."""

DRAWS = (1000, 10_000, 100_000)
"""Numbers of draws tried beside the claimed one; larger ones where nothing fits, since many draws fit any radii."""

MOST_DRAWS = 1_000_000
"""Most draws whose grid of radii is computed."""

RULED_OUT = 10
"""Radii off its grid that rule an n and alpha out; fewer may be rows that were damaged."""

Rounding = Literal["nearest", "down"]
"""How radii were written: the field's programs round to the nearest, `bench export-log` rounds down."""

SLACK = 1e-9
"""Share of sigma by which a radius may miss the grid: more than the error of float64, less than any log's digits."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a log is said to be made with: sigma in pixel units, draws of estimation, failure probability."""

    sigma: float
    n: int
    alpha: float
    rounding: Rounding = "nearest"


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How the radii of a log lie on the grid of one n and alpha.

    Attributes:
        largest: the largest radius that n draws certify at alpha, pixel units.
        above: radii beyond it, by more than their rounding.
        off: radii that no count gives, those above included.
        radii: radii > 0 looked at.
        telling: radii where the grid is coarser than the digits, so that another grid would miss some.
    """

    claim: Claim
    largest: float
    above: int
    off: int
    radii: int
    telling: int

    @property
    def is_fit(self) -> bool:
        """True where every radius lies on the grid; a log without radii fits anything."""
        return self.off == 0

    @property
    def is_ruled_out(self) -> bool:
        """True where more radii are off than damaged rows would explain, or one cannot be."""
        return self.above > 0 or self.off >= RULED_OUT


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One check of a log: `holds` is None where the log cannot tell."""

    check: str
    holds: bool | None
    seen: str


@dataclass(frozen=True, kw_only=True)
class LogCheck:
    """What a log says of itself.

    Attributes:
        claimed: the fit of what is claimed.
        fits: every level tried, at the claimed n or else at another, that fits all radii; the claim comes first.
        rivals: those that do not, but are not ruled out.
        findings: one per check, in the order to be read.
    """

    claimed: Fit
    fits: tuple[Fit, ...]
    rivals: tuple[Fit, ...]
    findings: tuple[Finding, ...]

    @property
    def named(self) -> Fit | None:
        """The n and alpha that fit, where all others are ruled out."""
        return self.fits[0] if len(self.fits) == 1 and not self.rivals else None

    @property
    def is_sound(self) -> bool:
        """False where any check fails."""
        return all(finding.holds is not False for finding in self.findings)


def check_log(log: Log, claim: Claim, dataset: str | None = None) -> LogCheck:
    """Return how a log fits its claim.

    Args:
        log: read with `allows_repeats=True`.
        claim: sigma is taken for granted; n and alpha are tested.
        dataset: what was certified, for its classes and its published subset; None leaves both unknown.

    Raises:
        UsageError: sigma, n or alpha lies outside its range.
    """
    _check_claim(claim)
    claimed = fit(log, claim)
    tried = [claimed, *_tried(log, claim, [claim.n])]
    tried += _tried(log, claim, [n for n in DRAWS if n < claim.n])
    if not any(one.is_fit for one in tried):
        tried += _tried(log, claim, [n for n in DRAWS if n > claim.n])
    check = LogCheck(
        claimed=claimed,
        fits=tuple(one for one in tried if one.is_fit),
        rivals=tuple(one for one in tried if not one.is_fit and not one.is_ruled_out),
        findings=(),
    )
    findings = [_about_claim(log, check), _about_alpha(check), _about_rounding(log, check)]
    findings += [_about_images(log, dataset), _about_duplicates(log), _about_classes(log, dataset)]
    if dataset is not None:
        findings.append(_about_dataset(log, dataset))
    return replace(check, findings=(*findings, _about_correct(log.rows), _about_classes_at_zero(log.rows)))


def _tried(log: Log, claim: Claim, draws: Sequence[int]) -> list[Fit]:
    """Return the fits at every level but the claimed one that has the largest radius within reach."""
    levels = [(n, alpha) for n in draws for alpha in ALPHAS if (n, alpha) != (claim.n, claim.alpha)]
    others = [replace(claim, n=n, alpha=alpha) for n, alpha in levels]
    return [fit(log, other) for other in others if _largest(other) > 0 and _reaches(log, other)]


def fit(log: Log, claim: Claim) -> Fit:
    """Return how the log's radii lie on the grid of the claim's n and alpha."""
    grid = certified_radii(claim)
    written = np.array([row.radius for row in log.rows if row.radius > 0])
    units = rounding_units(log, written)
    low, high = _range(written, units, claim.rounding)
    places = np.clip(np.searchsorted(grid, written), 1, len(grid) - 1)
    return Fit(
        claim=claim,
        largest=float(grid[-1]),
        above=int((low > grid[-1] + SLACK * claim.sigma).sum()),
        off=int((~_is_on(grid, low, high, claim.sigma)).sum()),
        radii=len(written),
        telling=int((grid[places] - grid[places - 1] > units).sum()),
    )


def recertified(log: Log, check: LogCheck, alpha: float) -> tuple[Log, Fit]:
    """Return the log with radii at another alpha, and the n and alpha that its counts were inverted at.

    Each radius stands for the lowest count that would be written so. Where several n and alpha fit, those with the
    lowest counts are taken: the largest alpha of the claimed n, if it is among them. Abstentions stay what they are.

    Raises:
        UsageError: alpha lies outside (0, 1).
        RecordsError: no n and alpha fit the radii.
    """
    check_alpha(alpha)
    if not check.fits:
        raise RecordsError(
            f"log {log.name} fits no n and alpha that were tried, so its radii cannot be inverted to counts; "
            "give the --n and --alpha that it was made with"
        )
    claim = check.claimed.claim
    source = check.fits[0]
    if not check.claimed.is_fit:
        source = max(check.fits, key=lambda one: (one.claim.n == claim.n, one.claim.n, one.claim.alpha))
    counts = inverted_counts(log, source)
    rows = (
        row if k is None else _recertified(row, k, replace(source.claim, alpha=alpha))
        for row, k in zip(log.rows, counts, strict=True)
    )
    return replace(log, rows=tuple(rows)), source


def inverted_counts(log: Log, source: Fit) -> list[int | None]:
    """Return the lowest count of n draws that gives each row's radius; None for a radius of 0."""
    grid = certified_radii(source.claim)
    first = source.claim.n - len(grid) + 1
    written = np.array([row.radius for row in log.rows])
    low, _ = _range(written, rounding_units(log, written), source.claim.rounding)
    places = np.searchsorted(grid, low - SLACK * source.claim.sigma)
    return [
        first + int(place) if row.radius > 0 else None for place, row in zip(places, log.rows, strict=True)
    ]


def certified_radii(claim: Claim) -> NDArray[np.float64]:
    """Return the radii > 0 that n draws can certify, ascending: the last is that of n successes."""
    k = np.arange(claim.n // 2, claim.n)
    tails = special.betainccinv(claim.n - k + 1, k, claim.alpha)
    radii = -claim.sigma * special.ndtri(np.append(tails, upper_tail(claim.n, claim.n, claim.alpha)))
    return np.asarray(radii[radii > 0], dtype=np.float64)


def rounding_units(log: Log, written: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the unit of the last digit of each radius, for as many significant digits or decimals as the log has."""
    decimals = max(
        (-int(Decimal(repr(row.radius)).normalize().as_tuple().exponent) for row in log.rows), default=0
    )
    exponents = np.floor(np.log10(np.where(written > 0, written, 1.0)))
    return np.maximum(10.0 ** (exponents - log.digits + 1), 10.0**-decimals)


def _range(
    written: NDArray[np.float64], units: NDArray[np.float64], rounding: Rounding
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return what may have been written so: within half a unit, or up to one unit more."""
    return (written, written + units) if rounding == "down" else (written - units / 2, written + units / 2)


def _is_on(
    grid: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64], sigma: float
) -> NDArray[np.bool_]:
    slack = SLACK * sigma
    return np.searchsorted(grid, low - slack) < np.searchsorted(grid, high + slack, side="right")


def _reaches(log: Log, claim: Claim) -> bool:
    """Return whether the largest radius is within reach, so that there is something to compare."""
    most = max(row.radius for row in log.rows)
    return most <= _largest(claim) * (1 + 10.0 ** (1 - log.digits))


def _largest(claim: Claim) -> float:
    return largest_radius(claim.n, claim.alpha, claim.sigma)


def _recertified(row: LogRow, k: int, claim: Claim) -> LogRow:
    new = radius(upper_tail(k, claim.n, claim.alpha), claim.sigma)
    return replace(row, radius=new, predict=row.predict if new > 0 else -1)


def _check_claim(claim: Claim) -> None:
    if not 0 < claim.sigma < math.inf:
        raise UsageError(f"sigma is {claim.sigma:g}, expected sigma > 0")
    if claim.n < 2:
        raise UsageError(f"n is {shown(claim.n)}, expected n >= 2")
    if claim.n > MOST_DRAWS:
        raise UsageError(f"n is {shown(claim.n)}, expected n <= {MOST_DRAWS}")
    check_alpha(claim.alpha)
    if _largest(claim) <= 0:
        raise UsageError(
            f"n is {claim.n}, and so few samples certify no radius at alpha {claim.alpha:g}: give the n of the log"
        )


def _about_claim(log: Log, check: LogCheck) -> Finding:
    found, claim = check.claimed, check.claimed.claim
    largest = f"the largest possible is {found.largest:.4g}"
    if found.above:
        seen = f"impossible: {found.above} of {found.radii} radii are larger, {largest}"
    elif found.off:
        seen = f"{found.off} of {found.radii} radii belong to no count; {largest}"
    else:
        seen = f"all {found.radii} radii belong to a count; {largest}"
    if found.off and not found.above and fit(log, replace(claim, rounding=_other(claim.rounding))).is_fit:
        seen += f"; all would belong to one if they were rounded {_WORDS[_other(claim.rounding)]}"
    return Finding(check=f"radii fit {level(claim)}", holds=found.is_fit, seen=seen)


def level(claim: Claim) -> str:
    """Return n and alpha in words."""
    return f"n = {claim.n}, alpha = {claim.alpha:g}"


_WORDS: dict[Rounding, str] = {"nearest": "to the nearest", "down": "down"}


def _other(rounding: Rounding) -> Rounding:
    return "nearest" if rounding == "down" else "down"


def _about_alpha(check: LogCheck) -> Finding:
    title = "radii name one n and alpha"
    if check.named is not None:
        return Finding(check=title, holds=True, seen=f"of all tried, only {level(check.named.claim)} fits")
    if not check.fits:
        return Finding(check=title, holds=False, seen="nothing that was tried fits")
    fitting, rivals = ("; ".join(level(one.claim) for one in some[:4]) for some in (check.fits, check.rivals))
    found = check.claimed
    seen = (
        f"too few large radii to tell ({found.telling} of {found.radii} lie where counts can be told apart): "
    )
    seen += f"{len(check.fits)} fit ({fitting})"
    if rivals:
        seen += f", {len(check.rivals)} miss fewer than {RULED_OUT} radii ({rivals})"
    return Finding(check=title, holds=None, seen=seen)


def _about_rounding(log: Log, check: LogCheck) -> Finding:
    """Say how many radii are certainly written above the certified value."""
    title = "no radius is written above the certified one"
    if not check.fits:
        return Finding(check=title, holds=None, seen="unknown, for no n and alpha fit")
    source = check.named or check.fits[0]
    grid = certified_radii(source.claim)
    written = np.array([row.radius for row in log.rows if row.radius > 0])
    _, high = _range(written, rounding_units(log, written), source.claim.rounding)
    slack = SLACK * source.claim.sigma
    highest = grid[np.searchsorted(grid, high + slack, side="right") - 1]
    above = int((written > highest + slack).sum())
    possible = "" if source.claim.rounding == "down" else f"; rounding to {log.digits} digits may lift others"
    return Finding(
        check=title,
        holds=above == 0,
        seen=f"{above} of {len(written)} are, at the least{possible if above else ''}",
    )


def _about_images(log: Log, dataset: str | None) -> Finding:
    title = "no image is missing"
    if log.rows[0].index is None:
        return Finding(check=title, holds=None, seen="the log names no images")
    held = sorted(set(log.indices))
    steps = Counter(after - before for before, after in itertools.pairwise(held))
    stride = steps.most_common(1)[0][0] if steps else 1
    expected = range(held[0], held[-1] + 1, stride)  # never a set of it: two images may be far apart
    if stride == STANDARD_STRIDE.get(dataset or ""):
        expected = range(0, STANDARD_IMAGES * stride, stride)
    inside, extra = {index for index in held if index in expected}, [i for i in held if i not in expected]
    missing = len(expected) - len(inside)
    every = f", every {stride}th" if stride > 1 else ""
    seen = f"{len(held)} images{every} from {held[0]} to {held[-1]}"
    if missing:
        seen += f"; {missing} missing, the first is {next(i for i in expected if i not in inside)}"
    if extra:
        seen += f"; {len(extra)} outside this pattern, the first is {extra[0]}"
    return Finding(check=title, holds=not missing and not extra, seen=seen)


def _about_dataset(log: Log, dataset: str) -> Finding:
    fault = claim_fault(log, dataset)
    return Finding(check=f"it may be of {dataset}", holds=not fault, seen=fault or "nothing denies it")


def _about_duplicates(log: Log) -> Finding:
    times = Counter(log.indices)
    repeated = [index for index, count in times.items() if count > 1]
    seen = f"{len(repeated)} repeated" + (f", the first is {repeated[0]}" if repeated else "")
    return Finding(check="no image stands in it twice", holds=not repeated, seen=seen)


def _about_classes(log: Log, dataset: str | None) -> Finding:
    """Say which classes are there; of more classes than half the images, half the images' number is enough."""
    classes = NUM_CLASSES.get(dataset or "", 1 + max(row.label for row in log.rows))
    counts = Counter(row.label for row in log.rows if row.label < classes)
    missing = list(itertools.islice((label for label in range(classes) if label not in counts), 6))
    held = counts.values() or [0]
    seen = f"{len(counts)} of {classes} classes, {min(held)} to {max(held)} images each"
    if missing:
        seen += f"; none of class {', '.join(map(str, missing[:5]))}{', ...' if len(missing) > 5 else ''}"
    enough = min(classes, max(1, len(log.rows) // 2))
    return Finding(check="every class is covered", holds=len(counts) >= enough, seen=seen)


def _about_correct(rows: Sequence[LogRow]) -> Finding:
    notes = about_correct(rows)
    has_column = rows[0].correct is not None
    seen = "it says what label and predict say" if has_column else "there is no such column"
    seen = notes[0] if notes else seen
    return Finding(check="column correct", holds=not notes if has_column else None, seen=seen)


def _about_classes_at_zero(rows: Sequence[LogRow]) -> Finding:
    count = sum(row.predict >= 0 and row.radius == 0 for row in rows)
    return Finding(
        check="a class has a radius above 0",
        holds=count == 0,
        seen=f"{count} rows name a class with radius 0",
    )
