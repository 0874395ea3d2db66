"""What readers of tables, figures and pages call methods and data sets: their display names, or names of one's own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from bench.config.methods import described
from bench.config.names import nearest_hint
from bench.errors import UsageError, clipped

_DATASETS = {
    "mnist": "MNIST",
    "mnist5k": "MNIST (5,000 digits)",
    "fashion-mnist": "Fashion-MNIST",
    "cifar10": "CIFAR-10",
    "imagenet": "ImageNet",
}


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Names that a user chose, which replace the display names.

    Attributes:
        methods: method -> its name.
        dataset: name of the data set; "": its display name.
    """

    methods: Mapping[str, str] = field(default_factory=dict)
    dataset: str = ""

    def of_methods(self, methods: Iterable[str]) -> dict[str, str]:
        """Return method -> name, no name given twice: methods of one display name keep their own names.

        Raises:
            UsageError: a chosen name is of a method that is not among them, or is the name of another one.
        """
        held = list(dict.fromkeys(methods))
        for method in self.methods:
            if method not in held:
                raise UsageError(f"--label names {clipped(method)!r}; {nearest_hint(method, held)}")
        displayed = {name: entry.display_name or name for name, entry in described(held).items()}
        times = Counter(displayed.values())
        named = {name: text if times[text] == 1 else name for name, text in displayed.items()}
        named |= self.methods
        for text, count in Counter(named.values()).items():
            if count > 1:
                same = ", ".join(name for name in held if named[name] == text)
                raise UsageError(f"--label: {same} would all be called {text!r}; give each another name")
        return named

    def of_dataset(self, dataset: str) -> str:
        """Return the name of a data set."""
        return self.dataset or _DATASETS.get(dataset, dataset)


DISPLAYED = Labels()
"""The display names alone."""


def read_labels(texts: Sequence[str], dataset: str | None) -> Labels:
    """Return the labels given as METHOD=NAME, and the data set's.

    Raises:
        UsageError: a text holds no "=", or no name on one side of it; a method is named twice.
    """
    methods: dict[str, str] = {}
    for text in texts:
        method, sign, name = text.partition("=")
        if not sign or not method.strip() or not name.strip():
            raise UsageError(f'--label is {clipped(text)!r}, expected METHOD=NAME, such as rrcm="Ours"')
        if method.strip() in methods:
            raise UsageError(f"--label names {clipped(method.strip())} twice; name it once")
        methods[method.strip()] = " ".join(name.split())
    return Labels(methods=methods, dataset=" ".join((dataset or "").split()))
