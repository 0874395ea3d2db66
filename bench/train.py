"""Shared parts of training: one resumable loop, step seeding, EMA, learning-rate schedules, seeded noise.

The loop draws nothing from a global generator: the batch, the augmentation and the noise of step k come from
generators seeded by (seed, k), so that a run that was killed and resumed ends with the same weights.
"""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar

import torch
from torch import Tensor, nn

from bench import curves
from bench.batches import Batch, Progress, TrainingJob, seeded, training_batch
from bench.checkpoints import first_line, load_torch_file
from bench.curves import Look
from bench.errors import CheckpointError, NumericalError
from bench.hardware import device_name

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How long and how fast to train.

    Attributes:
        max_steps: steps at most; the horizon of the cosine schedule.
        evaluate_every: steps between two looks at the held-out part.
        patience: looks without a new best after which training stops.
        schedule: "constant" or "cosine", both after a linear warm-up of warmup_steps.
        cosine_steps: step at which the cosine reaches 0; 0 = max_steps.
        rate_every: steps for which a learning rate is held; above 1 (an epoch) the first of them has rate 0.
        ema_decay: decay per step of the averaged weights, which are the ones evaluated and kept.
        clip: largest gradient norm; 0 = no clipping.
        clip_from: first step that is clipped.
        precision: arithmetic of the forward pass; weights and losses stay float32.
    """

    max_steps: int = 20_000
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    warmup_steps: int = 100
    schedule: Literal["constant", "cosine"] = "constant"
    cosine_steps: int = 0
    rate_every: int = 1
    ema_decay: float = 0.998
    evaluate_every: int = 100
    patience: int = 10
    clip: float = 1.0
    clip_from: int = 0
    precision: Literal["float32", "bfloat16"] = "float32"


class Objective(Protocol):
    """What is trained: a network, its loss on a batch, and how good its averaged copy is on held-out images."""

    @property
    def network(self) -> nn.Module:
        """The network that is trained."""
        ...

    @property
    def companions(self) -> nn.ModuleList:
        """Further modules whose state belongs to the run, such as a target network."""
        ...

    def parameter_groups(self, learning_rate: float) -> Iterable[dict[str, Any]]: ...

    def loss(self, batch: Batch) -> Tensor: ...

    def after_step(self, step: int) -> None: ...

    def score(self, average: nn.Module) -> float | None: ...


class Supervised(Generic[Network]):
    """Base of the objectives that train all parameters alike and have no companions."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.companions = nn.ModuleList()

    def parameter_groups(self, learning_rate: float) -> Iterable[dict[str, Any]]:
        """Return one group with all parameters at the base learning rate."""
        return [{"params": list(self.network.parameters()), "lr": learning_rate}]

    def after_step(self, step: int) -> None:
        """Do nothing after the optimiser's step."""


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """The averaged network with the best held-out score (the last one, where none is measured), and what it took."""

    network: nn.Module
    score: float | None
    steps: int
    images_seen: int
    seconds: float


def fit(stage: str, objective: Objective, recipe: Recipe, job: TrainingJob) -> Fitted:
    """Train until the held-out score stops rising (or for max_steps), and return the averaged network.

    Repeating the call after an interruption continues from the last saved state. Each look at the held-out images
    adds a line to <workspace>/<stage>.csv, which stays; see `bench.curves`.

    Raises:
        NumericalError: the loss is not finite; the message names the step.
        CheckpointError: the saved state is of another network.
    """
    run = _Fit(stage, objective, recipe, job)
    run.resume()
    while not run.is_over():
        run.advance()
        if run.step % recipe.evaluate_every == 0 or run.is_over():
            run.evaluate()
            run.save()
    return run.finish()


