"""Shared parts of training: one resumable loop, step seeding, EMA, learning-rate schedules, seeded noise.

The loop draws nothing from a global generator: the batch, the augmentation and the noise of step k come from
generators seeded by (seed, k), so that a run that was killed and resumed ends with the same weights.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from contextlib import closing, nullcontext
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from bench.device.precision import layout, tf32, training_arithmetic
from bench.errors import CheckpointError, NumericalError, UsageError
from bench.records.disk import replacing
from bench.records.lines import alone
from bench.training import curves, processes
from bench.training.batches import Batch, Loader, Progress, TrainingJob
from bench.training.checkpoints import load_torch_file
from bench.training.curves import Look
from bench.training.origin import difference, digest_of_images, origin
from bench.training.recipes import Recipe, average_decay, rate_scale

FORWARDS_WITH_GRADIENT = 3
"""Cost of a forward pass and its gradient, in forward passes."""

Network = TypeVar("Network", bound=nn.Module)


class Objective(Protocol):
    """What is trained: a network, its loss on a batch, and how good its averaged copy is on held-out images."""

    @property
    def network(self) -> nn.Module:
        """The network that is trained."""
        ...

    @property
    def forwards(self) -> float:
        """Forward passes of the network per training image and step; a gradient counts as two more."""
        ...

    # `identity`, where there is one: plain values by name that shape the training beside recipe and first weights.
    # `prepare`, where there is one and it is not None: what each training image goes through on the CPU, ahead of its
    # step; see `bench.training.batches.Prepare`.

    @property
    def companions(self) -> nn.ModuleList:
        """Further modules whose state belongs to the run, such as a target network."""
        ...

    def parameter_groups(self, learning_rate: float) -> Iterable[dict[str, Any]]:
        """Return the optimiser's groups of trained parameters, each with its learning rate "lr"."""
        ...

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean loss of the batch, a scalar with gradient; under autocast where the recipe says so."""
        ...

    def after_step(self, step: int) -> None:
        """Do what follows the optimiser's step number `step` (from 0), such as moving a target network."""
        ...

    def score(self, average: nn.Module) -> float | None:
        """Return how good the averaged network is on held-out images, higher being better; None = not measured."""
        ...


class Supervised(Generic[Network]):
    """Base of the objectives that train all parameters alike, by one forward pass an image, and have no companions."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.companions = nn.ModuleList()

    @property
    def forwards(self) -> float:
        """One forward pass with its gradient."""
        return FORWARDS_WITH_GRADIENT

    def parameter_groups(self, learning_rate: float) -> Iterable[dict[str, Any]]:
        """Return one group with all parameters at the base learning rate."""
        return [{"params": list(self.network.parameters()), "lr": learning_rate}]

    def after_step(self, step: int) -> None:
        """Do nothing after the optimiser's step."""


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """The averaged network with the best held-out score (the last one, where none is measured), and what it took.

    `forward_equivalents` counts forward passes of the network on one image, a gradient as two more, without looks at
    held-out images. `skipped` counts the steps that changed nothing, since their loss or gradient was not finite;
    `is_complete` is False where `max_seconds` ended the training.
    """

    network: nn.Module
    score: float | None
    steps: int
    images_seen: int
    forward_equivalents: int
    seconds: float
    skipped: int
    is_complete: bool = True


def fit(stage: str, objective: Objective, recipe: Recipe, job: TrainingJob) -> Fitted:
    """Train for max_steps (less, where the held-out score has not risen for `patience` looks), and return the average.

    Repeating the call after an interruption continues from the last saved state: that of the last look, or of the last
    multiple of `job.checkpoint_every` steps. Each look at the held-out images adds a line to <workspace>/<stage>.csv,
    which stays; see `bench.training.curves`. Where several processes train together (see `bench.training.processes`),
    recipe.batch_size is that of all, and the first process writes.

    Raises:
        NumericalError: the loss or its gradient was not finite too often; the message names the step.
        CheckpointError: the saved state is of another training: its seed, recipe, images or first weights (job.again
            puts this one in its place).
        BusyError: another process trains this stage in the same workspace (raised in the first process).
        UsageError: precision tf32 without a CUDA device.
    """
    prepare = getattr(objective, "prepare", None)
    others = (
        alone(job.workspace / f"{stage}.pt", "give another --zoo") if processes.is_first() else nullcontext()
    )
    with others, closing(Loader(job, recipe.batch_size, prepare=prepare)) as loader:
        run = _Fit(stage, objective, recipe, job, loader)
        run.resume()
        is_over = run.is_over()
        if is_over and run.losses:  # resumed between two looks, under tighter limits than it was saved under
            run.evaluate()
            if run.is_complete():
                run.save()
        while not is_over:
            run.advance()
            is_over = run.is_over()
            if run.is_complete() or run.step % recipe.look_every == 0:
                run.evaluate()
                run.save()
                is_over = is_over or run.is_over()
            elif is_over:  # time is up between two looks: one more for what is returned, undone on resuming
                run.save()
                run.evaluate()
            elif job.checkpoint_every is not None and run.step % job.checkpoint_every == 0:
                run.save()
        return run.finish()


