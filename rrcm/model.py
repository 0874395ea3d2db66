"""rRCM as a method of the harness (arXiv 2501.13094): its options, its classifier, its training in stages."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from bench.errors import UsageError
from bench.smoothing.noise import seeded_initialisation
from bench.training.architectures import Architecture, Chains, Network
from bench.training.checkpoints import check_configuration, load_checkpoint, load_metadata, load_weights
from bench.training.loop import FORWARDS_WITH_GRADIENT, TrainingJob
from bench.training.recipes import IN_USE, TrainingPrecision
from bench.types import Backbone, Checkpoint, Task
from rrcm import checkpoints, finetune, presets, pretrain
from rrcm.encoder import Encoder, EncoderConfig
from rrcm.heads import Classifier
from rrcm.presets import EncoderName, EncoderOptions, PretrainingKind, PretrainingName, RecipeName

NAMED_OPTIONS, TRAINING_NAMES = presets.NAMED_OPTIONS, presets.TRAINING_NAMES
recipe_tables = presets.recipe_tables
RELEASED, open_part = checkpoints.RELEASED, checkpoints.open_part

Stage = Literal["all", "pretrain", "linear", "finetune"]
"""What is trained; see `train`."""

REDUCED = "-reduced"
"""Ends the name of a family of sizes that is made small for trials: one block, images of 32 or 16 pixels."""


@dataclass(frozen=True, kw_only=True)
class Config(EncoderOptions, finetune.Recipe):
    """Options of rRCM: the encoder, the recipe of fine-tuning, and that of pre-training (`pretrain_*`).

    Attributes:
        stage: what `train` does, and with "linear" which classifier is built: the head on frozen features.
        encoder, recipe, pretrain_recipe: names of the presets whose values the other options start from.
        pretraining: "rrcm", or a control with checkpoints of its own: "contrastive" (that term alone, as in MoCo-v3),
            "masked" (see `rrcm.masked`) or "none" (random weights, layer decay 1).
        forwards: forward-equivalents of the whole training, half of them for pre-training where there is any; the steps
            of both stages follow from it, from their recipes' batch sizes and copies. 0 = the recipes' own steps.
        pretrain_steps: 0 = fine-tune from random weights.
        checkpoint_blocks: compute the encoder's blocks again in the backward pass, to train in less memory.
    """

    task: Task
    sigma: float
    stage: Stage = field(default="all", metadata=IN_USE)
    encoder: EncoderName = "rrcm-mnist"
    recipe: RecipeName = "small"
    pretrain_recipe: PretrainingName = "small"
    pretraining: PretrainingKind = "rrcm"
    forwards: int = 0
    checkpoint_blocks: bool = field(default=False, metadata=IN_USE)
    pretrain_steps: int = pretrain.SMALL.max_steps
    pretrain_batch_size: int = pretrain.SMALL.batch_size
    pretrain_learning_rate: float = pretrain.SMALL.learning_rate
    pretrain_weight_decay: float = pretrain.SMALL.weight_decay
    pretrain_warmup_steps: int = pretrain.SMALL.warmup_steps
    pretrain_ema_decay: float = pretrain.SMALL.ema_decay
    pretrain_ema_warmup: bool = pretrain.SMALL.ema_warmup
    pretrain_clip: float = pretrain.SMALL.clip
    pretrain_clip_from: int = pretrain.SMALL.clip_from
    pretrain_target_start: float = pretrain.SMALL.target_start
    pretrain_target_end: float = pretrain.SMALL.target_end
    pretrain_sharpness: float = pretrain.SMALL.sharpness
    pretrain_evaluate_every: int = pretrain.SMALL.evaluate_every
    pretrain_precision: TrainingPrecision = pretrain.SMALL.precision
    pretrain_nonfinite_limit: int = pretrain.SMALL.nonfinite_limit
    pretrain_views: pretrain.ViewsName = pretrain.SMALL.views
    pretrain_contrastive: bool = pretrain.SMALL.contrastive
    pretrain_consistency: bool = pretrain.SMALL.consistency
    pretrain_masked: bool = pretrain.SMALL.masked
    pretrain_curriculum: bool = pretrain.SMALL.curriculum

    def __post_init__(self) -> None:
        """Refuse options that no recipe can have, and a kind of pre-training that the others contradict.

        Raises:
            UsageError: as in the recipes of fine-tuning and of pre-training.
        """
        super().__post_init__()
        _ = self.of_pretraining

    @property
    def sizes(self) -> EncoderConfig:
        """Sizes of the encoder for the task."""
        options = {one.name: getattr(self, one.name) for one in fields(EncoderOptions)}
        del options["layernorm"]
        return EncoderConfig(
            image_size=self.task.image_size,
            in_channels=self.task.channels,
            checkpoint_blocks=self.checkpoint_blocks,
            **options,
        )

    @property
    def finetuning(self) -> finetune.Recipe:
        """Recipe of the fine-tuning stage, and of a head's on frozen features."""
        return finetune.Recipe(**{one.name: getattr(self, one.name) for one in fields(finetune.Recipe)})

    @property
    def of_pretraining(self) -> pretrain.Recipe:
        """Recipe of the pre-training stage."""
        return pretrain.Recipe(
            max_steps=self.pretrain_steps,
            **{name: getattr(self, f"pretrain_{name}") for name in _PRETRAIN_OPTIONS},
        )


