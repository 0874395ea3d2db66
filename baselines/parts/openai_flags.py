"""The flags of the released diffusion programs (arXiv 2102.09672, arXiv 2105.05233), given or read off the weights."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from torch import Tensor

from bench.errors import CheckpointError, UsageError

MULTIPLIERS = {
    512: (0.5, 1, 1, 2, 2, 4, 4),
    256: (1, 1, 2, 2, 4, 4),
    128: (1, 1, 2, 3, 4),
    64: (1, 2, 3, 4),
    32: (1, 2, 2, 2),
}
"""Image size -> what the programs take for an empty channel_mult."""

PRESETS: dict[str, dict[str, Any]] = {
    "cifar10_uncond_50M_500K": {
        "image_size": 32,
        "num_channels": 128,
        "num_res_blocks": 3,
        "num_heads": 4,
        "attention_resolutions": "16,8",
        "channel_mult": "",
        "use_scale_shift_norm": True,
        "resblock_updown": False,
        "learn_sigma": True,
        "class_cond": False,
        "dropout": 0.3,
        "diffusion_steps": 4000,
        "noise_schedule": "cosine",
        "rescale_timesteps": True,
    },
    "256x256_diffusion_uncond": {
        "image_size": 256,
        "num_channels": 256,
        "num_res_blocks": 2,
        "num_head_channels": 64,
        "attention_resolutions": "32,16,8",
        "channel_mult": "",
        "use_scale_shift_norm": True,
        "resblock_updown": True,
        "learn_sigma": True,
        "class_cond": False,
        "diffusion_steps": 1000,
        "noise_schedule": "linear",
        "rescale_timesteps": False,
    },
}
"""File name without suffix -> the flags that its model was trained with."""

LABELS = "label_emb.weight"
"""Name of the weights that stand for classes, in networks that are told one."""

DEMANDED = ("image_size", "diffusion_steps", "noise_schedule")
"""Flags that no weight tells and no default is safe for."""


@dataclass(frozen=True, kw_only=True)
class Flags:
    """The programs' flags under their own names.

    Those with a default that is not told by the weights have the programs' own; dropout, use_checkpoint, use_fp16,
    use_kl, sigma_small and rescale_learned_sigmas change no prediction. Deviation: the arithmetic has the precision
    of our run, whatever use_fp16 says, so that all methods of a run are compared at one precision.
    """

    image_size: int
    num_channels: int
    num_res_blocks: int
    channel_mult: str
    attention_resolutions: str
    use_scale_shift_norm: bool
    resblock_updown: bool
    learn_sigma: bool
    class_cond: bool
    diffusion_steps: int
    noise_schedule: str
    rescale_timesteps: bool = False
    num_heads: int = 4
    num_heads_upsample: int = -1
    num_head_channels: int = -1
    use_new_attention_order: bool = False
    predict_xstart: bool = False
    timestep_respacing: str = ""
    dropout: float = 0.0
    use_checkpoint: bool = False
    use_fp16: bool = False
    use_kl: bool = False
    sigma_small: bool = False
    rescale_learned_sigmas: bool = False

    def __post_init__(self) -> None:
        if self.timestep_respacing not in ("", str(self.diffusion_steps)):
            raise UsageError(
                f"timestep_respacing is {self.timestep_respacing!r}, which thins out the time steps that sigma is "
                "looked up in; leave it empty, and use reverse_steps for chains"
            )
        if self.noise_schedule not in ("linear", "cosine"):
            raise UsageError(f"noise_schedule is {self.noise_schedule!r}, expected linear or cosine")
        if self.image_size % 2 ** (len(self.multipliers) - 1):
            raise UsageError(
                f"image_size is {self.image_size}, which {len(self.multipliers) - 1} halvings do not divide"
            )
        self._check_widths()

    def _check_widths(self) -> None:
        if self.multipliers[0] != 1:
            raise UsageError(
                f"channel_mult begins with {self.multipliers[0]:g}, but UNet2DModel's first resolution has "
                "num_channels, as its time embedding has; only networks whose channel_mult begins with 1 can be read"
            )
        for width in self.widths:
            if width % 32:
                raise UsageError(
                    f"num_channels and channel_mult give {width} channels, which 32 groups do not divide"
                )
        for width in {*self.attention_widths, self.widths[-1]}:
            for upsampling in (False, True):
                self.heads(width, upsampling=upsampling)

    @property
    def multipliers(self) -> tuple[float, ...]:
        """Width of each resolution as a multiple of num_channels."""
        if self.channel_mult:
            return tuple(_numbers("channel_mult", self.channel_mult, float))
        if self.image_size not in MULTIPLIERS:
            raise UsageError(
                f"channel_mult is empty, which the programs allow at image_size {', '.join(map(str, MULTIPLIERS))} "
                f"only, not {self.image_size}; give it"
            )
        return MULTIPLIERS[self.image_size]

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each resolution."""
        return tuple(int(part * self.num_channels) for part in self.multipliers)

    @property
    def attends(self) -> tuple[bool, ...]:
        """Whether each resolution has attention."""
        resolutions = _numbers("attention_resolutions", self.attention_resolutions, int)
        halvings = {self.image_size // part for part in resolutions}
        return tuple(2**level in halvings for level in range(len(self.widths)))

    @property
    def attention_widths(self) -> tuple[int, ...]:
        """Channels of the resolutions that have attention."""
        return tuple(width for width, attends in zip(self.widths, self.attends, strict=True) if attends)

    def heads(self, width: int, *, upsampling: bool) -> int:
        """Return the heads of an attention layer of `width` channels.

        Raises:
            UsageError: they do not divide the width.
        """
        if self.num_head_channels != -1:
            name, per = "num_head_channels", self.num_head_channels
        elif upsampling and self.num_heads_upsample != -1:
            name, per = "num_heads_upsample", self.num_heads_upsample
        else:
            name, per = "num_heads", self.num_heads
        if per < 1 or width % per:
            raise UsageError(
                f"{name} is {per}, which does not divide the {width} channels of an attention layer"
            )
        return width // per if name == "num_head_channels" else per


def _numbers(name: str, text: str, kind: type[int] | type[float]) -> list[float]:
    """Return the positive numbers of a list with commas between; none of ""."""
    try:
        numbers = [kind(part) for part in text.split(",")] if text else []
    except ValueError:
        numbers = [0]
    if not all(0 < number < float("inf") for number in numbers):
        kinds = "whole numbers" if kind is int else "numbers"
        raise UsageError(f"{name} is {text!r}, expected positive {kinds} with commas between them, as 1,2,4")
    return numbers


_TYPES = {field.name: str(field.type) for field in fields(Flags)}


def parse_flags(text: str) -> dict[str, Any]:
    """Return flags written as for the programs: "--num_channels 128 --learn_sigma True"; "--a=b" is read too.

    Raises:
        UsageError: an unknown flag, one without a value, a value of a wrong type, or an unbalanced quote.
    """
    try:
        words = shlex.split(text.replace("=", " "))
    except ValueError as error:
        raise UsageError(
            f"denoiser_flags are {text!r}, which a shell could not read ({error}); expected pairs: --num_channels 128"
        ) from error
    names, values = words[::2], words[1::2]
    if len(words) % 2:
        raise UsageError(f"denoiser_flags end with {words[-1]!r} alone, expected pairs: --num_channels 128")
    return check_flags({name.removeprefix("--"): value for name, value in zip(names, values, strict=True)})


def check_flags(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the flags with every value in its type.

    Raises:
        UsageError: an unknown flag, or a value of a wrong type.
    """
    for name in flags:
        if name not in _TYPES:
            raise UsageError(
                f"unknown flag {name!r} of a released diffusion program; known are {', '.join(_TYPES)}"
            )
    return {name: _typed(name, value) for name, value in flags.items()}


def _typed(name: str, value: Any) -> Any:
    kind = _TYPES[name]
    try:
        if kind == "bool":
            return {"true": True, "1": True, "false": False, "0": False}[str(value).lower()]
        return {"int": int, "float": float, "str": str}[kind](value)
    except (KeyError, ValueError, TypeError) as error:
        raise UsageError(f"flag {name} is {value!r}, expected a value of type {kind}") from error


def complete_flags(given: Mapping[str, Any], tensors: Mapping[str, Tensor], source: Path) -> Flags:
    """Return the flags given, and for the others what the shapes of the weights tell.

    Args:
        given: flags in their types; they win over the shapes, and what then does not fit fails at loading.
        tensors: the state dict under the programs' names.

    Raises:
        UsageError: a flag that no shape tells is not given; the message names all of them.
        CheckpointError: the state dict is of no such program.
    """
    missing = [name for name in DEMANDED if name not in given]
    if not {"num_heads", "num_head_channels"} & set(given):
        missing.append("num_heads or num_head_channels")
    if given.get("diffusion_steps", 1000) != 1000 and "rescale_timesteps" not in given:
        missing.append("rescale_timesteps")
    inferred = {} if _needed() <= set(given) else infer_flags(tensors, given.get("image_size", 0), source)
    if missing:
        raise UsageError(
            f"{source} does not tell {', '.join(missing)}: give them in denoiser_flags, as to the program that "
            'trained it ("--image_size 32 --noise_schedule cosine ...")'
        )
    return Flags(**{**inferred, **given})


def _needed() -> set[str]:
    return {field.name for field in fields(Flags) if field.default is MISSING}


def infer_flags(tensors: Mapping[str, Tensor], image_size: int, source: Path) -> dict[str, Any]:
    """Return the flags that the shapes tell: widths, depth, attention, up and down blocks, conditioning, outputs.

    Args:
        image_size: attention_resolutions are stated at it.

    Raises:
        CheckpointError: a part that every such network has is not there.
    """
    names = set(tensors)
    outputs = 1 + max(
        [int(found[1]) for name in names if (found := re.match(r"output_blocks\.(\d+)\.\d+\.", name))],
        default=-1,
    )
    ups = [name for name in names if _is_upsampling(name)]
    levels = 1 + len(ups)
    blocks = outputs // levels - 1
    first = [1 + level * (blocks + 1) for level in range(levels)]
    try:
        channels = tensors["input_blocks.0.0.weight"].shape[0]
        widths = [tensors[f"input_blocks.{i}.0.in_layers.2.weight"].shape[0] for i in first]
        conditioning = tensors["input_blocks.1.0.emb_layers.1.weight"].shape[0]
        predicted = tensors["out.2.weight"].shape[0] // tensors["input_blocks.0.0.weight"].shape[1]
        multipliers = [width / channels for width in widths]
    except KeyError as error:
        raise CheckpointError(
            f"{source} is no state dict of improved-diffusion or guided-diffusion: it has no {error.args[0]}."
        ) from error
    except (IndexError, ZeroDivisionError) as error:
        raise CheckpointError(
            f"{source} is no state dict of improved-diffusion or guided-diffusion: expected input_blocks.0.0.weight "
            "of the shape of a convolution's weights."
        ) from error
    attention = [2**level for level, i in enumerate(first) if f"input_blocks.{i}.1.qkv.weight" in names]
    return {
        "num_channels": channels,
        "num_res_blocks": blocks,
        "channel_mult": ",".join(f"{part:g}" for part in multipliers),
        "attention_resolutions": ",".join(str(image_size // halving) for halving in attention),
        "use_scale_shift_norm": conditioning == 2 * widths[0],
        "resblock_updown": any("in_layers" in name for name in ups),
        "learn_sigma": predicted == 2,
        "class_cond": LABELS in names,
    }


def _is_upsampling(name: str) -> bool:
    return re.fullmatch(r"output_blocks\.\d+\.[1-9]\.(conv|in_layers\.2)\.weight", name) is not None
