"""Networks of the released diffusion programs as diffusers' UNet2DModel, weight for weight."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor, nn

from baselines.networks.diffusion import DiffusionDenoiser
from baselines.parts.openai_flags import Flags
from bench.errors import UsageError
from bench.smoothing.sigma import cosine_alphas_cumprod, linear_alphas_cumprod
from bench.training.checkpoints import check_weights

if TYPE_CHECKING:
    from diffusers import UNet2DModel

CLASSES = 1000
"""Classes of the programs' class-conditional networks."""

RESIDUAL = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
ATTENTION = {"group_norm": "norm", "to_q": "qkv", "to_k": "qkv", "to_v": "qkv", "to_out.0": "proj_out"}
"""Names inside a block: diffusers' -> the programs'."""


def network(flags: Flags) -> UNet2DModel:
    """Return the network of these flags with random weights (on the meta device: none).

    Where heads have other widths at other resolutions, they are set after building: a folder saved from such a
    network would lose them.
    """
    from diffusers import UNet2DModel  # here, since it takes longer to import than torch
    from diffusers.models.attention_processor import Attention

    up_down = "resnet" if flags.resblock_updown else "conv"
    plain_down, plain_up = (
        ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D")
        if flags.resblock_updown
        else ("DownBlock2D", "UpBlock2D")
    )
    unet = UNet2DModel(
        sample_size=flags.image_size,
        in_channels=3,
        out_channels=6 if flags.learn_sigma else 3,
        layers_per_block=flags.num_res_blocks,
        block_out_channels=flags.widths,
        down_block_types=tuple("AttnDownBlock2D" if attends else plain_down for attends in flags.attends),
        up_block_types=tuple("AttnUpBlock2D" if attends else plain_up for attends in flags.attends[::-1]),
        downsample_type=up_down,
        upsample_type=up_down,
        dropout=flags.dropout,
        attention_head_dim=_common_head_width(flags),
        attn_norm_num_groups=32,
        resnet_time_scale_shift="scale_shift" if flags.use_scale_shift_norm else "default",
        num_class_embeds=CLASSES if flags.class_cond else None,
    )
    for name, module in unet.named_modules():
        if isinstance(module, Attention):
            module.heads = flags.heads(module.inner_dim, upsampling=name.startswith("up_blocks"))
    return unet


