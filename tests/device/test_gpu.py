"""What only a GPU can show: each test is that of a fault which could not be seen without one. `pytest -m gpu`."""

import itertools
from contextlib import contextmanager

import pytest
import torch

from bench.config.names import NUM_CLASSES
from bench.cost.work import random_stream
from bench.cost.workshop import seconds_by_layout
from bench.device import hardware
from bench.device.batching import halving
from bench.device.bfloat16 import prepare_for_bfloat16
from bench.device.power import energy_counter, nvml_reader
from bench.device.precision import at_precision, compiled, tf32
from bench.device.timing import instruments, seconds_of, timed, warmed
from bench.methods import registry
from bench.smoothing import noise
from bench.smoothing.counting import Draws, count_group, predicted_classes
from bench.smoothing.noise import seeded_initialisation
from bench.training.architectures import Chains
from bench.training.augmentation import random_affine, random_boxes
from tests.cost.test_compiling import compiled_in_an_image

pytestmark = pytest.mark.gpu

FAMILIES = ("imagenet-reduced", "cifar10-reduced")
CPU = torch.device("cpu")
SERIES = noise.Series(seed=7, stage="estimation", samples=200)


@pytest.fixture(scope="module")
def gpu():
    return hardware.resolve_device("cuda:0")


def made(family, name, device, make=lambda name, function: function()):
    with seeded_initialisation(0):
        one = registry.architectures(family, Chains(steps=2, votes=2))[name]
        return one, one.build(make).to(device).eval()


def stream_of(family, name, device, precision="float32", **options):
    one, module = made(family, name, device, **options)
    shape = (one.task.channels, one.task.image_size, one.task.image_size)
    return random_stream(module, precision, shape, one.task.num_classes, 0.5)


@contextmanager
def no_waiting():
    """Fail where the host waits for the device."""
    torch.cuda.synchronize()
    try:
        torch.cuda.set_sync_debug_mode("error")
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def names():
    return [(family, name) for family in FAMILIES for name in registry.architectures(family, Chains())]


def test_the_kernel_is_there_compiled_and_right(gpu):
    assert noise.drawn_with(gpu) == "one Triton kernel", noise.why_slow(gpu)


@pytest.mark.parametrize("shape", [(3, 224, 224), (1, 28, 28), (3, 5, 7)])
def test_the_kernel_draws_what_a_cpu_draws_in_every_bit(gpu, shape):
    images, indices = torch.rand((2, *shape)), torch.tensor([2**31 - 1, 4])
    where = {"start": 150, "size": 90, "sigma": 0.37}
    expected, keys = noise.noisy_samples(images, indices, SERIES, **where)
    found, found_keys = noise.noisy_samples(images.to(gpu), indices.to(gpu), SERIES, **where)
    assert torch.equal(found.cpu().view(torch.int32), expected.view(torch.int32))
    assert torch.equal(found_keys.cpu(), keys)
    own = noise.keyed_noise(keys.to(gpu), 9, shape, gpu).cpu()
    assert torch.equal(own.view(torch.int32), noise.keyed_noise(keys, 9, shape, CPU).view(torch.int32))


def test_torch_operations_draw_the_same_where_there_is_no_kernel(gpu, monkeypatch):
    images, indices, where = (
        torch.rand((2, 3, 32, 32)),
        torch.tensor([3, 4]),
        {"start": 150, "size": 90, "sigma": 0.37},
    )
    expected, keys = noise.noisy_samples(images, indices, SERIES, **where)
    monkeypatch.setattr(noise, "kernel_on", lambda device: "Triton is not installed")
    found, _ = noise.noisy_samples(images.to(gpu), indices.to(gpu), SERIES, **where)
    assert torch.equal(found.cpu(), expected)
    own = noise.keyed_noise(keys.to(gpu), 9, (3, 8, 8), gpu).cpu()
    assert torch.equal(own, noise.keyed_noise(keys, 9, (3, 8, 8), CPU))


