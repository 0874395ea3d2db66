"""What methods that denoise and then classify as if clean share: the pair, the classifier's training, the score."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any, Generic, Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.networks.consistency_map import ConsistencyModel
from baselines.networks.diffusion import DiffusionDenoiser
from baselines.networks.resnet import RESNET
from baselines.parts.readings import Reading
from bench.errors import UsageError
from bench.training.augmentation import augment
from bench.training.loop import Batch, Fitted, Recipe, Supervised, TrainingJob, fit
from bench.training.origin import digest
from bench.training.scores import noisy_accuracy, radius_share, with_noise
from bench.types import Backbone

DenoiserT = TypeVar("DenoiserT", bound=nn.Module)
ConfigT = TypeVar("ConfigT", bound=Recipe)

SCORED_SIGMAS = (0.25, 0.5, 1.0)
"""Noise levels at which a denoiser is judged on held-out images while it trains; one denoiser serves all."""


class PixelDenoiser(Protocol):
    """A denoiser in pixel units."""

    def denoise_pixels(self, x_noisy: Tensor, sigma: float, keys: Tensor | None = None) -> Tensor:
        """Return denoised pixels (B,C,H,W) in [0,1] for x_noisy with noise of deviation sigma."""
        ...


class DenoisedClassifier(nn.Module):
    """Denoiser, then classifier of clean pixels."""

    denoiser: nn.Module
    classifier: nn.Module

    def __init__(self, denoiser: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.denoiser, self.classifier = denoiser, classifier

    def forward(self, x_noisy: Tensor, sigma: float, keys: Tensor | None = None) -> Tensor:
        """Return logits (B,K) for x_noisy (B,C,H,W) in pixel units."""
        denoiser: PixelDenoiser = self.denoiser  # type: ignore[assignment]
        return self.classifier(denoiser.denoise_pixels(x_noisy, sigma, keys))

    def stages(self) -> dict[str, nn.Module]:
        """Return the modules whose time is told apart, by name; a classifier may have stages of its own."""
        own = getattr(self.classifier, "stages", lambda: {"classifier": self.classifier})
        return {"denoiser": self.denoiser, **own()}

    def compiled_parts(self) -> list[nn.Module]:
        """Return the modules that are compiled: the network of the denoiser, and the classifier.

        The user's own denoiser is one where it is a module; a function is left as it is.
        """
        network = getattr(self.denoiser, "unet", None) or getattr(self.denoiser, "denoiser", None)
        return [*([network] if isinstance(network, nn.Module) else []), self.classifier]

    def purifier_parts(self) -> tuple[Reading, nn.Module]:
        """Return the denoiser as it is used, and the classifier of clean pixels, which are tried apart.

        Raises:
            UsageError: a denoiser of the user's own kind, of which nothing is known.
        """
        if not isinstance(self.denoiser, DiffusionDenoiser | ConsistencyModel):
            raise UsageError(
                "this denoiser is neither a diffusion nor a consistency model, which alone can be tried apart: "
                "certify with it instead"
            )
        return Reading(denoiser=self.denoiser), self.classifier


class CleanObjective(Supervised[nn.Module]):
    """Cross entropy on clean augmented images; the score is clean held-out accuracy."""

    def __init__(self, network: nn.Module, job: TrainingJob) -> None:
        super().__init__(network)
        self.task = job.split.task
        self.images, self.labels = job.held_out()

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss of one batch."""
        return F.cross_entropy(
            self.network(augment(batch.x, self.task, batch.generator)).float(), batch.labels
        )

    def score(self, average: nn.Module) -> float | None:
        """Return the averaged network's accuracy on clean held-out images; None where none are held out."""
        return noisy_accuracy(average, self.images, self.labels, 0.0, draws=1)