class _Fit:
    """State of one training run: what `fit` saves and resumes."""

    def __init__(
        self, stage: str, objective: Objective, recipe: Recipe, job: TrainingJob, loader: Loader
    ) -> None:
        self.stage, self.objective, self.recipe, self.job, self.loader = stage, objective, recipe, job, loader
        if recipe.precision == "tf32" and job.device.type != "cuda":
            raise UsageError(
                f"precision tf32 needs a CUDA device, this one is {job.device.type}: use float32"
            )
        _lay_out(objective.network, job.device, recipe.precision)
        _lay_out(objective.companions, job.device, recipe.precision)
        self.network = objective.network
        images = digest_of_images(job.split, job.train_indices)
        own = getattr(objective, "identity", {})
        self.origin = origin(job.seed, recipe, self.network.state_dict(), images) | dict(own)
        processes.share_statistics(self.network)
        processes.share_statistics(objective.companions)
        self.average = copy.deepcopy(self.network).requires_grad_(False).eval()
        self.best = copy.deepcopy(self.average.state_dict())
        groups = list(objective.parameter_groups(recipe.learning_rate))
        self.base_rates = [group["lr"] for group in groups]
        self.optimizer = _optimizer(groups, recipe)
        self.trained = [one for group in self.optimizer.param_groups for one in group["params"]]
        self.scaler = torch.amp.GradScaler(job.device.type, enabled=recipe.precision == "float16")
        self.step, self.stale, self.seconds, self.loss = 0, 0, 0.0, math.nan
        self.losses: list[float] = []
        self.skipped, self.skipped_in_row = 0, 0
        self.best_score: float | None = None
        self.started = job.clock()
        self.state_path = job.workspace / f"{stage}.pt"
        self.curves_path = job.workspace / f"{stage}.csv"

    def is_over(self) -> bool:
        return self.is_complete() or self._is_out_of_time()

    def is_complete(self) -> bool:
        return self._ends(self.step, self.stale)

    def _ends(self, step: int, stale: int) -> bool:
        return step >= self.recipe.max_steps or stale >= self.recipe.patience

    def _is_out_of_time(self) -> bool:
        limit = self.job.max_seconds
        if limit is None:
            return False
        return processes.of_first(self.job.clock() - self.started, self.job.device) >= limit

    def elapsed(self) -> float:
        return self.seconds + self.job.clock() - self.started

    def advance(self) -> None:
        with tf32(self.recipe.precision == "tf32", self.job.device.type):
            self._advance()

    def _advance(self) -> None:
        self.network.train()
        scale = rate_scale(self.step, self.recipe)
        for group, base in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = base * scale
        device_type = self.job.device.type
        with training_arithmetic(self.recipe.precision, device_type):
            loss = self.objective.loss(self.loader.batch(self.step))
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        processes.average_gradients(self.trained)
        self.scaler.unscale_(self.optimizer)
        self.loss, norm = torch.stack([processes.mean(loss).float(), self._clip()]).tolist()
        if math.isfinite(self.loss) and math.isfinite(norm):
            self._update()
        else:
            self._skip(norm)
        self.scaler.update()
        self.step += 1
        self.job.report(self._progress())

    def _clip(self) -> Tensor:
        """Clip the gradient where the recipe says so, and return its norm before."""
        is_clipped = self.recipe.clip > 0 and self.step >= self.recipe.clip_from
        limit = self.recipe.clip if is_clipped else math.inf
        return nn.utils.clip_grad_norm_(self.trained, limit)

    def _update(self) -> None:
        self.scaler.step(self.optimizer)
        update_average(self.average, self.network, average_decay(self.step, self.recipe))
        self.objective.after_step(self.step)
        self.losses.append(self.loss)
        self.skipped_in_row = 0

    @torch.no_grad()
    def _skip(self, norm: float) -> None:
        """Leave the weights as they are, and give the buffers back the values that the average holds of them."""
        self.skipped += 1
        self.skipped_in_row += 1
        if self.skipped_in_row >= self.recipe.nonfinite_limit:
            raise NumericalError(
                f"The loss of {self.stage} is {self.loss} and its gradient's norm {norm} at step {self.step}, number "
                f"{self.skipped_in_row} in a row that is not finite: try a lower learning rate."
            )
        for buffer, kept in zip(self.network.buffers(), self.average.buffers(), strict=True):
            buffer.copy_(kept)

    def _progress(self) -> Progress:
        return Progress(
            stage=self.stage,
            step=self.step,
            max_steps=self.recipe.max_steps,
            loss=self.loss,
            seconds=self.elapsed(),
            score=self.best_score,
            waiting=self.loader.waiting(),
        )

    def evaluate(self) -> None:
        with tf32(self.recipe.precision == "tf32", self.job.device.type):
            score = self.objective.score(self.average)
        if score is not None:
            score = processes.of_first(score, self.job.device)
        if score is None or self.best_score is None or score > self.best_score:
            self.best = copy.deepcopy(self.average.state_dict())
            self.best_score, self.stale = score, 0
        else:
            self.stale += 1
        self._append_look(score)
        self.job.report(self._progress())

    def _append_look(self, score: float | None) -> None:
        look = Look(
            stage=self.stage,
            step=self.step,
            loss=math.fsum(self.losses) / len(self.losses) if self.losses else None,
            score=score,
            learning_rate=self.recipe.learning_rate * rate_scale(max(0, self.step - 1), self.recipe),
            seconds=round(self.elapsed(), 3),
            images=self.images_seen(),
            waiting=round(self.loader.waiting(), 3),
        )
        if processes.is_first():
            curves.append(self.curves_path, look)
        self.losses = []

    def images_seen(self) -> int:
        return self.step * self.loader.size

    def save(self) -> None:
        if processes.is_first():
            self.state_path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self.state_path) as file:
                torch.save(self._state(), file)

    def _state(self) -> dict[str, Any]:
        return {
            "origin": self.origin,
            "step": self.step,
            "stale": self.stale,
            "seconds": self.elapsed(),
            "best_score": self.best_score,
            "losses": self.losses,
            "skipped": (self.skipped, self.skipped_in_row),
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "best": self.best,
            "companions": self.objective.companions.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def resume(self) -> None:
        self._load_state()
        if processes.is_first():
            # A look at a step that was saved between two looks is one that the end of the time asked for.
            curves.keep_until(self.curves_path, self.step - 1 if self.losses else self.step)

    def _load_state(self) -> None:
        if not self.state_path.exists():
            return
        remedy = "repeat the command that it is of"
        try:
            state = load_torch_file(self.state_path, checks_sums=True)
            lacking = sorted(self._state().keys() - state.keys()) if isinstance(state, dict) else []
            problem = difference(state, self.origin) or (f"it lacks {lacking[0]}" if lacking else "")
        except CheckpointError as error:
            problem, remedy = str(error), "delete it"
        if self.job.again and (problem or self._ends(state["step"], state["stale"])):
            return  # of another training, or of one that has ended: this one takes its place
        if problem:
            raise CheckpointError(
                f"{self.state_path} does not continue this training ({problem.rstrip('.')}): {remedy}, add --again to "
                "put this training in its place, or give another --zoo."
            )
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.objective.companions.load_state_dict(state["companions"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.step, self.stale, self.seconds = state["step"], state["stale"], state["seconds"]
        self.best, self.best_score = state["best"], state["best_score"]
        self.losses = state["losses"]
        self.skipped, self.skipped_in_row = state["skipped"]

    def finish(self) -> Fitted:
        self.average.load_state_dict(self.best)
        return Fitted(
            network=self.average,
            score=self.best_score,
            steps=self.step,
            images_seen=self.images_seen(),
            forward_equivalents=round(self.images_seen() * self.objective.forwards),
            seconds=self.elapsed(),
            skipped=self.skipped,
            is_complete=self.is_complete(),
        )


def _lay_out(module: nn.Module, device: torch.device, precision: str) -> None:
    """Move a module to the device, the weights of its convolutions as is fastest there; see `layout`."""
    module.to(device, memory_format=layout(module, device.type, precision))  # type: ignore[call-overload]


def _optimizer(groups: list[dict[str, Any]], recipe: Recipe) -> torch.optim.Optimizer:
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=0.9, weight_decay=recipe.weight_decay)
    return torch.optim.AdamW(groups, weight_decay=recipe.weight_decay)


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the average's parameters towards the network's (average = decay average + (1 - decay) network).

    Buffers, such as batch-norm statistics, are copied, those of one type in one operation.
    """
    move_parameters(average, network, 1 - decay)
    for dtype in {one.dtype for one in network.buffers()}:
        kept, copied = ([one for one in held.buffers() if one.dtype == dtype] for held in (average, network))
        torch._foreach_copy_(kept, copied)


@torch.no_grad()
def move_parameters(kept: nn.Module, towards: nn.Module, rate: float) -> None:
    """Move a module's parameters by a share of the way to another's, all in one operation."""
    moved, values = tuple(kept.parameters()), tuple(towards.parameters())
    assert len(values) == len(moved)
    if values:
        torch._foreach_lerp_(moved, values, rate)
