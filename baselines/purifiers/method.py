"""A method of a denoiser and a classifier of clean images, ours or others': its options, checkpoint, training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from torch import nn

from baselines.parts import names
from baselines.parts.external import classifier_of
from baselines.parts.options import Config
from baselines.purifiers.denoised import (
    DenoisedClassifier,
    FinetuningObjective,
    classifier_recipe,
    stage_name,
    train_classifier,
)
from bench.errors import CheckpointError, UnfinishedError
from bench.smoothing.noise import seeded_initialisation
from bench.training.checkpoints import (
    check_configuration,
    load_checkpoint,
    load_metadata,
    load_weights,
    save_checkpoint,
    unfinished,
)
from bench.training.loop import Objective, TrainingJob, fit
from bench.training.provenance import provenance
from bench.training.recipes import trained_options
from bench.types import Checkpoint

CLEAN = 0.0
"""The noise level that a classifier of clean images is told, where its network is told one."""

PARTS = ("denoiser", "classifier")
"""The parts of a purifier, and the options that name others' ones."""

AnyConfig = TypeVar("AnyConfig", bound=Config)


class Purifier(Generic[AnyConfig]):
    """A method of this kind; see `bench.types.MethodModule`.

    Attributes:
        Config: its options.
        name: of the method whose checkpoint this is.
        stage: name of the denoiser's training.
        STORED_AS: key in the checkpoint -> option, of those that make the denoiser.
        objective: of our denoiser, from the configuration, the denoiser, the trained classifier and the job.
    """

    name: str
    stage: str
    STORED_AS: Mapping[str, str]
    objective: Callable[..., Objective]

    def __init__(self, config: type[AnyConfig]) -> None:
        self.Config = config

    def load_denoiser(self, config: AnyConfig) -> nn.Module:
        """Return the denoiser that the option `denoiser` names."""
        raise NotImplementedError

    def chain(self, config: AnyConfig) -> dict[str, Any]:
        """Return the options of the chain of network calls that denoises; {} where there is one call."""
        return {}

    foreign_files, backbone_of = staticmethod(names.foreign_files), staticmethod(names.backbone_of)

    def checkpoint_name(self, config: AnyConfig) -> str | None:
        """Return the file name of the checkpoint; None where no part is ours.

        There is one for all sigmas, and one for each sigma and length of the chain where the classifier is fine-tuned.
        """
        name = stage_name(self.name, config.backbone)
        if config.finetune:
            chain = self.chain(config)
            length = f"_chain_{chain['reverse_steps']}" if chain else ""
            return f"{name}_finetuned{length}_sigma_{config.sigma:g}.safetensors"
        has_own = not (config.denoiser and config.classifier)
        return f"{name}.safetensors" if has_own else None

    def build(self, config: AnyConfig, checkpoint: Path | Checkpoint | None) -> nn.Module:
        """Return the classifier on CPU in eval mode; see `pair`."""
        return self.pair(config, checkpoint)

    def pair(self, config: AnyConfig, checkpoint: Path | Checkpoint | None) -> DenoisedClassifier:
        """Return both parts on CPU in eval mode; those of our own get the checkpoint's weights (random for None).

        Raises:
            CheckpointError: a file is unreadable or holds another model.
            UsageError: a denoiser or classifier that does not fit the images or classes.
        """
        pair = _own_parts(config)
        if checkpoint is not None and not config.finetune:
            tensors, metadata = load_checkpoint(checkpoint)
            self._check_denoiser(config, metadata, checkpoint)
            foreign = [part for part in PARTS if getattr(config, part)]
            own = {name: value for name, value in tensors.items() if name.split(".")[0] not in foreign}
            load_weights(pair, own, checkpoint)
        if config.denoiser:
            pair.denoiser = self.load_denoiser(config)
        if config.classifier:
            pair.classifier = classifier_of(config)
        if checkpoint is not None and config.finetune:
            self._load_finetuned(pair, config, checkpoint)
        return pair.eval()

    def _load_finetuned(
        self, pair: DenoisedClassifier, config: AnyConfig, checkpoint: Path | Checkpoint
    ) -> None:
        """Load the fine-tuned classifier, and our denoiser beside it, into the pair.

        Raises:
            CheckpointError: the file is unreadable, or was made with other parts, another denoiser or another chain.
        """
        tensors, metadata = load_checkpoint(checkpoint)
        check_configuration(metadata, {**_foreign(config), **self.chain(config)}, checkpoint)
        self._check_denoiser(config, metadata, checkpoint)
        parts = {"classifier": pair.classifier} | ({} if config.denoiser else {"denoiser": pair.denoiser})
        load_weights(nn.ModuleDict(parts), tensors, checkpoint)

    def _check_denoiser(
        self, config: AnyConfig, metadata: Mapping[str, Any], source: Path | Checkpoint
    ) -> None:
        """Raise CheckpointError where the file says that its denoiser, ours, was made under other options."""
        said = metadata.get("config", {})
        if not config.denoiser and isinstance(said, dict):
            renamed = {option: said[key] for key, option in self.STORED_AS.items() if key in said}
            options = trained_options(config)
            check_configuration(
                {"config": {**said, **renamed}}, {name: options[name] for name in renamed}, source
            )

    def train(self, config: AnyConfig, job: TrainingJob) -> None:
        """Train the classifier on clean images, then the denoiser, or what is fine-tuned; see `_finetune`.

        Both are our own parts, and the denoiser is scored in one call, so that one checkpoint serves every mixture.

        Raises:
            UnfinishedError: `job.max_seconds` ended the training of the classifier, by which the denoiser is chosen.
        """
        if config.finetune:
            self._finetune(config, job)
            return
        config = config.of_own_parts()
        with seeded_initialisation(job.seed):
            pair = _own_parts(config)
        classifier = train_classifier(
            pair.classifier, config.backbone, config, config.classifier_max_steps, job
        )
        if not classifier.is_complete:
            stage = stage_name("dds_classifier", config.backbone)
            raise UnfinishedError(stage, classifier.steps, config.classifier_max_steps)
        objective = self.objective(config, pair.denoiser, classifier.network, job)
        fitted = fit(stage_name(self.stage, config.backbone), objective, config, job)
        described = {key: getattr(config, option) for key, option in self.STORED_AS.items()}
        save_checkpoint(
            job.folder / f"{stage_name(self.name, config.backbone)}.safetensors",
            DenoisedClassifier(fitted.network, classifier.network).state_dict(),
            config={"method": self.name, **described, "backbone": config.backbone.name},
            training=provenance(job, classifier, fitted),
            dtype=job.stored,
        )

    def _finetune(self, config: AnyConfig, job: TrainingJob) -> None:
        """Train the classifier further on denoised images of one sigma, and write it with the denoiser if that is ours.

        Our own parts come from the method's checkpoint, which is trained first where it is not there.

        Raises:
            CheckpointError: the time was up before that one was finished.
        """
        base, before = replace(config, finetune=False), {}
        name, path = self.checkpoint_name(base), None
        if name is not None:
            path = job.found(name)
            if not path.is_file() or (path.parent == job.folder and unfinished(path)):
                options = {**job.options, "finetune": False}
                self.train(base, replace(job, options=options))
                path = job.folder / name
            if steps := unfinished(path):
                raise CheckpointError(
                    f"{path} is of a training that was stopped after {steps}, and fine-tuning starts from a finished "
                    "one: repeat the command to continue it"
                )
            before = load_metadata(path).get("training", {})
        pair = self.pair(base, path)
        file_name = self.checkpoint_name(config)
        assert file_name is not None
        recipe = classifier_recipe(config, config.finetune_max_steps)
        fitted = fit(Path(file_name).stem, FinetuningObjective(pair, config.sigma, job), recipe, job)
        parts = {"classifier": fitted.network} | ({} if config.denoiser else {"denoiser": pair.denoiser})
        stored = {key: getattr(config, option) for key, option in self.STORED_AS.items()}
        described = {**stored, "backbone": config.backbone.name, **_foreign(config), **self.chain(config)}
        save_checkpoint(
            job.folder / file_name,
            nn.ModuleDict(parts).state_dict(),
            config={"method": self.name, "sigma": config.sigma, "finetune": True, **described},
            training=provenance(job, fitted, before=before),
            dtype=job.stored,
        )


def _foreign(config: Config) -> dict[str, str]:
    """Return which parts others trained, "" for ours."""
    return {part: getattr(config, part) for part in PARTS}


def _own_parts(config: Config) -> DenoisedClassifier:
    """Return the method with random weights in the parts that are ours, and nothing in place of the others."""
    denoiser = nn.Identity() if config.denoiser else config.own_denoiser()
    classifier = nn.Identity() if config.classifier else config.backbone.make(config.task, CLEAN)
    return DenoisedClassifier(denoiser, classifier)