class FinetuningObjective(Supervised[nn.Module]):
    """Cross entropy on denoised noisy images (arXiv 2206.10550, Section 5); the score is the radius of both parts.

    The denoiser is not trained: it makes one forward pass an image, which counts as one of the classifier's.
    """

    def __init__(self, pair: DenoisedClassifier, sigma: float, job: TrainingJob) -> None:
        super().__init__(pair.classifier)
        self.denoiser = pair.denoiser.to(job.device).requires_grad_(False).eval()
        self.sigma, self.task = sigma, job.split.task
        self.images, self.labels = job.held_out()

    @property
    def forwards(self) -> float:
        """Forward passes per image and step, a call of the denoiser being one; see `bench.training.loop.Objective`."""
        return super().forwards + (
            self.denoiser.chain.steps if isinstance(self.denoiser, DiffusionDenoiser) else 1
        )

    @property
    def identity(self) -> dict[str, Any]:
        """What makes the denoised images; see `bench.training.loop.Objective`."""
        chain = self.denoiser.chain if isinstance(self.denoiser, DiffusionDenoiser) else None
        return {
            "denoiser": digest(self.denoiser.state_dict()),
            "chain": None if chain is None else asdict(chain),
        }

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss of one batch."""
        x = augment(batch.x, self.task, batch.generator)
        with torch.no_grad():
            x_noisy = with_noise(x, self.sigma, batch.generator)
            keys = torch.randint(
                2**62, (len(x),), generator=batch.generator, device=x.device
            )  # of a chain's noise
            x_hat = self._denoised(x_noisy, keys)
        return F.cross_entropy(self.network(x_hat).float(), batch.labels)

    def score(self, average: nn.Module) -> float | None:
        """Return the held-out share of the radius of the denoiser with the averaged classifier."""
        return radius_share(
            lambda x: average(self._denoised(x, torch.arange(len(x), device=x.device))),
            self.images,
            self.labels,
            self.sigma,
        )

    def _denoised(self, x_noisy: Tensor, keys: Tensor) -> Tensor:
        denoiser: PixelDenoiser = self.denoiser  # type: ignore[assignment]
        return denoiser.denoise_pixels(x_noisy, self.sigma, keys)


def classifier_recipe(recipe: Recipe, max_steps: int) -> Recipe:
    """Return a method's recipe for its classifier: all of it but the length, which a cosine spans too."""
    kept = {option.name: getattr(recipe, option.name) for option in fields(Recipe)}
    return Recipe(**kept | {"max_steps": max_steps, "cosine_steps": 0})


def train_classifier(
    network: nn.Module, backbone: Backbone, recipe: Recipe, max_steps: int, job: TrainingJob
) -> Fitted:
    """Return the classifier trained on clean images, as it was at the best look at the held-out ones.

    Its recipe is the method's over `max_steps` of its own; see `classifier_recipe`. The stage has one name for all
    methods, so that a second method of the same recipe goes on, in the same workspace, from the classifier that the
    first has trained.
    """
    clean = classifier_recipe(recipe, max_steps)
    return fit(stage_name("dds_classifier", backbone), CleanObjective(network, job), clean, job)


def denoised_radius(
    denoiser: nn.Module, classifier: nn.Module, images: Tensor, labels: Tensor
) -> float | None:
    """Return the share of the radius of denoiser + classifier on images under noise, the mean over SCORED_SIGMAS.

    See `bench.training.scores.radius_share`; without images it is None.
    """
    both = DenoisedClassifier(denoiser, classifier)
    shares = [
        radius_share(lambda x, s=sigma: both(x, s), images, labels, sigma, draws=4)  # type: ignore[misc]
        for sigma in SCORED_SIGMAS
    ]
    found = [share for share in shares if share is not None]
    return sum(found) / len(found) if found else None


class DenoiserObjective(Supervised[DenoiserT], Generic[DenoiserT, ConfigT]):
    """Base of a denoiser's objective: the score is what it is for, `denoised_radius` on held-out images."""

    def __init__(self, config: ConfigT, denoiser: DenoiserT, classifier: nn.Module, job: TrainingJob) -> None:
        super().__init__(denoiser)
        self.config, self.classifier = config, classifier
        self.images, self.labels = job.held_out()

    @property
    def identity(self) -> dict[str, Any]:
        """What chooses among its weights; see `bench.training.loop.Objective`."""
        return {"classifier": digest(self.classifier.state_dict())}

    def score(self, average: nn.Module) -> float | None:
        """Return the held-out radius of the averaged denoiser with the classifier; None where none are held out."""
        return denoised_radius(average, self.classifier, self.images, self.labels)


def stage_name(part: str, backbone: Backbone) -> str:
    """Return "<part>[-<backbone>]", the name of what rests on that classifier of clean images, the default left out."""
    return part if backbone.name == RESNET.name else f"{part}-{backbone.name}"
