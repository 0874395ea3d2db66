"""How programs feed pixels to networks: the known scalings, and one network read as if it had another."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

_NORMALISATIONS: dict[str, dict[int, tuple[tuple[float, ...], tuple[float, ...]]]] = {
    "ImageNet normalisation": {
        1: ((0.449,), (0.226,)),
        3: ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    },
    "CIFAR-10 normalisation": {3: ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))},
    "MNIST normalisation": {1: ((0.1307,), (0.3081,))},
}
"""Name -> channels -> (mean, deviation) in pixel units; for grey images ImageNet's are averaged over colours."""

NEAR = 1e-6
"""Largest difference of factors or offsets that are the same."""


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """What a network sees of pixels x in [0,1]: factor * x + offset, per channel.

    Attributes:
        name: as users call it, "[-1,1]" or "ImageNet normalisation".
        factor, offset: (C,) each.
    """

    name: str
    factor: tuple[float, ...]
    offset: tuple[float, ...]

    def equals(self, other: Scaling) -> bool:
        """Return whether both show a network the same."""
        pairs = zip((*self.factor, *self.offset), (*other.factor, *other.offset), strict=True)
        return all(abs(a - b) <= NEAR * max(1.0, abs(a)) for a, b in pairs)

    def instead_of(self, declared: Scaling, x: Tensor) -> Tensor:
        """Return pixels (B,C,H,W) that a network with the declared scaling sees as x under this one."""
        shape = (1, -1, 1, 1)
        factor, offset = x.new_tensor(self.factor).view(shape), x.new_tensor(self.offset).view(shape)
        seen = factor * x + offset
        return (seen - x.new_tensor(declared.offset).view(shape)) / x.new_tensor(declared.factor).view(shape)


def from_mean_and_deviation(name: str, mean: tuple[float, ...], std: tuple[float, ...]) -> Scaling:
    """Return the scaling (x - mean) / std."""
    offset = tuple(-m / s for m, s in zip(mean, std, strict=True))
    return Scaling(name=name, factor=tuple(1 / s for s in std), offset=offset)


def known_scalings(channels: int) -> tuple[Scaling, ...]:
    """Return the scalings that released programs use on images of so many channels."""
    ranges = {"[0,1]": (1.0, 0.0), "[-1,1]": (2.0, -1.0), "[0,255]": (255.0, 0.0)}
    plain = (
        Scaling(name=name, factor=(factor,) * channels, offset=(offset,) * channels)
        for name, (factor, offset) in ranges.items()
    )
    normalised = (
        from_mean_and_deviation(name, *values[channels])
        for name, values in _NORMALISATIONS.items()
        if channels in values
    )
    return (*plain, *normalised)


def named(factor: tuple[float, ...], offset: tuple[float, ...]) -> Scaling:
    """Return the scaling under its known name, or one that says its numbers."""
    found = Scaling(name="", factor=factor, offset=offset)
    for known in known_scalings(len(factor)):
        if known.equals(found):
            return known
    mean = ", ".join(f"{-b / a:.4g}" for a, b in zip(factor, offset, strict=True))
    std = ", ".join(f"{1 / a:.4g}" for a in factor)
    return Scaling(name=f"mean {mean}, deviation {std}", factor=factor, offset=offset)
