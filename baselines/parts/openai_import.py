"""Released files of improved-diffusion and guided-diffusion: which program, which network, which flags."""

from __future__ import annotations

from dataclasses import asdict

import torch

from baselines.parts.openai_flags import LABELS, PRESETS, Flags, complete_flags, parse_flags
from baselines.parts.openai_unet import network, refuse_conditional, released_shapes
from bench.training.checkpoints import check_weights, without_prefix
from bench.training.released import Released, ReleasedFile
from bench.types import Checkpoint


def _recognises(file: ReleasedFile) -> bool:
    return any(name.removeprefix("module.").startswith("input_blocks.") for name in file.tensors)


def _read(file: ReleasedFile) -> Checkpoint:
    """Return a released U-Net in our form, every name and shape checked.

    The flags said are those of the program, as on its command line; "" takes those of a published file of this name.

    Raises:
        UsageError: a network that must be told the class; flags that are unknown, missing, or beyond UNet2DModel.
        CheckpointError: names or shapes are not those of the flags.
    """
    names = {name: name.removeprefix("module.") for name in file.tensors}
    plain = without_prefix(names, file.tensors, file.path)
    if LABELS in plain:
        refuse_conditional(file.path)
    given = parse_flags(file.said.get("flags") or "") or PRESETS.get(file.path.stem, {})
    flags = complete_flags(given, plain, file.path)
    with torch.device("meta"):
        ours = network(flags).state_dict()
    check_weights(released_shapes(ours, flags), plain, file.path)
    return Checkpoint(
        source=file.path,
        description=(
            f"U-Net of {program_of(flags)}: {_sizes(flags)}",
            f"{flags.diffusion_steps} steps, {flags.noise_schedule} schedule, predicts "
            f"{'the clean image' if flags.predict_xstart else 'the noise'}"
            f"{' and its variance' if flags.learn_sigma else ''}, input [-1,1]",
            f"parameters: {sum(value.numel() for value in plain.values()):,}",
        ),
        tensors=plain,
        config=asdict(flags),
        use="`--set dds.denoiser=FILE` of run takes it as the denoiser, at every sigma",
    )


RELEASED = Released(
    what="a U-Net of improved-diffusion or guided-diffusion", recognises=_recognises, read=_read
)
"""The form of the files."""


def program_of(flags: Flags) -> str:
    """Return the program that made a network of these flags, as far as they tell.

    guided-diffusion came second and added resampling residual blocks, heads of a width, and an order of q, k, v.
    """
    added = flags.resblock_updown or flags.num_head_channels != -1 or flags.use_new_attention_order
    return "guided-diffusion" if added else "improved-diffusion or guided-diffusion"


def _sizes(flags: Flags) -> str:
    widths = ", ".join(map(str, flags.widths))
    at = f"attention at {flags.attention_resolutions}" if flags.attention_resolutions else "no attention"
    side = flags.image_size
    return f"images 3x{side}x{side}, widths {widths}, {flags.num_res_blocks} blocks each, {at}"
