"""A method that trains one network on noisy images: what the harness asks of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic

from baselines.networks.backbones import load_published
from baselines.networks.resnet import RESNET
from baselines.noisy import recipes, released
from baselines.noisy.classifier import AnyConfig, Config, Loss, NoisyClassifier, NoisyObjective, in_steps
from bench.smoothing.noise import seeded_initialisation
from bench.training.architectures import RecipeTable
from bench.training.checkpoints import load_checkpoint, load_weights, save_checkpoint
from bench.training.loop import TrainingJob, fit
from bench.training.provenance import provenance
from bench.training.released import Released, load_with_arch, says_arch
from bench.types import Checkpoint


@dataclass(frozen=True, kw_only=True)
class NoisyMethod(Generic[AnyConfig]):
    """A method of this kind; see `bench.types.MethodModule`.

    Attributes:
        Config: its options.
        loss: configuration -> loss of the noisy copies.
        objective: makes the objective from what NoisyObjective takes.
        counted: the method's own options that count epochs where the recipe does.
    """

    name: str
    Config: type[AnyConfig]
    loss: Callable[[AnyConfig], Loss]
    objective: Callable[..., NoisyObjective] = NoisyObjective
    counted: tuple[str, ...] = ()

    TRAINING_NAMES = ("recipe",)

    @property
    def NAMED_OPTIONS(self) -> Mapping[str, frozenset[str]]:  # noqa: N802 - the contract's name
        """The option that stands for several others."""
        return recipes.named_options(self.Config)

    @property
    def RELEASED(self) -> Released:  # noqa: N802 - the contract's name
        """The form in which such networks are released."""
        return released.residual_networks(self.name)

    def expand(self, config: AnyConfig) -> AnyConfig:
        """Return the configuration with the values of its named recipe; see `recipes.expand`."""
        return recipes.expand(self.name, config)

    def recipe_tables(self) -> list[RecipeTable]:
        """Return the published recipes."""
        return [recipes.table(self.name)]

    def backbone_of(self, config: AnyConfig) -> str | None:
        """Return the name of the network that the file `config.checkpoint` holds.

        It is None where no file is given, or one that does not say it beside a network that the options name.

        Raises:
            CheckpointError: the file does not say its network, and no option does.
        """
        if not config.checkpoint or _is_named(config):
            return None
        return load_with_arch(Path(config.checkpoint))[0]

    def checkpoint_name(self, config: AnyConfig) -> str:
        """Return "<method>[-<backbone>]_sigma_<sigma>.safetensors"; the default backbone is left out."""
        backbone = "" if config.backbone.name == RESNET.name else f"-{config.backbone.name}"
        return f"{self.name}{backbone}_sigma_{config.sigma:g}.safetensors"

    def build(self, config: AnyConfig, checkpoint: Path | Checkpoint | None) -> NoisyClassifier:
        """Return the classifier on CPU in eval mode, with the checkpoint's weights (random ones for None).

        Raises:
            CheckpointError: the file is unreadable or holds another model.
        """
        network = config.backbone.make(config.task, config.sigma)
        if checkpoint is not None:
            if _is_named(config) and isinstance(checkpoint, Path):
                load_published(network, checkpoint, config.backbone.name)
                return NoisyClassifier(network).eval()
            if config.checkpoint and isinstance(checkpoint, Path):
                _, tensors = load_with_arch(checkpoint)
            else:
                tensors, _ = load_checkpoint(checkpoint)
            load_weights(network, tensors, checkpoint)
        return NoisyClassifier(network).eval()

    def train(self, config: AnyConfig, job: TrainingJob) -> None:
        """Train for the recipe's steps, and write the weights of the best look at the held-out images."""
        name, config = self.checkpoint_name(config), in_steps(config, len(job.train_indices), *self.counted)
        with seeded_initialisation(job.seed):
            network = config.backbone.make(config.task, config.sigma)
        objective = self.objective(network, self.loss(config), config=config, copies=config.copies, job=job)
        fitted = fit(Path(name).stem, objective, config, job)
        described = {
            "method": self.name,
            "backbone": config.backbone.name,
            "sigma": config.sigma,
            "copies": config.copies,
        }
        save_checkpoint(
            job.folder / name,
            fitted.network.state_dict(),
            config=described,
            training=provenance(job, fitted),
            dtype=job.stored,
        )


def _is_named(config: Config) -> bool:
    """Return whether the options name the network of a file that does not."""
    if not config.checkpoint or config.backbone.name == RESNET.name:
        return False
    return not says_arch(Path(config.checkpoint))
