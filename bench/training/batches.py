"""What a training run is given, and the images of each of its steps.

The batch, the augmentation and the noise of step k come from generators seeded by (seed, k), and what prepares an image
from (seed, k, its index), never from a global one.
"""

from __future__ import annotations

import multiprocessing
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.data import sets
from bench.data.folders import StoredImages
from bench.device.children import end_with_parent, without_interrupts
from bench.device.host import cores
from bench.errors import EngineError
from bench.smoothing.noise import stable_seed
from bench.training import processes
from bench.types import Split

AHEAD = 2
"""Batches read ahead of the one asked for."""

READERS = 8
"""Threads that read image files where nobody says how many, at most one for each processor.

Where images are prepared, the processes that train, which are taken to be on one machine, share the processors.
"""

Prepare = Callable[[NDArray[np.uint8], int], NDArray[np.uint8]]
"""(image (C,H,W) of bytes, seed) -> the image that is trained on, of the same shape; it draws from the seed alone.

It is a function of a module, so that processes can be sent it.
"""

WINDOW = 100
"""Steps over which the share of waiting is taken."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What a training run tells while it goes on.

    `score` is the best held-out value so far, if one is measured; `waiting` the share of the last steps' time in which
    the training waited for images.
    """

    stage: str
    step: int
    max_steps: int
    loss: float
    seconds: float
    score: float | None
    waiting: float = 0.0


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """Where a training run takes its images from, where it keeps its state, and whom it tells.

    Attributes:
        split: the training split; `train_indices` and `held_out_indices` part it (the test split plays no part). None
            may be held out: the last weights are kept then.
        folder: where finished checkpoints go: <zoo>/<dataset>.
        shared: where those of earlier stages may be found too, the first one first.
        workspace: where curves and the states to resume from lie.
        command: the command line, kept in the checkpoint.
        options: the method's options that shape the checkpoint, kept in it.
        again: whether the state of another training of the same name gives way to this one.
        max_seconds: wall time of each stage in this call, after which the best weights so far are kept and a repeated
            call goes on; None = no limit.
        workers: threads that read image files ahead, and as many processes where an objective prepares its images;
            0 = the training does it itself, as suits images in memory; None = as many as READERS tells where images
            are files or are prepared, else 0.
        checkpoint_every: steps after which the state is saved between looks at the held-out part; None = at looks only.
        stored: type of the numbers in the finished checkpoint.
        clock: seconds, increasing.
    """

    split: Split
    train_indices: Tensor
    held_out_indices: Tensor
    folder: Path
    workspace: Path
    device: torch.device
    seed: int
    command: str
    options: Mapping[str, Any] = field(default_factory=dict)
    again: bool = False
    max_seconds: float | None = None
    checkpoint_every: int | None = None
    stored: torch.dtype = torch.float32
    workers: int | None = 0
    report: Callable[[Progress], None] = field(default=lambda progress: None)
    clock: Callable[[], float] = time.perf_counter
    shared: tuple[Path, ...] = ()

    def found(self, name: str) -> Path:
        """Return the file of that name of an earlier stage, in `folder` or in the first of `shared` that has it.

        Where none has it, it is the one in `folder`, which need not exist.
        """
        own = self.folder / name
        paths = (own, *(folder / name for folder in self.shared))
        return next((path for path in paths if path.is_file()), own)

    def held_out(self) -> tuple[Tensor, Tensor]:
        """Return the held-out images (N,C,H,W) in [0,1] and their labels (N,), on the device; N may be 0."""
        if len(self.held_out_indices) == 0:
            task = self.split.task
            shape = (0, task.channels, task.image_size, task.image_size)
            return torch.empty(shape, device=self.device), torch.empty(
                0, dtype=torch.long, device=self.device
            )
        return images_and_labels(self.split, self.held_out_indices, self.device)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One step's images (B,C,H,W) in [0,1], labels (B,), and the generators of all else that is drawn in the step.

    Attributes:
        x, labels: this process's share of the batch.
        generator: of what differs from image to image, and so from process to process.
        shared: of what all images have in common; gives all processes the same. On a CPU, where one process trains, the
            same generator; beside a GPU, one on the CPU.
    """

    x: Tensor
    labels: Tensor
    step: int
    generator: torch.Generator
    shared: torch.Generator


class Loader:
    """The batches of a training in order, read ahead by threads where the job has workers.

    Which images step k sees depends on the seed and k alone: consecutive pieces of one permutation per epoch. Threads
    serve, since Pillow decodes outside Python's lock; what they read waits in pinned memory for a CUDA device.

    Args:
        prepare: what each image goes through, with a seed of its own for each step, in processes where the job has
            workers: it may hold Python's lock, and draw from Python's own generators. None: nothing.
    """

    def __init__(
        self,
        job: TrainingJob,
        batch_size: int,
        *,
        prepare: Prepare | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.job, self.prepare, self.clock = job, prepare, clock
        self.size = min(batch_size, len(job.train_indices))
        workers = _readers(job.split, prepare) if job.workers is None else job.workers
        self.pool = ThreadPoolExecutor(workers) if workers else None
        self.preparers = _preparers(workers) if workers and prepare is not None else None
        self.ahead: dict[int, list[Future[Tensor]]] = {}
        self.epoch, self.order = -1, torch.empty(0)
        self.timings: deque[tuple[float, float]] = deque(maxlen=WINDOW + 1)

    def batch(self, step: int) -> Batch:
        """Return the batch of step `step`.

        Raises:
            UsageError: several processes, and a batch that they cannot share evenly.
            DataError: an image file that cannot be read.
            EngineError: a process that prepares images has died.
        """
        asked = self.clock()
        x, labels = self._images(step)
        self.timings.append((asked, self.clock() - asked))
        generator = shared = seeded(self.job.device, self.job.seed, "step", step)
        if self.job.device.type == "cuda":  # what is read of the GPU's own waits for it
            shared = seeded(torch.device("cpu"), self.job.seed, "step", step)
        if processes.count() > 1:
            generator = seeded(self.job.device, self.job.seed, "step", step, "process", processes.rank())
        return Batch(x=x, labels=labels, step=step, generator=generator, shared=shared)

    def waiting(self) -> float:
        """Return the share, in [0,1], of the time of the last WINDOW steps in which the training waited for images.

        The time between two calls of `batch` is one step, what is done between two steps included; 0.0 before the
        second call.
        """
        if len(self.timings) < 2:
            return 0.0
        whole = self.timings[-1][0] - self.timings[0][0]
        waited = sum(seconds for _, seconds in list(self.timings)[:-1])
        return waited / whole if whole > 0 else 0.0

    def close(self) -> None:
        """Stop reading ahead."""
        for pool in filter(None, (self.preparers, self.pool)):
            pool.shutdown(cancel_futures=True)

    def indices(self, step: int) -> Tensor:
        """Return the training split's indices (B,) that this process sees at a step."""
        count = len(self.job.train_indices)
        epoch, position = divmod(step, count // self.size)
        if epoch != self.epoch:
            generator = seeded(torch.device("cpu"), self.job.seed, "order", epoch)
            self.epoch, self.order = epoch, torch.randperm(count, generator=generator)
        piece = self.order[position * self.size : (position + 1) * self.size]
        return self.job.train_indices[processes.share(piece)]

    def _images(self, step: int) -> tuple[Tensor, Tensor]:
        """Return the images (B,C,H,W) in [0,1] and labels (B,) of a step, on the device."""
        split, device = self.job.split, self.job.device
        if self.pool is not None:
            images = self._read_ahead(self.pool, step)
        elif self.prepare is not None:
            images = torch.stack([self._image(step, index) for index in self.indices(step).tolist()])
        else:
            images = _stored(split, self.indices(step))
        labels = torch.tensor([split.labels[index] for index in self.indices(step).tolist()])
        if device.type == "cuda":
            images, labels = images.pin_memory(), labels.pin_memory()
        images = images.to(device, non_blocking=True)
        return in_unit_range(images), labels.to(device, non_blocking=True)

    def _read_ahead(self, pool: ThreadPoolExecutor, step: int) -> Tensor:
        """Return the images (B,C,H,W) of a step, and have those of the next AHEAD steps begun."""
        for later in range(step, step + 1 + AHEAD):
            if later not in self.ahead:
                asked = self.indices(later).tolist()
                self.ahead[later] = [pool.submit(self._image, later, index) for index in asked]
        try:
            return torch.stack([future.result() for future in self.ahead.pop(step)])
        except BrokenProcessPool as error:
            raise EngineError(
                "a process that prepares training images has died, perhaps for want of memory, or under a script "
                'without `if __name__ == "__main__":`; what was saved last is kept, repeat the command to continue '
                "(--workers N starts fewer)"
            ) from error

    def _image(self, step: int, index: int) -> Tensor:
        """Return an image (C,H,W) of a step as it is stored, bytes where it has them, or as it was prepared."""
        images = self.job.split.images
        read: Callable[[int], Tensor] = getattr(images, "bytes_at", images.__getitem__)
        image = read(index)  # bytes take a quarter of the way
        if self.prepare is None:
            return image
        pixels = (image if image.dtype == torch.uint8 else (255 * image).round().byte()).numpy()
        seed = stable_seed(self.job.seed, "view", step, index)
        if self.preparers is None:
            return torch.from_numpy(self.prepare(pixels, seed))
        with without_interrupts():  # a first image starts a process
            prepared = self.preparers.submit(self.prepare, pixels, seed)
        return torch.from_numpy(prepared.result())


def _readers(split: Split, prepare: Prepare | None) -> int:
    """Return how many threads read a split's images ahead: none for images in memory that nothing prepares."""
    if prepare is not None:
        return max(1, min(READERS, cores() // processes.count()))
    return min(READERS, cores()) if isinstance(split.images, StoredImages) else 0


def _preparers(workers: int) -> ProcessPoolExecutor:
    """Return processes that prepare images, a core for each; they start when they have something to do."""
    context = multiprocessing.get_context("spawn")  # a process with threads or a GPU cannot be forked
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_begin)


def _begin() -> None:
    end_with_parent()
    torch.set_num_threads(1)


def images_and_labels(split: Split, indices: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the images (B,C,H,W) in [0,1] at `indices` (B,) and their labels (B,), on `device`."""
    labels = torch.tensor([split.labels[index] for index in indices.tolist()])
    return in_unit_range(_stored(split, indices).to(device)), labels.to(device)


def _stored(split: Split, indices: Tensor) -> Tensor:
    """Return the images (B,C,H,W) at `indices` as they are in memory, bytes or in [0,1]."""
    pixels = getattr(split.images, "pixels", None)
    return pixels[indices] if isinstance(pixels, Tensor) else sets.batch(split, indices)[0]


def in_unit_range(images: Tensor) -> Tensor:
    """Return bytes as float32 in [0,1], and any other images as they are."""
    return images.float() / 255 if images.dtype == torch.uint8 else images


def seeded(device: torch.device, *parts: object) -> torch.Generator:
    """Return a generator on `device` whose stream depends on the parts alone."""
    return torch.Generator(device).manual_seed(stable_seed(*parts))