_PRETRAIN_OPTIONS = tuple(
    one.name.removeprefix("pretrain_")
    for one in fields(Config)
    if one.name.startswith("pretrain_") and one.name not in ("pretrain_steps", "pretrain_recipe")
)
"""Fields of `pretrain.Recipe` that are options called pretrain_<field>."""


def expand(config: Config) -> Config:
    """Return the configuration with every option that its named presets hold set to the preset's value.

    Raises:
        UnpublishedError: the recipe is not published at this sigma.
    """
    pretraining = presets.pretraining(config.pretrain_recipe)
    expanded = replace(
        config,
        **asdict(presets.ENCODERS[config.encoder].options),
        **asdict(presets.finetuning(config.recipe, config.sigma)),
        pretrain_steps=pretraining.max_steps,
        **{f"pretrain_{name}": getattr(pretraining, name) for name in _PRETRAIN_OPTIONS},
    )
    return replace(expanded, **presets.KINDS[config.pretraining])  # type: ignore[arg-type]


def settle(config: Config, given: Collection[str]) -> Config:
    """Return the configuration with what follows from all its options, those given singly among them.

    Args:
        given: names of the options that were given singly.

    Raises:
        UsageError: `forwards` beside steps, or beside a recipe that counts epochs.
    """
    if not config.forwards:
        return config
    if steps := {"max_steps", "pretrain_steps"}.intersection(given):
        raise UsageError(f"rrcm.forwards stands for rrcm.{min(steps)}: give one of them")
    if config.epochs:
        raise UsageError(
            f"rrcm.forwards counts forward passes, but the recipe counts {config.epochs} epochs: take another recipe, "
            "or leave forwards out"
        )
    return _of_equal_work(config)


def _of_equal_work(config: Config) -> Config:
    """Return the configuration with the steps of both stages that take `config.forwards` forward passes in all."""
    has_pretraining, recipe = config.pretrain_steps > 0, config.finetuning
    each = config.forwards / (1 + has_pretraining)
    finetuning = recipe.batch_size * recipe.copies * FORWARDS_WITH_GRADIENT
    pretraining = config.pretrain_batch_size * pretrain.forwards_per_image(
        config.of_pretraining, config.sizes
    )
    return replace(
        config,
        max_steps=round(each / finetuning),
        pretrain_steps=round(each / pretraining) if has_pretraining else 0,
    )


def networks() -> Iterator[Network]:
    """Yield the classifier of every named encoder, on the meta device."""
    for name, preset in presets.ENCODERS.items():
        task = preset.task
        config = expand(Config(task=task, sigma=0.5, encoder=name))
        with torch.device("meta"):
            encoder = Encoder(config.sizes)
            projector = encoder.projection_head
            classifier = Classifier(encoder, task.num_classes, layernorm=config.layernorm)
        yield Network(
            name=name,
            task=task,
            body=classifier.base_model,
            projector=projector,
            head=classifier.linear_head,
            forward=FixedSigma(classifier.eval(), config.sigma),
        )


def architectures(family: str, chains: Chains) -> Iterator[Architecture]:
    """Yield the classifiers of a family, `rrcm-s` and `rrcm-b`; no chain is among them."""
    dataset = family.removesuffix(REDUCED)
    for encoder, preset in presets.ENCODERS.items():
        if preset.task.dataset != dataset:
            continue
        config = expand(Config(task=preset.task, sigma=0.5, encoder=encoder))
        if family != dataset:
            pixels = {"imagenet": 32, "cifar10": 16}[dataset]
            task: Task = replace(config.task, image_size=pixels)
            config = replace(config, task=task, depth=1, embed_dim=64, num_heads=1)
        name = encoder.removesuffix(f"-{dataset}")
        yield _architecture(name, config, 1000 if family == dataset else 8)


def _architecture(name: str, config: Config, batch_size: int) -> Architecture:
    def network() -> nn.Module:
        return Classifier(Encoder(config.sizes), config.task.num_classes, layernorm=config.layernorm)

    return Architecture(
        name=name,
        task=config.task,
        batch_size=batch_size,
        build=lambda make: make(name, network),
        published="rrcm" if name == "rrcm-b" else "",
        source="arXiv 2501.13094, Appendix",
    )


class FixedSigma(nn.Module):
    """The classifier at one sigma, as a network of noisy pixels alone: a backbone for the baselines."""

    def __init__(self, classifier: Classifier, sigma: float) -> None:
        super().__init__()
        self.classifier, self.sigma = classifier, sigma

    def forward(self, x_noisy: Tensor) -> Tensor:
        """Return logits (B,K) for x_noisy (B,C,H,W) in pixel units."""
        return self.classifier(x_noisy, self.sigma)


