"""Released `{arch, state_dict}` files, the form of arXiv 1902.02918's checkpoints: networks trained on noisy images."""

from __future__ import annotations

import torch

from baselines.networks import backbones
from bench.config.names import nearest_hint
from bench.errors import CheckpointError
from bench.training.checkpoints import check_weights, shapes_of
from bench.training.released import Released, ReleasedFile, arch_and_state
from bench.types import Checkpoint, Task


def residual_networks(method: str) -> Released:
    """Return the form of the files; no tensor tells which method trained one, so that it is the method that asks."""
    return Released(
        what="a residual network with its `arch`",
        recognises=lambda file: (
            isinstance(file.content, dict) and {"arch", "state_dict"} <= file.content.keys()
        ),
        read=lambda file: _read(file, method),
    )


def _read(file: ReleasedFile, method: str) -> Checkpoint:
    sigma = file.said.get("sigma")
    arch, plain = arch_and_state(file.content, file.path)
    weights = {name: value for name, value in plain.items() if value.dim() > 0}
    head = "1.fc2.weight" if arch == "lenet" else "1.fc.weight"
    if "1.conv1.weight" not in weights or head not in weights:
        raise CheckpointError(
            f"{file.path} holds {arch!r} with names such as {next(iter(plain), 'none')!r}, expected 1.conv1.weight "
            f"and {head} (normalisation, then the network)."
        )
    num_classes, channels = len(weights[head]), weights["1.conv1.weight"].shape[1]
    side = 28 if arch == "lenet" else 32 if arch.startswith("cifar_") else 224
    task = Task(dataset="", channels=channels, image_size=side, num_classes=num_classes)
    if (backbone := backbones.backbone(arch)) is None:
        hint = nearest_hint(arch, backbones.backbone_names())
        raise CheckpointError(f"{file.path} holds {arch!r}, which is no network known here; {hint}")
    with torch.device("meta"):
        expected = backbone.make(task, 0.5).state_dict()
    check_weights(shapes_of(expected), plain, file.path)
    at = "a sigma that is not given" if sigma is None else f"sigma {sigma:g}"
    return Checkpoint(
        source=file.path,
        description=(f"{arch} of {num_classes} classes after its normalisation, trained on noise of {at}",),
        tensors=plain,
        config={"method": method, "backbone": arch, "sigma": sigma},
        file_name=None if sigma is None else f"{method}-{arch}_sigma_{sigma:g}.safetensors",
    )
