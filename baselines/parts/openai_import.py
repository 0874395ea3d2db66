"""Released files of improved-diffusion and guided-diffusion: which program, which network, which flags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from baselines.parts.openai_flags import LABELS, PRESETS, Flags, complete_flags, parse_flags
from baselines.parts.openai_unet import network, refuse_conditional, released_shapes
from bench.training.checkpoints import Imported, check_weights


def import_tensors(tensors: Mapping[str, Tensor], flags: str, source: Path) -> Imported:
    """Return a released U-Net in our form, every name and shape checked.

    Args:
        tensors: under the programs' names, perhaps with "module." before each.
        flags: of the program, as on its command line; "" takes those of a published file of this name.

    Raises:
        UsageError: a network that must be told the class; flags that are unknown, missing, or beyond UNet2DModel.
        CheckpointError: names or shapes are not those of the flags.
    """
    plain = {name.removeprefix("module."): value for name, value in tensors.items()}
    if LABELS in plain:
        refuse_conditional(source)
    complete = complete_flags(parse_flags(flags) or PRESETS.get(source.stem, {}), plain, source)
    with torch.device("meta"):
        ours = network(complete).state_dict()
    check_weights(released_shapes(ours, complete), plain, source)
    return Imported(
        description=(
            f"U-Net of {program_of(complete)}: {_sizes(complete)}",
            f"{complete.diffusion_steps} steps, {complete.noise_schedule} schedule, predicts "
            f"{'the clean image' if complete.predict_xstart else 'the noise'}"
            f"{' and its variance' if complete.learn_sigma else ''}, input [-1,1]",
            f"parameters: {sum(value.numel() for value in plain.values()):,}",
        ),
        tensors=plain,
        config=asdict(complete),
        file_name=None,
        use="`--set dds.denoiser=FILE` of run takes it as the denoiser, at every sigma",
    )


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
