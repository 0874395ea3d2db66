"""Released diffusion programs' networks in diffusers: sizes by hand, every weight placed, wrong files refused."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from baselines.parts.openai_flags import PRESETS, Flags, complete_flags, infer_flags, parse_flags
from baselines.parts.openai_unet import convert, denoiser, network, released_name
from bench.errors import CheckpointError, UsageError

HERE = Path("model.pt")

SMALL = Flags(
    image_size=8,
    num_channels=32,
    num_res_blocks=1,
    channel_mult="1,2",
    attention_resolutions="4",
    use_scale_shift_norm=False,
    resblock_updown=False,
    learn_sigma=False,
    class_cond=False,
    diffusion_steps=1000,
    noise_schedule="linear",
    num_heads=2,
)


def parameters_by_hand(flags):
    """Return the parameters of the architecture, layer by layer, as its papers describe it."""
    widths, time = flags.widths, 4 * flags.num_channels
    conditioning = 2 if flags.use_scale_shift_norm else 1

    def conv(i, o, side=3):
        return i * o * side**2 + o

    def residual(i, o):
        shortcut = conv(i, o, 1) if i != o else 0
        return (
            2 * i + conv(i, o) + conv(time, conditioning * o, 1) + 2 * o + conv(o, o) + shortcut
        )  # fmt: skip

    def attention(c):
        return 2 * c + conv(c, 3 * c, 1) + conv(c, c, 1)

    def resample(c):
        return residual(c, c) if flags.resblock_updown else conv(c, c)

    total = conv(flags.num_channels, time, 1) + conv(time, time, 1) + conv(3, widths[0])
    skips, c = [widths[0]], widths[0]
    for level, width in enumerate(widths):
        for _ in range(flags.num_res_blocks):
            total += residual(c, width) + (attention(width) if flags.attends[level] else 0)
            c = width
            skips.append(c)
        if level < len(widths) - 1:
            total += resample(c)
            skips.append(c)
    total += 2 * residual(c, c) + attention(c)
    for level, width in reversed(list(enumerate(widths))):
        for _ in range(flags.num_res_blocks + 1):
            total += residual(c + skips.pop(), width) + (attention(width) if flags.attends[level] else 0)
            c = width
        total += resample(c) if level else 0
    return total + 2 * c + conv(c, 6 if flags.learn_sigma else 3)


@pytest.mark.parametrize(
    ("name", "count"), [("cifar10_uncond_50M_500K", 52_546_438), ("256x256_diffusion_uncond", 552_814_086)]
)
def test_released_networks_have_the_released_number_of_parameters(name, count):
    flags = Flags(**PRESETS[name])
    with torch.device("meta"):
        unet = network(flags)
    assert sum(value.numel() for value in unet.parameters()) == parameters_by_hand(flags) == count


def released(flags, seed=0):
    """Return random weights under the programs' names, in their shapes."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, value in network(flags).state_dict().items():
        rows = 3 if any(part in name for part in (".to_q.", ".to_k.", ".to_v.")) else 1
        shape = (rows * value.shape[0], *value.shape[1:])
        if ".attentions." in name and value.ndim == 2:
            shape = (*shape, 1)
        state[released_name(name, flags)] = torch.randn(shape, generator=generator)
    return state


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"resblock_updown": True, "use_scale_shift_norm": True, "learn_sigma": True},
        {"class_cond": True, "num_res_blocks": 2, "attention_resolutions": "8,4"},
        {"channel_mult": "1", "attention_resolutions": ""},
    ],
)
def test_shapes_tell_the_flags_that_made_them(changes):
    flags = replace(SMALL, **changes)
    told = infer_flags(released(flags), flags.image_size, HERE)
    assert {name: getattr(flags, name) for name in told} == told
    convert(released(flags), flags, HERE)


@pytest.mark.parametrize(
    ("changes", "ours", "theirs"),
    [
        ({}, "down_blocks.0.downsamplers.0.conv.weight", "input_blocks.2.0.op.weight"),
        ({}, "up_blocks.0.upsamplers.0.conv.weight", "output_blocks.1.2.conv.weight"),
        (
            {"attention_resolutions": "8"},
            "up_blocks.0.upsamplers.0.conv.weight",
            "output_blocks.1.1.conv.weight",
        ),
        (
            {"resblock_updown": True},
            "up_blocks.0.upsamplers.0.conv1.bias",
            "output_blocks.1.2.in_layers.2.bias",
        ),
        ({}, "mid_block.attentions.0.to_v.weight", "middle_block.1.qkv.weight"),
    ],
)
def test_names_are_the_released_ones(changes, ours, theirs):
    assert released_name(ours, replace(SMALL, **changes)) == theirs


def test_rows_of_old_and_new_attention_order_are_the_same_network():
    state = released(SMALL)
    new = {}
    for name, value in state.items():
        by_head = value.unflatten(0, (2, 3, -1)) if "qkv" in name else None
        new[name] = value if by_head is None else by_head.transpose(0, 1).flatten(0, 2)
    x, t = torch.rand(1, 3, 8, 8), torch.tensor([3])
    with torch.no_grad():
        old_order = convert(state, SMALL, HERE)(x, t).sample
        new_order = convert(new, replace(SMALL, use_new_attention_order=True), HERE)(x, t).sample
    assert torch.equal(old_order, new_order)