def _common_head_width(flags: Flags) -> int | None:
    layers = [(flags.widths[-1], False), *((w, up) for w in flags.attention_widths for up in (False, True))]
    found = {width // flags.heads(width, upsampling=up) for width, up in layers}
    return found.pop() if len(found) == 1 else None


def convert(tensors: dict[str, Tensor], flags: Flags, source: Path) -> UNet2DModel:
    """Return the network with the weights of a released state dict, each used exactly once.

    Args:
        tensors: under the programs' names.
        source: the file, for messages.

    Raises:
        CheckpointError: a name is missing or unexpected, or a shape differs; the message names them as released.
    """
    unet = network(flags)
    ours = unet.state_dict()
    names = {name: released_name(name, flags) for name in ours}
    check_weights(released_shapes(ours, flags), tensors, source)
    weights = {}
    for name, value in ours.items():
        weight = tensors[names[name]]
        if (part := _qkv_part(name)) is not None:
            weight = _split_qkv(weight, _heads(unet, name), new_order=flags.use_new_attention_order)[part]
        weights[name] = weight.reshape(value.shape)
    unet.load_state_dict(weights)
    return unet.eval()


def released_name(name: str, flags: Flags) -> str:
    """Return the name under which the programs store a parameter of ours (q, k and v share one)."""
    blocks = _released_blocks(flags)
    path, leaf = name.rsplit(".", 1)
    parts = path.split(".")
    for cut in range(len(parts), 0, -1):
        prefix, rest = ".".join(parts[:cut]), ".".join(parts[cut:])
        if prefix in blocks:
            inner = {**RESIDUAL, **ATTENTION}.get(rest, rest)
            return ".".join(part for part in (blocks[prefix], inner, leaf) if part)
    raise AssertionError(name)


def _released_blocks(flags: Flags) -> dict[str, str]:
    """Return the places of all blocks: ours -> the programs', who count input and output blocks through."""
    places = {
        "conv_in": "input_blocks.0.0",
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "class_embedding": "label_emb",
        "mid_block.resnets.0": "middle_block.0",
        "mid_block.attentions.0": "middle_block.1",
        "mid_block.resnets.1": "middle_block.2",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
    }
    depth, last = flags.num_res_blocks, len(flags.widths) - 1
    for level in range(last + 1):
        start = 1 + level * (depth + 1)
        for j in range(depth):
            places[f"down_blocks.{level}.resnets.{j}"] = f"input_blocks.{start + j}.0"
            places[f"down_blocks.{level}.attentions.{j}"] = f"input_blocks.{start + j}.1"
        down, op = f"down_blocks.{level}.downsamplers.0", f"input_blocks.{start + depth}.0"
        places |= {down: op} if flags.resblock_updown else {f"{down}.conv": f"{op}.op"}
        for j in range(depth + 1):
            output = level * (depth + 1) + j
            places[f"up_blocks.{level}.resnets.{j}"] = f"output_blocks.{output}.0"
            places[f"up_blocks.{level}.attentions.{j}"] = f"output_blocks.{output}.1"
        after = 2 if flags.attends[last - level] else 1
        places[f"up_blocks.{level}.upsamplers.0"] = f"output_blocks.{level * (depth + 1) + depth}.{after}"
    return places


def released_shapes(ours: dict[str, Tensor], flags: Flags) -> dict[str, torch.Size]:
    """Return the names and shapes under which the programs store the state dict `ours` of a network of ours."""
    return {released_name(name, flags): _released_shape(name, value) for name, value in ours.items()}


def _qkv_part(name: str) -> int | None:
    parts = ("to_q", "to_k", "to_v")
    return next((parts.index(part) for part in parts if f".{part}." in name), None)


def _released_shape(name: str, value: Tensor) -> torch.Size:
    if _qkv_part(name) is None and ".to_out." not in name:
        return value.shape
    rows = value.shape[0] * (1 if ".to_out." in name else 3)
    return torch.Size((rows,) if value.ndim == 1 else (rows, value.shape[1], 1))


def _heads(unet: UNet2DModel, name: str) -> int:
    return int(unet.get_submodule(name.rsplit(".", 2)[0]).heads)


def _split_qkv(weight: Tensor, heads: int, *, new_order: bool) -> tuple[Tensor, ...]:
    """Return q, k, v (C,...) of a weight (3C,...): rows are (q, k, v) x heads, in the old order heads x (q, k, v)."""
    if new_order:
        return weight.chunk(3)
    by_head = weight.unflatten(0, (heads, 3, -1))
    return tuple(by_head[:, part].flatten(0, 1) for part in range(3))


def schedule(flags: Flags) -> Tensor:
    """Return abar_1 ... abar_T, (T,) float64."""
    make: Any = cosine_alphas_cumprod if flags.noise_schedule == "cosine" else linear_alphas_cumprod
    return make(flags.diffusion_steps)


def denoiser(tensors: dict[str, Tensor], flags: Flags, source: Path) -> DiffusionDenoiser:
    """Return a released model as a denoiser; see `convert`.

    Raises:
        UsageError: a network that must be told the class.
        CheckpointError: as in `convert`.
    """
    if flags.class_cond:
        refuse_conditional(source)
    return as_denoiser(convert(tensors, flags, source), flags)


def refuse_conditional(source: Path) -> NoReturn:
    """Raise the UsageError of a network that must be told the class."""
    raise UsageError(
        f"{source} is a class-conditional U-Net (label_emb), but a denoiser knows no class; bring an unconditional one"
    )


def as_denoiser(unet: nn.Module, flags: Flags) -> DiffusionDenoiser:
    """Return a network of these flags as a denoiser."""
    return DiffusionDenoiser(
        unet,
        schedule(flags),
        prediction="sample" if flags.predict_xstart else "epsilon",
        time_scale=1000 / flags.diffusion_steps if flags.rescale_timesteps else 1.0,
    )