class _Fit:
    """State of one training run: what `fit` saves and resumes."""

    def __init__(self, stage: str, objective: Objective, recipe: Recipe, job: TrainingJob) -> None:
        self.stage, self.objective, self.recipe, self.job = stage, objective, recipe, job
        self.network = objective.network.to(job.device)
        objective.companions.to(job.device)
        self.average = copy.deepcopy(self.network).requires_grad_(False).eval()
        self.best = copy.deepcopy(self.average.state_dict())
        groups = list(objective.parameter_groups(recipe.learning_rate))
        self.base_rates = [group["lr"] for group in groups]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=recipe.weight_decay)
        self.step, self.stale, self.seconds, self.loss = 0, 0, 0.0, math.nan
        self.losses: list[float] = []
        self.best_score: float | None = None
        self.started = time.perf_counter()
        self.state_path = job.workspace / f"{stage}.pt"
        self.curves_path = job.workspace / f"{stage}.csv"

    def is_over(self) -> bool:
        limit = self.job.max_seconds
        return (
            self.step >= self.recipe.max_steps
            or self.stale >= self.recipe.patience
            or (limit is not None and self.elapsed() >= limit)
        )

    def elapsed(self) -> float:
        return self.seconds + time.perf_counter() - self.started

    def advance(self) -> None:
        self.network.train()
        scale = rate_scale(self.step, self.recipe)
        for group, base in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = base * scale
        device_type = self.job.device.type
        with torch.autocast(device_type, torch.bfloat16, enabled=self.recipe.precision == "bfloat16"):
            loss = self.objective.loss(training_batch(self.job, self.recipe.batch_size, self.step))
        if not torch.isfinite(loss):
            raise NumericalError(
                f"The loss of {self.stage} is {loss.item()} at step {self.step}: try a lower learning rate."
            )
        self.optimizer.zero_grad()
        loss.backward()
        if self.recipe.clip > 0 and self.step >= self.recipe.clip_from:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip)
        self.optimizer.step()
        update_average(
            self.average, self.network, min(self.recipe.ema_decay, (self.step + 1) / (self.step + 10))
        )
        self.objective.after_step(self.step)
        self.step += 1
        self.loss = loss.item()
        self.losses.append(self.loss)
        self.job.report(self._progress())

    def _progress(self) -> Progress:
        return Progress(
            stage=self.stage,
            step=self.step,
            max_steps=self.recipe.max_steps,
            loss=self.loss,
            seconds=self.elapsed(),
            score=self.best_score,
        )

    def evaluate(self) -> None:
        score = self.objective.score(self.average)
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
        )
        curves.append(self.curves_path, look)
        self.losses = []

    def images_seen(self) -> int:
        return self.step * min(self.recipe.batch_size, len(self.job.train_indices))

    def save(self) -> None:
        state = {
            "step": self.step,
            "stale": self.stale,
            "seconds": self.elapsed(),
            "best_score": self.best_score,
            "losses": self.losses,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "best": self.best,
            "companions": self.objective.companions.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        self.state_path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.state_path.with_suffix(".tmp")
        torch.save(state, temporary)
        os.replace(temporary, self.state_path)

    def resume(self) -> None:
        self._load_state()
        curves.keep_until(self.curves_path, self.step)

    def _load_state(self) -> None:
        if not self.state_path.exists():
            return
        try:
            state = load_torch_file(self.state_path)
            self.network.load_state_dict(state["network"])
            self.average.load_state_dict(state["average"])
            self.objective.companions.load_state_dict(state["companions"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (CheckpointError, RuntimeError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{self.state_path} does not continue this training ({first_line(error)}); delete it to start anew."
            ) from error
        self.step, self.stale, self.seconds = state["step"], state["stale"], state["seconds"]
        self.best, self.best_score = state["best"], state["best_score"]
        self.losses = state.get("losses", [])  # states of earlier versions lie at a look, and have none

    def finish(self) -> Fitted:
        self.average.load_state_dict(self.best)
        return Fitted(
            network=self.average,
            score=self.best_score,
            steps=self.step,
            images_seen=self.images_seen(),
            seconds=self.elapsed(),
        )


def rate_scale(step: int, recipe: Recipe) -> float:
    """Return the factor in [0,1] on the base learning rate: linear warm-up, then constant or half a cosine."""
    position = step // recipe.rate_every * recipe.rate_every
    if position < recipe.warmup_steps:
        return (position + (recipe.rate_every == 1)) / recipe.warmup_steps
    if recipe.schedule == "constant":
        return 1.0
    horizon = recipe.cosine_steps or recipe.max_steps
    done = (position - recipe.warmup_steps) / max(1, horizon - recipe.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the average's parameters towards the network's (average = decay average + (1 - decay) network).

    Buffers, such as batch-norm statistics, are copied.
    """
    for mean, value in zip(average.parameters(), network.parameters(), strict=True):
        mean.lerp_(value, 1 - decay)
    for kept, buffer in zip(average.buffers(), network.buffers(), strict=True):
        kept.copy_(buffer)


@contextmanager
def seeded_initialisation(seed: int) -> Iterator[None]:
    """Draw the initial weights of networks made inside from `seed`, leaving the global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def with_noise(x: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Return x plus N(0, sigma^2) in the units of x."""
    return x + sigma * torch.randn(x.shape, generator=generator, device=x.device)


@torch.no_grad()
def noisy_accuracy(
    classify: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, sigma: float, *, draws: int = 4
) -> float:
    """Return the share of noisy copies that `classify` (pixels -> logits) gets right; the noise is fixed."""
    generator = seeded(images.device, "held-out", len(images))
    correct = 0
    for _ in range(draws):
        for x, y in zip(images.split(256), labels.split(256), strict=True):
            correct += int((classify(with_noise(x, sigma, generator)).argmax(1) == y).sum())
    return correct / (draws * len(images))


def provenance(job: TrainingJob, *fits: Fitted) -> dict[str, Any]:
    """Return what a checkpoint says of its training: command, seconds, images seen, held-out scores, hardware."""
    return {
        "command": job.command,
        "seed": job.seed,
        "seconds": round(sum(fit.seconds for fit in fits), 1),
        "steps": [fit.steps for fit in fits],
        "images_seen": sum(fit.images_seen for fit in fits),
        "held_out_scores": [fit.score for fit in fits],
        "held_out_images": len(job.held_out_indices),
        "train_images": len(job.train_indices),
        "hardware": device_name(job.device),
        "torch": torch.__version__,
    }
