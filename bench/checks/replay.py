"""Certificates computed again, and what differs from those on record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench.config.names import nearest_hint
from bench.errors import UsageError
from bench.records.file import require_noise
from bench.runs.rebuild import Rebuilt
from bench.runs.workbench import certify_images, group_size
from bench.types import Record

COMPARED = (
    "label",
    "predict",
    "radius",
    "counts_selection",
    "counts_estimation",
    "samples",
    "uniform",
    "clean",
    "certified_sigma",
    "bounds",
)
"""Fields of a record that computing it again must give back; `seconds` may differ."""


@dataclass(frozen=True, kw_only=True)
class Replay:
    """A record, the same certificate computed again, and the names of the fields that differ."""

    old: Record
    new: Record
    differences: tuple[str, ...]


def replay(
    rebuilt: Rebuilt, index: int, methods: Sequence[str] | None = None, sigma: float | None = None
) -> Iterator[Replay]:
    """Yield every certificate of one image on record, computed again with the run's protocol and batch size.

    Args:
        rebuilt: the run.
        index: position of the image in the test split.
        methods, sigma: only these methods, only this sigma.

    Raises:
        ProtocolError: the run was made with another noise than this program draws.
        UsageError: the run holds no such record, a random part of the samples that were drawn, samples that another
            alpha stopped, or records of an estimation that is not run; or its records alone name the code of a method.
        CheckpointError: a checkpoint is missing, or another one than the run's.
    """
    require_noise(rebuilt.run.header, rebuilt.run.folder)
    if (drawn := rebuilt.run.header.drawn_n) is not None:
        raise UsageError(
            f"{rebuilt.run.folder} holds a random part of the {drawn} samples that were drawn: replay the run that it "
            "was recertified from"
        )
    if (alpha := rebuilt.run.header.drawn_alpha) is not None:
        raise UsageError(
            f"{rebuilt.run.folder} holds samples that stopped where alpha = {alpha:g} decided: replay the run that it "
            "was recertified from"
        )
    if rebuilt.run.header.estimation == "confidence-sequence":
        raise UsageError(
            f"{rebuilt.run.folder} has confidence-sequence estimation, which is read and reported but not run: its "
            "certificates cannot be computed again"
        )
    asked: list[tuple[str, object, Sequence[object]]] = [
        ("method", method, rebuilt.run.header.methods) for method in methods or ()
    ]
    asked += [] if sigma is None else [("sigma", sigma, rebuilt.run.header.sigmas)]
    for kind, name, held in asked:
        if name not in held:
            raise UsageError(
                f"{rebuilt.run.folder} holds no {kind} {name}; {nearest_hint(str(name), map(str, held))}"
            )
    records = [
        record
        for record in rebuilt.run.records
        if record.index == index
        and (methods is None or record.method in methods)
        and sigma in (None, record.sigma)
    ]
    if not records:
        some = ", ".join(map(str, rebuilt.run.header.indices[:5]))
        raise UsageError(
            f"{rebuilt.run.folder} holds no such certificate of image {index}; its images begin {some}"
        )
    rebuilt.check_code(record.method for record in records)
    return (_replayed(rebuilt, record) for record in records)


def companions(indices: Sequence[int], index: int, size: int) -> tuple[int, ...]:
    """Return the images that a run certified together with one of them, as long as nothing stopped it: `size` at most.

    On a GPU they share batches, whose size decides which of its kernels compute, and so the last bits of logits.
    """
    first = indices.index(index) // size * size
    return tuple(indices[first : first + size])


def _replayed(rebuilt: Rebuilt, old: Record) -> Replay:
    smoothed = rebuilt.smoothed(old.method, old.sigma)
    group = companions(rebuilt.run.header.indices, old.index, group_size(rebuilt.setup, smoothed.batch_size))
    made = certify_images(rebuilt.setup, old.method, smoothed, group)
    new = made[group.index(old.index)]
    named = [name for name in COMPARED if name != "clean" or old.clean is not None]
    differences = tuple(name for name in named if getattr(old, name) != getattr(new, name))
    return Replay(old=old, new=new, differences=differences)
