"""The protocol of certificates, and what is stored under it: records, costs and the header of a run.

Names are imported from `bench.types`, which holds the contracts with methods besides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

ABSTAIN = -1
"""Class returned when nothing can be certified; its radius is 0.0 and it counts as incorrect."""

SCHEMA_VERSION = 2
"""Version of the records format; raised whenever a field changes its meaning.

1: the noise was version 1, and "sequential" was the estimation that is called "confidence-sequence" since.
"""

NOISE_VERSION = 2
"""Which noise a place gives (`bench.smoothing.noise`). Version 1 was torch's: it ends at 5.77, and blocks collide."""

LARGEST_SIGMA = 4.0
"""Largest noise level in pixel units that is taken for meant: larger ones are of another unit."""

LEAST_ALPHA = 1e-20
"""Smallest failure probability: far below it the bounds leave the range of float64."""

LARGEST_RADIUS = 1e9
"""Largest radius of a table, in pixel units: far beyond any two images."""

LEAST_RADIUS = 1e-9
"""Smallest radius of a table but 0, in pixel units: far below the precision of any."""

UNSEEN = "unseen"
"""Stands for the digest of a classifier's weights where neither a tensor nor an array is found in it."""

RunEstimation = Literal["fixed", "skip-wrong", "sequential"]
"""How a run may spend its estimation samples; see `bench.smoothing.estimation`."""

Estimation = Literal[RunEstimation, "confidence-sequence"]
"""How the samples of records were spent: as a run may, or as one did when files had schema version 1."""

Bound = Literal["clopper-pearson", "randomised"]
"""Lower bound of the selected class's probability at n samples; see `bench.smoothing.stats`."""


