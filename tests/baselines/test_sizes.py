"""Published architectures: parameters as published, operations as counted by hand, iterated calls counted each."""

import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from baselines.networks.unet import small_unet
from baselines.parts.openai_unet import network
from baselines.sizes import FAMILIES
from bench.errors import UsageError
from bench.methods import registry, sizes
from bench.training.architectures import Chains
from bench.types import Task

IMAGENET = {
    "rrcm-s": 19_914_728,  # 6 blocks of width 512, "S"; see also tests/rrcm/test_presets.py
    "rrcm-b": 86_540_776,
    "resnet50": 25_557_032,  # arXiv 1512.03385 in torchvision's form
    "dds": 552_814_086 + 305_674_728,  # 256x256_diffusion_uncond.pt, BEiT-L/16 at 512
    "dds-vit": 552_814_086 + 86_567_656,  # ViT-B/16 at 224, 86.6M
    "dds-multistep": 552_814_086 + 305_674_728,
    "densepure": 552_814_086 + 305_674_728,
    "consistency-model": 552_814_086 - 3 * (256 * 9 + 1) + 305_674_728,  # three output channels fewer
}
CIFAR10 = {
    "rrcm-b": 85_125_130,
    "resnet110": 1_730_714,  # 1.7M in arXiv 1512.03385, Table 6
    "dds": 52_546_438 + 85_806_346,  # cifar10_uncond_50M_500K.pt, ViT-B/16 with ten classes
    "dds-multistep": 52_546_438 + 85_806_346,
    "densepure": 52_546_438 + 85_806_346,
    "consistency-model": 52_546_438 - 3 * (128 * 9 + 1) + 85_806_346,
}


def on_meta(name, function):
    with torch.device("meta"):
        return function()


@pytest.mark.parametrize(("family", "published"), [("imagenet", IMAGENET), ("cifar10", CIFAR10)])
def test_every_method_has_the_published_number_of_parameters(family, published):
    known = registry.architectures(family, Chains())
    found = {
        name: sum(value.numel() for value in known[name].build(on_meta).parameters()) for name in published
    }
    assert found == published


def unet_flops_by_hand(flags):
    """Return the operations of one call at one image, layer by layer, as the architecture's papers describe it."""
    widths, time, conditioning = flags.widths, 4 * flags.num_channels, 2 if flags.use_scale_shift_norm else 1

    def conv(i, o, side, kernel=3):
        return 2 * i * o * kernel**2 * side**2

    def residual(i, o, side, before=None):
        """`side` is that of the second convolution, `before` that of the first where the block changes it."""
        shortcut = conv(i, o, side, 1) if i != o else 0
        return conv(i, o, before or side) + conv(o, o, side) + shortcut + 2 * time * conditioning * o

    def attention(c, side):
        tokens = side**2
        return 2 * tokens * 4 * c * c + 2 * 2 * tokens * tokens * c

    def resample(c, side):
        """`side` is that of the result; a residual block changes it before its first convolution."""
        return residual(c, c, side) if flags.resblock_updown else conv(c, c, side)

    side = flags.image_size
    total = 2 * (flags.num_channels * time + time * time) + conv(3, widths[0], side)
    skips, c = [widths[0]], widths[0]
    for level, width in enumerate(widths):
        for _ in range(flags.num_res_blocks):
            total += residual(c, width, side) + (attention(width, side) if flags.attends[level] else 0)
            c = width
            skips.append(c)
        if level < len(widths) - 1:
            side //= 2
            total += resample(c, side)
            skips.append(c)
    total += 2 * residual(c, c, side) + attention(c, side)
    for level, width in reversed(list(enumerate(widths))):
        for _ in range(flags.num_res_blocks + 1):
            total += residual(c + skips.pop(), width, side)
            total += attention(width, side) if flags.attends[level] else 0
            c = width
        if level:
            side *= 2
            total += resample(c, side)
    return total + conv(c, 6 if flags.learn_sigma else 3, side)


def vit_flops_by_hand(*, width, depth, patches, patch_values, num_classes, tokens):
    products = tokens * 12 * width * width + 2 * tokens * tokens * width
    return 2 * (patches * patch_values * width + depth * products + width * num_classes)