@pytest.mark.parametrize("name", ["resnet8", "rrcm-b", "dds", "densepure"])
def test_no_batch_waits_for_the_device(gpu, name):
    stream = stream_of("cifar10-reduced", name, gpu)
    smoothed, images = stream.smoothed, stream.images
    draws = [Draws(seed=0, index=index, stage="estimation", samples=60) for index in range(len(images))]

    def labels():
        with torch.inference_mode():
            return list(
                predicted_classes(
                    smoothed.classifier,
                    images,
                    sigma=0.5,
                    draws=draws,
                    sizes=itertools.repeat(50),
                    num_classes=smoothed.num_classes,
                )
            )

    labels()  # what is made once is made here
    with no_waiting():
        found = labels()
    assert sum(map(len, found)) == 60 * len(images)


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
@pytest.mark.parametrize(("family", "name"), names())
def test_every_method_classifies_in_every_precision(gpu, family, name, precision):
    stream = stream_of(family, name, gpu, precision)
    with torch.inference_mode():
        logits = stream.classify(*stream.noisy_batch(0, 8))
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()


@pytest.mark.parametrize("name", ["rrcm-b", "resnet8", "dds"])
def test_weights_that_were_cast_once_give_the_logits_of_autocast_in_every_bit(gpu, name):
    one, module = made("cifar10-reduced", name, gpu)
    x = torch.rand((8, 3, one.task.image_size, one.task.image_size), device=gpu)
    classify = at_precision(module, "cuda", "bfloat16")
    with torch.inference_mode():
        expected = classify(x, 0.5, torch.arange(8, device=gpu))
        prepare_for_bfloat16(module, -1)
        assert torch.equal(classify(x, 0.5, torch.arange(8, device=gpu)), expected)


def test_layouts_are_tried_within_seconds(gpu):
    one = registry.architectures("cifar10-reduced", Chains(steps=2, votes=2))["dds"]
    found = seconds_by_layout(one, "bfloat16", 0.5, 16, gpu, instruments(gpu))
    assert found.keys() == {"contiguous", "channels-last"}
    assert 0 < max(found.values()) < 10


def test_what_the_host_reads_in_training_waits_for_no_device(gpu):
    with no_waiting():
        draws = [
            random_boxes(4, (32, 32), (0.08, 1.0), one) for one in [torch.Generator(gpu).manual_seed(1)] * 2
        ]
    assert draws[0] != draws[1]


def test_instruments_time_by_events_and_see_memory_that_was_freed(gpu):
    meters = instruments(gpu)
    start = meters.mark()
    torch.ones((2048, 2048), device=gpu) @ torch.ones((2048, 2048), device=gpu)
    end = meters.mark()
    meters.synchronize()
    assert 0 < meters.between(start, end) < 5
    stream = stream_of("cifar10-reduced", "resnet8", gpu)
    one = timed(warmed(stream.work(64), meters, 0.2), meters)
    assert one.peak_memory > one.memory_before > 0
    assert one.seconds > 0.1


def test_load_and_energy_are_told(gpu):
    reader, counter = nvml_reader(gpu), energy_counter(gpu)
    assert reader is not None, "nvidia-ml-py is not installed, or NVML may not be asked"
    assert 10 < reader().watts < 2000
    assert counter is None or counter() > 0


def test_a_denoisers_batch_at_the_published_size_fits(gpu):
    one, module = made("imagenet", "dds", gpu)
    stream = random_stream(module, "float32", (3, 256, 256), NUM_CLASSES["imagenet"], 0.5)
    torch.cuda.reset_peak_memory_stats()
    seconds = seconds_of(stream.work(one.batch_size), 1, instruments(gpu))
    print(
        f"dds float32, {one.batch_size}: {seconds:.2f} s, {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"
    )
    assert torch.cuda.max_memory_allocated() < 60 * 2**30


