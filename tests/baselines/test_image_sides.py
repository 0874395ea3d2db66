"""A released U-Net at the side it was trained at and at others, against its layout written out by hand."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from baselines.parts.external import load_denoiser
from baselines.parts.openai_unet import convert
from bench.types import Task
from tests.baselines.test_openai_unet import HERE, SMALL, released

TRAINED_AT = SMALL.image_size
FLAGS = f"--image_size {TRAINED_AT} --num_heads 2 --noise_schedule linear --diffusion_steps 1000"


class ByHand:
    """The network of SMALL as the programs lay it out, from a state dict under their names."""

    def __init__(self, state, timestep):
        self.state = state
        frequencies = torch.exp(-math.log(10_000) * torch.arange(16) / 16)
        waves = torch.cat([torch.cos(timestep * frequencies), torch.sin(timestep * frequencies)])[None]
        self.time = self.linear("time_embed.2", F.silu(self.linear("time_embed.0", waves)))

    def of(self, name):
        return self.state[f"{name}.weight"], self.state[f"{name}.bias"]

    def linear(self, name, x):
        return F.linear(x, *self.of(name))

    def conv(self, name, x, stride=1):
        weight, bias = self.of(name)
        return F.conv2d(x, weight, bias, stride=stride, padding=weight.shape[-1] // 2)

    def norm(self, name, x):
        return F.group_norm(x, 32, *self.of(name))

    def residual(self, name, x):
        h = self.conv(f"{name}.in_layers.2", F.silu(self.norm(f"{name}.in_layers.0", x)))
        h = h + self.linear(f"{name}.emb_layers.1", F.silu(self.time))[:, :, None, None]
        h = self.conv(f"{name}.out_layers.3", F.silu(self.norm(f"{name}.out_layers.0", h)))
        widens = f"{name}.skip_connection.weight" in self.state
        return h + (self.conv(f"{name}.skip_connection", x) if widens else x)

    def attention(self, name, x):
        fed = self.norm(f"{name}.norm", x).flatten(2)
        qkv = F.conv1d(fed, *self.of(f"{name}.qkv")).unflatten(1, (SMALL.num_heads, 3, -1))
        q, k, v = qkv.unbind(2)  # (B, heads, channels of a head, places)
        weights = (q.transpose(2, 3) @ k / math.sqrt(q.shape[2])).softmax(-1)
        seen = (v @ weights.transpose(2, 3)).flatten(1, 2)
        return x + F.conv1d(seen, *self.of(f"{name}.proj_out")).view_as(x)

    def __call__(self, x):
        skips = [self.conv("input_blocks.0.0", x)]
        skips.append(self.residual("input_blocks.1.0", skips[-1]))
        skips.append(self.conv("input_blocks.2.0.op", skips[-1], stride=2))
        skips.append(self.attention("input_blocks.3.1", self.residual("input_blocks.3.0", skips[-1])))
        h = self.attention("middle_block.1", self.residual("middle_block.0", skips[-1]))
        h = self.residual("middle_block.2", h)
        for block in range(4):
            h = self.residual(f"output_blocks.{block}.0", torch.cat([h, skips.pop()], dim=1))
            if block < 2:  # attention stands where the image is halved once
                h = self.attention(f"output_blocks.{block}.1", h)
            if block == 1:
                h = self.conv("output_blocks.1.2.conv", F.interpolate(h, scale_factor=2.0, mode="nearest"))
        return self.conv("out.2", F.silu(self.norm("out.0", h)))


def weights():
    return {name: 0.1 * value for name, value in released(SMALL).items()}


@pytest.mark.parametrize("side", [TRAINED_AT, 12, 22])
def test_network_at_any_side_that_its_halvings_divide_is_the_released_layout(tmp_path, side):
    torch.save(weights(), tmp_path / "model.pt")
    task = Task(dataset="", channels=3, image_size=side, num_classes=2)
    x = torch.randn((2, 3, side, side), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = load_denoiser(str(tmp_path / "model.pt"), FLAGS, task).unet(x, 300).sample
        theirs = ByHand(weights(), 300)(x)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))


def test_attention_resolutions_are_halvings_of_the_side_they_are_stated_at():
    twice = replace(SMALL, image_size=2 * TRAINED_AT, attention_resolutions="8")
    assert twice.attends == SMALL.attends == (False, True)
    x = torch.randn((1, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        outputs = [convert(weights(), flags, HERE)(x, 7).sample for flags in (SMALL, twice)]
    assert torch.equal(*outputs)
