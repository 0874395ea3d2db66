"""The noise of one launch: bit for bit that of numpy, in Triton's interpreter; its program for a GPU fuses nothing."""

import importlib.util
import re

import numpy as np
import pytest
import torch

from bench.smoothing import noise

pytest.importorskip("triton")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def interpreted():
    """The kernel's module, run by Triton's interpreter on the CPU."""
    found = importlib.util.find_spec("bench.smoothing.kernel")
    spec = importlib.util.spec_from_file_location("interpreted_kernel", found.origin)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("TRITON_INTERPRET", "1")
        spec.loader.exec_module(module)
    return module


@pytest.fixture
def on_gpu(interpreted, monkeypatch):
    """Have the CPU draw as a GPU does, with the interpreted kernel."""
    noise.kernel_on.cache_clear()
    monkeypatch.setattr(noise, "kernel_on", lambda device: interpreted)


@pytest.mark.parametrize("shape", [(1, 2, 2), (3, 3), (5,), (3, 20, 20)])
def test_keyed_noise_is_that_of_numpy_in_every_bit(interpreted, shape):
    keys = torch.tensor([2**62 + 1, 0, 4, -1])
    found = interpreted.keyed_noise(keys, noise._METHOD_STREAM, 9, shape)
    assert torch.equal(found.view(torch.int32), noise.keyed_noise(keys, 9, shape, CPU).view(torch.int32))


@pytest.mark.parametrize("seed", [0, 2**63 - 1])
@pytest.mark.parametrize(("shape", "samples"), [((1, 3, 3), 13), ((3, 2, 2), 200)])
def test_a_batch_across_images_and_blocks_is_x_plus_sigma_z_in_every_bit(interpreted, seed, shape, samples):
    images, indices = torch.rand((3, *shape)), torch.tensor([2**31 - 1, 0, 7])
    place, series = (
        (seed, 2, samples, samples - 5),
        noise.Series(seed=seed, stage="estimation", samples=samples),
    )
    found = interpreted.image_noise(images, indices, place, 20, 0.37, noise.NOISE_BLOCK)
    expected, _ = noise.noisy_samples(images, indices, series, start=samples - 5, size=20, sigma=0.37)
    assert torch.equal(found.view(torch.int32), expected.view(torch.int32))


def test_the_trial_before_the_first_use_accepts_the_kernel_and_refuses_one_of_other_values(
    interpreted, monkeypatch
):
    assert noise._trial(interpreted, CPU)
    whole = interpreted.keyed_noise
    monkeypatch.setattr(interpreted, "keyed_noise", lambda *given: whole(*given) * (1 + 2**-20))
    assert not noise._trial(interpreted, CPU)


@pytest.mark.parametrize(("keyed", "integers"), [(False, "i64"), (False, "i32"), (True, "i32")])
def test_the_program_for_a_gpu_multiplies_and_adds_in_two_roundings(keyed, integers):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from bench.smoothing import kernel

    types = {"out": "*fp32", "images": "*fp32", "identities": "*i64", "numbers": "*fp64", "sigma": "fp32"}
    for name in ("seed", "stream", "samples", "start", "block", "values", "programs"):
        types[name] = integers
    types |= {"KEYED": "constexpr", "SIZE": "constexpr"}
    ordered = {name: types[name] for name in kernel._draw.arg_names}
    source = ASTSource(fn=kernel._draw, signature=ordered, constexprs={"KEYED": keyed, "SIZE": kernel.GROUPS})
    program = compile(source, target=GPUTarget("cuda", 90, 32), options={"enable_fp_fusion": False}).asm[
        "ptx"
    ]
    assert not re.search(r"fma\.\w+\.f(32|64)", program)
    assert len(re.findall(r"sqrt\.rn\.f64", program)) > 0


GPU = torch.device("cuda")


@pytest.fixture
def failing(monkeypatch):
    """Have the trial of the kernel raise what a test puts into a list."""
    errors = []

    def trial(kernel, device):
        raise errors[0]

    noise.kernel_on.cache_clear()
    monkeypatch.setattr(noise, "_trial", trial)
    yield errors
    noise.kernel_on.cache_clear()


def test_where_the_kernel_cannot_run_it_is_said_and_stands_in_the_header(failing):
    failing.append(RuntimeError("Failed to find C compiler.\nPlease specify"))
    reason = "Triton's kernel failed (RuntimeError: Failed to find C compiler.)"
    assert noise.drawn_with(GPU) == f"torch operations: {reason}"
    assert noise.why_slow(GPU).startswith(f"{reason}: noise is drawn in torch operations")
    assert (noise.drawn_with(CPU), noise.why_slow(CPU)) == ("numpy", None)


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("Triton Error [CUDA]: out of memory")],
)
def test_a_device_that_is_out_of_memory_once_keeps_its_kernel(failing, monkeypatch, error):
    failing.append(error)
    with pytest.raises(type(error)):
        noise.kernel_on(GPU)
    monkeypatch.setattr(noise, "_trial", lambda kernel, device: True)
    assert noise.drawn_with(GPU) == "one Triton kernel"


def test_numbers_of_numpy_reach_triton_as_those_of_python(monkeypatch):
    from bench.smoothing import kernel

    taken = []
    monkeypatch.setattr(kernel, "_draw", {(1,): lambda *given, **settings: taken.extend(given[4:])})
    place = (np.int64(7), 2, np.int32(10), 0)
    kernel.image_noise(
        torch.zeros(1, 1, 2, 2), torch.zeros(1, dtype=torch.int64), place, 1, np.float32(0.5), 64
    )
    assert {type(one) for one in taken} == {int, float}