def test_a_batch_beyond_the_memory_is_halved_once_and_for_all(gpu):
    torch.cuda.empty_cache()  # what earlier tests left is no free memory
    free, _ = torch.cuda.mem_get_info(gpu)
    sizes = []

    def greedy(x_noisy, sigma, keys=None):
        sizes.append(len(x_noisy))
        torch.empty(len(x_noisy) * (free // 6), dtype=torch.uint8, device=gpu)
        return x_noisy.flatten(1)[:, :2]

    quick, x = halving(greedy), torch.rand(16, 1, 2, 2, device=gpu)
    assert torch.equal(quick(x, 0.5), x.flatten(1)[:, :2])
    tried = len(sizes)
    quick(x, 0.5)
    assert max(sizes[tried:]) < 16


def test_geometry_is_float32_under_autocast(gpu):
    x = torch.rand(4, 1, 224, 224, device=gpu)
    draw = lambda: random_affine(x, torch.Generator(gpu).manual_seed(0), degrees=10)  # noqa: E731
    plain = draw()
    with torch.autocast("cuda", torch.bfloat16):
        assert torch.equal(draw(), plain)


def test_float32_is_float32_for_products_and_convolutions(gpu):
    generator = torch.Generator(gpu).manual_seed(0)
    a, kernel = (
        torch.randn(shape, generator=generator, device=gpu) for shape in ((512, 512), (64, 64, 3, 3))
    )
    image = torch.randn((8, 64, 32, 32), generator=generator, device=gpu)
    exact = (a.double() @ a.double(), torch.conv2d(image.double(), kernel.double()))

    def errors(is_allowed):
        with tf32(is_allowed, "cuda"):
            found = (a @ a, torch.conv2d(image, kernel))
        return [((one - other).norm() / other.norm()).item() for one, other in zip(found, exact, strict=True)]

    assert max(errors(False)) < 1e-5
    assert min(errors(True)) > 1e-5


def test_precision_changes_the_network_alone(gpu):
    seen = []
    at_precision(lambda x, sigma, keys: seen.append(x.dtype) or x.flatten(1), "cuda", "bfloat16")(
        torch.rand(2, 4, device=gpu), 0.5, None
    )
    assert seen == [torch.float32]


def test_counts_on_a_gpu_are_those_of_a_cpu_for_a_classifier_without_rounding(gpu):
    """A sign of one pixel: the noise is the same, so every count is."""

    def classify(x_noisy, sigma, keys=None):
        first = x_noisy[:, 0, 0, 0] - 0.5
        return torch.stack([-first, first], 1)

    images, draws = (
        torch.rand((3, 3, 8, 8)),
        [Draws(seed=3, index=i, stage="selection", samples=1000) for i in (5, 6, 7)],
    )
    options = {"sigma": 0.5, "draws": draws, "batch_size": 300, "num_classes": 2}
    assert count_group(classify, images.to(gpu), **options) == count_group(classify, images, **options)


@pytest.mark.parametrize("name", ["rrcm-b", "resnet8", "dds"])
def test_a_whole_image_compiles_nothing_anew(gpu, name):
    from torch._inductor.compile_fx import compile_fx

    before, after = compiled_in_an_image(name, gpu, compile_fx)
    assert before > 0
    assert after == 0


def test_noise_of_a_compiled_method_is_that_of_the_kernel_in_every_bit(gpu):
    keys = torch.arange(64, device=gpu)

    def draw(x):
        return x + noise.keyed_noise(keys, 3, (3, 8, 8), gpu)

    x = torch.zeros(64, 3, 8, 8, device=gpu)
    with torch.inference_mode():
        assert torch.equal(torch.compile(draw)(x), draw(x))


def test_logits_of_cuda_graphs_outlive_the_next_replay(gpu):
    one, module = made("cifar10-reduced", "resnet8", gpu)
    quick = compiled(module, "cuda-graphs")
    batches = [torch.rand(8, 3, one.task.image_size, one.task.image_size, device=gpu) for _ in range(4)]
    with torch.inference_mode():
        for x in batches:
            quick(x, 0.5, None)
        found = [quick(x, 0.5, None) for x in batches]
        expected = [module(x, 0.5, None) for x in batches]
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
