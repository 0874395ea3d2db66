"""Denoisers and classifiers that `bench train` wrote, as parts of another method."""

import pytest
import torch

from baselines import consistency_model, dds
from bench.errors import CheckpointError, UsageError
from bench.methods import registry
from bench.training.checkpoints import save_checkpoint
from tests.support.tiny import TASK

SIZES = {"channels": (8, 8), "patch": 1}


@pytest.fixture
def zoo(tmp_path):
    """Checkpoints with random weights: of dds, of consistency-model, and of gaussian with another network."""
    torch.manual_seed(0)
    for name, module, own in (
        ("dds", dds, {"steps": 1000}),
        ("consistency-model", consistency_model, {"sigma_max": 4.0}),
    ):
        built = module.METHOD.build(module.Config(task=TASK, sigma=0.5, **SIZES), None)
        config = {"method": name, **SIZES, **own, "backbone": "resnet"}
        save_checkpoint(tmp_path / f"{name}.safetensors", built.state_dict(), config=config, training={})
    network = registry.backbone("cifar_resnet8").make(TASK, 0.5)
    config = {"method": "gaussian", "backbone": "cifar_resnet8", "sigma": 0.5}
    save_checkpoint(tmp_path / "gaussian.safetensors", network.state_dict(), config=config, training={})
    return tmp_path


def build(zoo, method, **parts):
    options = {part: str(zoo / f"{name}.safetensors") for part, name in parts.items()}
    config = registry.configure(method, TASK, 0.5, options)
    assert registry.load(method).checkpoint_name(config) is None
    return registry.load(method).build(config, None)


@pytest.mark.parametrize("method", ["dds", "consistency-model"])
def test_parts_of_our_own_files_are_those_that_were_trained(zoo, method):
    x_noisy = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    whole = registry.load(method)
    config = registry.configure(method, TASK, 0.5, {"channels": "8,8", "patch": "1"})
    expected = whole.build(config, zoo / f"{method}.safetensors")
    mixed = build(zoo, method, denoiser=method, classifier="gaussian")
    with torch.no_grad():
        own = build(zoo, method, denoiser=method, classifier=method)
        assert torch.equal(own(x_noisy, 0.5), expected(x_noisy, 0.5))
        denoised = expected.denoiser.denoise_pixels(x_noisy, 0.5)
        gaussian = registry.configure(
            "gaussian", TASK, 0.5, {"checkpoint": str(zoo / "gaussian.safetensors")}
        )
        classifier = registry.load("gaussian").build(gaussian, zoo / "gaussian.safetensors")
        assert torch.equal(mixed(x_noisy, 0.5), classifier(denoised, 0.5))


def test_file_without_such_a_denoiser_is_refused(zoo):
    with pytest.raises(
        CheckpointError, match=r"gaussian\.safetensors is a checkpoint of gaussian, which has no den"
    ):
        build(zoo, "dds", denoiser="gaussian", classifier="gaussian")
    with pytest.raises(UsageError, match="is a denoiser of consistency-model; name another, or that method"):
        build(zoo, "dds", denoiser="consistency-model", classifier="gaussian")
    with pytest.raises(UsageError, match="is a denoiser of dds; name another, or that method"):
        build(zoo, "consistency-model", denoiser="dds", classifier="gaussian")
