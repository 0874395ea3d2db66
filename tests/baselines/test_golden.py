"""The baselines' networks, denoisers and losses against tensors made by the released programs."""

import json
import os
import re
from pathlib import Path

import pytest
import safetensors
import torch
from safetensors.torch import load_file

from baselines.consistency import regularisation
from baselines.networks.resnet import resnet
from baselines.parts.openai_flags import check_flags, complete_flags
from baselines.parts.openai_unet import denoiser
from bench.smoothing.sigma import timestep_of_sigma
from bench.training.checkpoints import load_state
from bench.types import Task

GOLDEN = Path(os.environ.get("GOLDEN_DIR", Path(__file__).parents[3] / "shared" / "golden"))

pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"no reference tensors at {GOLDEN}")


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))


def released(path):
    """Return a released U-Net as our denoiser, the file's other tensors, and its metadata."""
    with safetensors.safe_open(path, "pt") as file:
        metadata = {key: json.loads(value) for key, value in file.metadata().items()}
    tensors = load_file(path)
    weights = {name.removeprefix("unet."): tensors.pop(name) for name in list(tensors) if name[:5] == "unet."}
    flags = complete_flags(check_flags(metadata["config"]), weights, path)
    return denoiser(weights, flags, path), tensors, metadata


UNETS = sorted(GOLDEN.glob("*_diffusion_unet.safetensors"))


@pytest.fixture(scope="module", params=UNETS, ids=lambda path: path.stem)
def case(request):
    return released(request.param)


def test_schedule_and_time_steps_are_the_released_ones(case):
    ours, tensors, metadata = case
    torch.testing.assert_close(ours.alphas_cumprod, tensors["out.alphas_cumprod"], rtol=1e-9, atol=0)
    for sigma, timestep in metadata["timestep_of_sigma"].items():
        assert timestep_of_sigma(float(sigma), ours.alphas_cumprod) == timestep


def test_network_reproduces_released_outputs(case):
    ours, tensors, metadata = case
    for sigma, timestep in metadata["timestep_of_sigma"].items():
        fed = torch.full(
            (len(tensors["in.image"]),), timestep
        )  # recorded by a direct call, without time_scale
        with torch.no_grad():
            close(ours.unet(tensors[f"in.x_t_{sigma}"], fed).sample, tensors[f"out.model_output_{sigma}"])


def test_one_shot_denoising_reproduces_released_images(case):
    ours, tensors, metadata = case
    for sigma, timestep in metadata["timestep_of_sigma"].items():
        x_noisy = tensors[f"in.x_t_{sigma}"] / float(ours.alphas_cumprod[timestep]) ** 0.5
        with torch.no_grad():
            close(ours(x_noisy, 2 * float(sigma)), tensors[f"out.denoised_{sigma}"])


def test_cifar_resnet_reproduces_released_logits():
    path = GOLDEN / "cifar_resnet_io.safetensors"
    with safetensors.safe_open(path, "pt") as file:
        arch = json.loads(file.metadata()["arch"])
    tensors = load_file(path)
    task = Task(
        dataset="",
        channels=3,
        image_size=tensors["in.image"].shape[-1],
        num_classes=len(tensors["out.logits"][0]),
    )
    network = resnet(task, int(arch.removeprefix("cifar_resnet")))
    weights, _ = load_state(GOLDEN / "cifar_resnet_checkpoint.pth.tar")
    network.load_state_dict(weights)
    close(network.eval()(tensors["in.image"]), tensors["out.logits"])


def test_consistency_regularisation_reproduces_released_values():
    tensors = load_file(GOLDEN / "consistency_loss.safetensors")
    copies = [value for name, value in sorted(tensors.items()) if name.startswith("in.logits_")]
    checked = {name: re.fullmatch(r"out\.loss_lbd(.+)_eta(.+)", name) for name in tensors if "loss" in name}
    assert checked
    for name, match in checked.items():
        loss = regularisation(copies, weight=float(match[1]), entropy_weight=float(match[2]))
        close(loss, tensors[name].view(()))