def backbone(name: str) -> Backbone | None:
    """Return rRCM's classifier as a network for baselines, told the time of sigma; None for a name of another.

    "vit" is the default encoder, "vit-4" the same with patches of 4x4 pixels, and an encoder's name that encoder.
    """
    if name in presets.ENCODERS:
        options: dict[str, Any] = {"encoder": name}
    elif name == "vit" or re.fullmatch(r"vit-[1-9]\d*", name):
        options = {"patch_size": int(name.partition("-")[2] or EncoderOptions.patch_size)}
    else:
        return None

    def make(task: Task, sigma: float) -> FixedSigma:
        config = Config(task=task, sigma=sigma, **options)
        config = expand(config) if "encoder" in options else config
        return FixedSigma(build(config, None), sigma)

    return Backbone(name=name, make=make)


def backbone_names() -> tuple[str, ...]:
    """Return the names that `backbone` knows, one patch size standing for all."""
    return ("vit", "vit-4", *presets.ENCODERS)


def checkpoint_name(config: Config) -> str:
    """Return the file name of the checkpoint that `config` needs; of stage "pretrain" the one it makes."""
    if config.stage == "pretrain":
        return pretrain.file_name(config.of_pretraining)
    kind = "" if config.pretraining == "rrcm" else f"_{config.pretraining}"
    stage = "_linear" if config.stage == "linear" else ""
    return f"rrcm{kind}{stage}_sigma_{config.sigma:g}.safetensors"


def build(config: Config, checkpoint: Path | Checkpoint | None) -> Classifier:
    """Return the classifier on CPU in eval mode, with the checkpoint's weights (random ones for None).

    Raises:
        UsageError: stage "pretrain", which makes no classifier.
        CheckpointError: the file is unreadable, holds another model, or was made with other heads or LayerNorm.
    """
    if config.stage == "pretrain":
        raise UsageError("stage 'pretrain' makes an encoder without a head: use stage 'linear' or 'finetune'")
    classifier = Classifier(Encoder(config.sizes), config.task.num_classes, layernorm=config.layernorm)
    if checkpoint is not None:
        tensors, metadata = load_checkpoint(checkpoint)
        load_weights(classifier, tensors, checkpoint)
        check_configuration(
            metadata, {"layernorm": config.layernorm, "num_heads": config.num_heads}, checkpoint
        )
    return classifier.eval()


def train(config: Config, job: TrainingJob) -> None:
    """Train the configuration's stage, and write its checkpoint.

    "pretrain" trains the encoder if its checkpoint is not there yet; "linear" a head on its frozen features and
    "finetune" all weights at sigma, both from that checkpoint (from random weights where pretrain_steps is 0);
    "all" is "pretrain", then "finetune".

    Raises:
        UsageError: stage "pretrain" with zero steps, or options that contradict the kind of pre-training.
        CheckpointError: "linear" or "finetune" without the pre-trained encoder, or "all" with one of another seed or
            recipe.
        UnfinishedError: `job.max_seconds` ended the pre-training.
    """
    _check_kind(config)
    if config.stage == "pretrain" and config.pretrain_steps == 0:
        raise UsageError("stage 'pretrain' has pretrain_steps 0: give it steps, or leave that stage out")
    if config.stage in ("all", "pretrain"):
        anew = job.again and config.stage == "pretrain"
        encoder = pretrain.load_or_train(config.sizes, config.of_pretraining, job, anew=anew)
    else:
        encoder = pretrain.load(config.sizes, config.of_pretraining, job)
    if config.stage == "pretrain":
        return
    before: dict[str, Any] = {}
    if config.pretrain_steps > 0:
        path = job.found(pretrain.file_name(config.of_pretraining))
        job = replace(job, options=_with_those_of_encoder(job, path))
        before = load_metadata(path).get("training", {})
    with seeded_initialisation(job.seed):
        classifier = Classifier(encoder, config.task.num_classes, layernorm=config.layernorm)
    if config.stage == "linear":
        classifier.base_model.requires_grad_(False)
    finetune.finetune(classifier, config.finetuning, checkpoint_name(config), job, config.sigma, before)


def _check_kind(config: Config) -> None:
    for name, value in presets.KINDS[config.pretraining].items():
        if name.startswith("pretrain_") and (given := getattr(config, name)) != value:
            raise UsageError(
                f"{name} is {given}, expected {value} for pretraining={config.pretraining}: leave one of the two out"
            )


def _with_those_of_encoder(job: TrainingJob, path: Path) -> dict[str, Any]:
    """Return the job's options, those of pre-training being what the encoder says of itself."""
    own = {name: value for name, value in job.options.items() if not name.startswith("pretrain_")}
    return own | pretrain.options_of(path)