def test_heads_differ_by_place_where_the_flags_say_so():
    unet = network(replace(SMALL, num_heads_upsample=4, attention_resolutions="8,4"))
    attention = {name: module.heads for name, module in unet.named_modules() if hasattr(module, "to_q")}
    assert {heads for name, heads in attention.items() if name.startswith("up")} == {4}
    assert {heads for name, heads in attention.items() if not name.startswith("up")} == {2}


def test_weights_that_do_not_fit_are_named_as_released_and_counted():
    state = released(SMALL)
    del state["out.0.bias"]
    state["input_blocks.9.0.op.weight"] = torch.zeros(1)
    state["middle_block.1.qkv.weight"] = torch.zeros(64, 64, 1)
    with pytest.raises(CheckpointError) as error:
        convert(state, SMALL, HERE)
    assert str(error.value) == (
        "model.pt holds another model's weights (1 missing, 1 unexpected, 1 of another shape): missing out.0.bias; "
        "unexpected input_blocks.9.0.op.weight; "
        "middle_block.1.qkv.weight has shape (64, 64, 1), expected (192, 64, 1)."
    )


def test_flags_that_no_weight_tells_are_demanded_by_name():
    with pytest.raises(
        UsageError, match=r"image_size, noise_schedule, num_heads or num_head_channels, rescale"
    ):
        complete_flags({"diffusion_steps": 4000}, released(SMALL), HERE)


def test_weights_of_another_program_are_refused():
    with pytest.raises(
        CheckpointError, match=r"no state dict of improved.* it has no input_blocks\.0\.0\.weight"
    ):
        complete_flags({}, {"conv1.weight": torch.zeros(1)}, HERE)


def test_names_that_no_such_program_gives_are_named():
    given = {"image_size": 8, "diffusion_steps": 1000, "noise_schedule": "linear", "num_heads": 2}
    state = released(SMALL) | {"output_blocks.5.weight": torch.zeros(1)}
    with pytest.raises(CheckpointError, match=r"1 unexpected, .*: unexpected output_blocks\.5\.weight"):
        convert(state, complete_flags(given, state, HERE), HERE)


def test_weights_of_no_convolution_are_refused():
    state = released(SMALL) | {"input_blocks.0.0.weight": torch.zeros(3)}
    with pytest.raises(CheckpointError, match=r"expected input_blocks.* of the shape of a conv"):
        infer_flags(state, 8, HERE)


def test_class_conditional_networks_are_no_denoisers():
    flags = replace(SMALL, class_cond=True)
    with pytest.raises(
        UsageError, match=r"is a class-conditional U-Net \(label_emb\), but a denoiser knows no class"
    ):
        denoiser(released(flags), flags, HERE)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channel_mult": "0.5,1"}, "channel_mult begins with 0.5, but UNet2DModel"),
        ({"channel_mult": ""}, "channel_mult is empty, which the programs allow at image_size 512"),
        ({"channel_mult": "1,x"}, "channel_mult is '1,x', expected positive numbers with commas"),
        ({"channel_mult": "1,-1"}, "channel_mult is '1,-1', expected positive numbers"),
        ({"attention_resolutions": "0"}, "attention_resolutions is '0', expected positive whole numbers"),
        ({"attention_resolutions": "a"}, "attention_resolutions is 'a', expected positive whole numbers"),
        ({"num_channels": 48}, "give 48 channels, which 32 groups do not divide"),
        ({"num_heads": 3}, "num_heads is 3, which does not divide the 64 channels"),
        ({"num_heads_upsample": 5}, "num_heads_upsample is 5, which does not divide"),
        ({"num_head_channels": 48}, "num_head_channels is 48, which does not divide"),
        ({"image_size": 9}, "image_size is 9, which 1 halvings do not divide"),
        ({"noise_schedule": "square"}, "noise_schedule is 'square', expected linear or cosine"),
        ({"timestep_respacing": "ddim25"}, "timestep_respacing is 'ddim25', which thins out"),
    ],
)
def test_flags_beyond_the_network_say_which_and_why(changes, message):
    with pytest.raises(UsageError, match=message):
        replace(SMALL, **changes)


def test_flags_are_read_as_on_the_programs_command_line():
    assert parse_flags("--num_channels 128 --learn_sigma True --dropout=0.3 --channel_mult 1,2") == {
        "num_channels": 128,
        "learn_sigma": True,
        "dropout": 0.3,
        "channel_mult": "1,2",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("--large_size 256", "unknown flag 'large_size'"),
        ("--num_channels", "end with '--num_channels' alone"),
        ("--channel_mult '1,2", "which a shell could not read .No closing quotation.; expected pairs"),
        ("--num_channels many", "num_channels is 'many', expected a value of type int"),
        ("--learn_sigma maybe", "learn_sigma is 'maybe', expected a value of type bool"),
    ],
)
def test_flags_that_cannot_be_read_are_refused(text, message):
    with pytest.raises(UsageError, match=message):
        parse_flags(text)