def _selected(counts: tuple[tuple[int, int], ...]) -> int:
    if len(counts) == 1:  # as of most images
        return counts[0][0]
    return max(counts, key=lambda pair: (pair[1], -pair[0]))[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class PartBound:
    """One of the bounds that a composed certificate rests on; see `CertifyPart`.

    Attributes:
        name, sigma, share, num_classes: as the method asked for it.
        predict, radius, counts_selection, counts_estimation: as in `Record`, at that share of alpha.
    """

    name: str
    sigma: float
    share: float
    num_classes: int
    predict: int
    radius: float
    counts_selection: tuple[tuple[int, int], ...]
    counts_estimation: tuple[tuple[int, int], ...]

    @property
    def selected(self) -> int:
        """The class that selection chose: the most frequent one, the lowest on a tie."""
        return _selected(self.counts_selection)


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One certificate: everything needed to recompute any bound later, without the model.

    Attributes:
        method: name in the registry.
        sigma: noise level in pixel units.
        index: position of the image in the data set's test split.
        label: true class.
        predict: certified class, or ABSTAIN. Older files hold the selected class where an image was skipped, which
            nothing certified: `certified` is right for both.
        radius: certified L2 radius in pixel units at full precision; 0.0 when abstaining.
        counts_selection: ((class, count), ...) of the n0 selection samples, classes ascending, zero counts left out;
            empty, as is the next, in a record made from a published log.
        counts_estimation: the same for the n estimation samples.
        n0, n: samples asked for in each stage.
        samples: samples really used, both stages together.
        seconds: wall time of this certificate.
        uniform: the image's draw from [0,1) that a randomised bound used; None for other bounds.
        clean: class that the base classifier gives the image without noise; None in older files and published logs.
        certified_sigma: noise level of the last of `bounds`, which gave the class; None where there are none.
        bounds: what a composed certificate rests on: its counts are those of the last one, and n0, n and samples are of
            each and of all of them. () for the certificate of one classifier at the row's sigma.
    """

    method: str
    sigma: float
    index: int
    label: int
    predict: int
    radius: float
    counts_selection: tuple[tuple[int, int], ...]
    counts_estimation: tuple[tuple[int, int], ...]
    n0: int
    n: int
    samples: int
    seconds: float
    uniform: float | None = None
    clean: int | None = None
    certified_sigma: float | None = None
    bounds: tuple[PartBound, ...] = ()

    @property
    def samples_asked(self) -> int:
        """n0 + n, for each bound that the certificate rests on."""
        return (self.n0 + self.n) * max(1, len(self.bounds))

    @property
    def certified(self) -> int:
        """The certified class, or ABSTAIN, as of every image that was skipped."""
        return ABSTAIN if self.is_skipped else self.predict

    @property
    def is_correct(self) -> bool:
        """True where the certified class is the label; abstention is never correct, whatever the label."""
        return self.certified == self.label != ABSTAIN

    @property
    def selected(self) -> int:
        """The class that selection chose: the most frequent one, the lowest on a tie."""
        return _selected(self.counts_selection)

    @property
    def is_skipped(self) -> bool:
        """True where no estimation sample was drawn: the selected class is wrong, or no radius is within reach."""
        return self.has_counts and not self.counts_estimation

    @property
    def has_counts(self) -> bool:
        """False for a record made from a published log: its bound cannot be computed again."""
        return bool(self.counts_selection or self.counts_estimation)


@dataclass(frozen=True, kw_only=True)
class CostRecord:
    """Measured inference cost of one method: one raw value per interleaved repetition, never only a mean.

    Attributes:
        samples_per_repetition: noisy samples drawn, classified and counted in one repetition; at batch size 1 the
            device was waited for after every sample.
        repetition_seconds: wall time of each repetition after the warm-up, in order; repetition i of every
            method of a run was made in the same round i, so that ratios can be paired.
        samples_per_certificate: n0 + n of the run.
        parameters: number of parameters of the whole method, denoiser and classifier included.
        peak_memory_bytes: highest memory in use while measuring; None where the system does not tell.
    """

    method: str
    sigma: float
    device: str
    batch_size: int
    samples_per_repetition: int
    repetition_seconds: tuple[float, ...]
    samples_per_certificate: int
    parameters: int
    peak_memory_bytes: int | None = None


Role = Literal["identity", "protocol", "machine", "contents", "provenance"]
"""What a header's field is for, which says where two headers must agree:

identity (which images) and protocol (how they are certified) wherever records are compared; machine, besides,
within one run; contents grow as a run is extended, and agree between its shards; provenance may always differ.
"""


def _role(role: Role) -> dict[str, Role]:
    return {"role": role}


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How an image is certified; a run's configuration and its header hold these fields as their own.

    Attributes:
        n0: noisy samples that select the class, >= 1.
        n: noisy samples that estimate its probability, >= 1.
        alpha: probability that a certificate is wrong, at most; in (0, 1).
        estimation: how the n samples are spent; see `bench.smoothing.estimation`.
        bound: the binomial bound at n samples; the randomised one takes its uniform from (seed, image).
        seed: of all noise, and of training; 0 <= seed < 2**63.
        radii: radii in pixel units at which tables state certified accuracy, ascending, each >= 0; sequential
            estimation certifies these and no others.
    """

    n0: int = field(default=100, metadata=_role("protocol"))
    n: int = field(default=1000, metadata=_role("protocol"))
    alpha: float = field(default=0.001, metadata=_role("protocol"))
    estimation: Estimation = field(default="fixed", metadata=_role("protocol"))
    bound: Bound = field(default="clopper-pearson", metadata=_role("protocol"))
    seed: int = field(default=0, metadata=_role("protocol"))
    radii: tuple[float, ...] = field(
        default=tuple(0.25 * step for step in range(10)), metadata=_role("contents")
    )

    @property
    def stops_early(self) -> bool:
        """Whether radii are lower bounds of what n samples would certify, and with them the ACR."""
        return self.estimation in ("sequential", "confidence-sequence")

    @property
    def protocol(self) -> Protocol:
        """These fields alone, without those of a class that holds more."""
        return Protocol(**{one.name: getattr(self, one.name) for one in fields(Protocol)})


@dataclass(frozen=True, kw_only=True)
class RunHeader(Protocol):
    """First line of a records file: under which protocol, by which command, on what, the records were made.

    Attributes:
        noise_block: samples that share a place in the noise.
        precision: arithmetic of the networks, with ", compiled" behind it where they were.
        config: the resolved configuration, as JSON values; empty for records of a published log.
        checkpoints: "<method>/<sigma>" -> SHA-256 of the checkpoint that was certified, and with "/<part>" behind it
            of what else a classifier was built from.
        weights: "<method>/<sigma>" -> SHA-256 of all weights that computed, by `bench.methods.weights.fingerprint`.
        unfinished: "<method>/<sigma>", or with "/<part>" behind it, -> how far a stopped training run had come.
        batch_sizes: method -> batch size chosen, used again on resume.
        hardware: device name, cores, memory; libraries: name -> version.
        image_geometry: how ImageNet's images were made square, "" standing for "resize-256"; see `config.names`.
        image_digest: SHA-256 of all labels of the test split and of pixels of it, by
            `bench.training.origin.image_digest`; "" in older files and of published logs, which agrees with any.
        drawn_n: how many samples were drawn, where the records hold a random part of them; else None.
        drawn_alpha: the alpha that told sampling to stop, where it stopped early and `alpha` is another; else None.
        logs: "<method>/<sigma>" -> file and notes of the published log that its records were made from.
        noise_version: which noise a place gives, see `bench.smoothing.noise`; 1 in older files, and of published logs.
        training: "<method>/<sigma>", or with "/<part>" behind it, -> what that file took to train, as far as it tells,
            by the names of `bench.training.provenance.Work`; parameters are those of the whole method, under its key.
    """

    schema_version: int = field(metadata=_role("contents"))
    command: str = field(metadata=_role("provenance"))
    created: str = field(metadata=_role("provenance"))
    git_revision: str = field(metadata=_role("provenance"))
    dataset: str = field(metadata=_role("identity"))
    subset: str = field(metadata=_role("identity"))
    indices: tuple[int, ...] = field(metadata=_role("identity"))
    class_names: tuple[str, ...] = field(metadata=_role("contents"))
    image_shape: tuple[int, int, int] = field(metadata=_role("identity"))
    methods: tuple[str, ...] = field(metadata=_role("contents"))
    sigmas: tuple[float, ...] = field(metadata=_role("contents"))
    noise_block: int = field(metadata=_role("protocol"))
    precision: str = field(metadata=_role("protocol"))
    device_type: str = field(metadata=_role("machine"))
    config: dict[str, Any] = field(metadata=_role("provenance"))
    checkpoints: dict[str, str] = field(metadata=_role("contents"))
    batch_sizes: dict[str, int] = field(metadata=_role("provenance"))
    hardware: dict[str, Any] = field(metadata=_role("provenance"))
    libraries: dict[str, str] = field(metadata=_role("provenance"))
    drawn_n: int | None = field(default=None, metadata=_role("contents"))
    drawn_alpha: float | None = field(default=None, metadata=_role("contents"))
    image_geometry: Literal["", "short-side"] = field(default="", metadata=_role("identity"))
    image_digest: str = field(default="", metadata=_role("identity"))
    logs: dict[str, Any] = field(default_factory=dict, metadata=_role("contents"))
    noise_version: int = field(default=1, metadata=_role("machine"))
    weights: dict[str, str] = field(default_factory=dict, metadata=_role("contents"))
    unfinished: dict[str, str] = field(default_factory=dict, metadata=_role("contents"))
    training: dict[str, dict[str, int | float]] = field(default_factory=dict, metadata=_role("provenance"))

    @property
    def options(self) -> dict[str, dict[str, Any]]:
        """Each method's own options, as they were given."""
        return self.config.get("options", {})

    def values(self, *roles: Role) -> dict[str, Any]:
        """Return the fields that have one of these roles, name -> value, in the order of the roles."""
        return {
            one.name: getattr(self, one.name)
            for role in roles
            for one in fields(self)
            if one.metadata["role"] == role
        }


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run read back from its records file, which holds the records in columns (`bench.records.columns`)."""

    folder: Path
    header: RunHeader
    records: Sequence[Record]
    costs: tuple[CostRecord, ...]

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}, {len(self.records):,} certificates, {len(self.costs)} costs)"


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What the certifier returns for one image; see Record for the fields."""

    predict: int
    radius: float
    counts_selection: tuple[tuple[int, int], ...]
    counts_estimation: tuple[tuple[int, int], ...]
    samples: int
    certified_sigma: float | None = None
    bounds: tuple[PartBound, ...] = ()