def test_operations_of_the_cifar_denoiser_and_its_classifier_equal_the_hand_count():
    known = registry.architectures("cifar10", Chains(steps=3, votes=2))
    counted = sizes.workloads([known[name] for name in ("dds", "dds-multistep", "densepure")], 0.5)
    unet = unet_flops_by_hand(FAMILIES["cifar10"].unet)
    vit = vit_flops_by_hand(width=768, depth=12, patches=196, patch_values=768, num_classes=10, tokens=197)
    assert counted["dds"].flops == unet + vit
    assert counted["dds-multistep"].flops == 3 * unet + vit
    assert counted["densepure"].flops == 2 * (3 * unet + vit)


@pytest.mark.slow
def test_operations_of_the_imagenet_denoiser_equal_the_hand_count():
    flags = FAMILIES["imagenet"].unet
    with torch.device("meta"):
        unet = network(flags)
    x = torch.empty(1, 3, 256, 256, device="meta")
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        unet(x, 10)
    assert counter.get_total_flops() == unet_flops_by_hand(flags)


@pytest.mark.parametrize("family", ["imagenet-reduced", "cifar10-reduced"])
def test_reduced_families_have_the_same_kinds_of_method_and_run(family):
    def make(name, function):
        torch.manual_seed(0)
        return function()

    known = registry.architectures(family, Chains(steps=2, votes=2))
    whole = registry.architectures(family.removesuffix("-reduced"), Chains())
    assert [name.rstrip("0123456789") for name in known] == [name.rstrip("0123456789") for name in whole]
    for one in known.values():
        task = one.task
        x = torch.rand(2, task.channels, task.image_size, task.image_size)
        with torch.inference_mode():
            logits = one.build(make).eval()(x, 0.5, torch.arange(2))
        assert logits.shape == (2, task.num_classes)
        assert logits.isfinite().all()


def test_an_ordinary_method_is_counted_with_its_options():
    task = Task(dataset="mnist5k", channels=1, image_size=28, num_classes=10)
    one = registry.architecture("rrcm", task, 0.5, {"depth": 2})
    (counted,) = sizes.workloads([one], 0.5).values()
    hand = vit_flops_by_hand(width=128, depth=2, patches=16, patch_values=49, num_classes=10, tokens=18)
    assert counted.flops == hand


@pytest.mark.parametrize(
    "name", ["rrcm-b", "resnet8", "dds", "dds-multistep", "densepure", "consistency-model"]
)
def test_every_method_is_built_from_networks_under_torch_compile(name):
    """timm asks for the truth of a network to read its input size, which a compiled one refuses."""
    one = registry.architectures("cifar10-reduced", Chains(steps=2, votes=2))[name]
    built = one.build(lambda name, function: torch.compile(function(), dynamic=False))
    assert any(hasattr(part, "_orig_mod") for part in built.modules())


class LiveBytes(TorchDispatchMode):
    """The most bytes of results that are alive at once."""

    def __init__(self):
        super().__init__()
        self.users, self.live, self.most = {}, 0, 0

    def release(self, key, size):
        self.users[key] -= 1
        if not self.users[key]:
            self.live -= size

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **kwargs or {})
        for one in tree_leaves(result):
            if isinstance(one, torch.Tensor):
                storage = one.untyped_storage()
                key, size = storage._cdata, storage.nbytes()
                if not self.users.get(key):
                    self.live += size
                self.users[key] = self.users.get(key, 0) + 1
                weakref.finalize(one, self.release, key, size)
        self.most = max(self.most, self.live)
        return result


def test_a_denoisers_batch_fits_a_card_of_40_gb_beside_the_weights_of_all_methods():
    """Shapes alone: activations in float32, without the workspace of convolutions."""
    with torch.device("meta"), torch.inference_mode():
        unet = network(FAMILIES["imagenet"].unet).eval()
        with LiveBytes() as counted:
            unet(torch.zeros(1, 3, 256, 256), torch.zeros(1))
    assert 0.5 * 2**30 < counted.most < 0.8 * 2**30
    assert FAMILIES["imagenet"].single_batch * counted.most + 6.5 * 2**30 < 30 * 2**30


@pytest.mark.parametrize("channels", [(), (30,), (4, 8)])
def test_channels_that_no_group_norm_divides_are_refused(channels):
    with pytest.raises(UsageError, match="each a multiple of 8"):
        small_unet(Task(dataset="", channels=1, image_size=8, num_classes=2), channels, 1)
