"""Purifiers whose classifier is trained further on denoised images, and denoisers and weights of the user's own."""

import sys
from dataclasses import replace
from types import ModuleType

import pytest
import torch
from torch import nn

from baselines import dds
from baselines.networks.diffusion import Chain
from baselines.networks.resnet import ResNet
from baselines.parts.own import load_denoiser
from baselines.purifiers.denoised import FinetuningObjective
from bench.errors import CheckpointError, ModelError, UnfinishedError, UsageError
from bench.methods import registry
from bench.smoothing.sigma import to_pixel_units
from bench.training.batches import Loader
from bench.training.checkpoints import load_checkpoint, save_checkpoint
from bench.types import Task
from tests.support.tiny import OPTIONS, TASK, job

COLOUR = Task(dataset="cifar10", channels=3, image_size=32, num_classes=10)


def configured(sigma=0.5, **changes):
    return registry.configure("dds", TASK, sigma, {**OPTIONS["dds"], "finetune_max_steps": 2, **changes})


@pytest.fixture
def own(monkeypatch):
    """A module of the user's own, whose functions are set as attributes."""
    module = ModuleType("users_own")
    monkeypatch.setitem(sys.modules, "users_own", module)
    return module


def test_fine_tuning_makes_a_file_for_each_sigma_with_the_denoiser_unchanged(tmp_path):
    work, config = job(tmp_path), configured(finetune="true")
    dds.METHOD.train(config, work)
    names = {path.name for path in work.folder.iterdir()}
    assert names == {"dds.safetensors", "dds_finetuned_sigma_0.5.safetensors"}
    (base, _), (tuned, metadata) = (load_checkpoint(work.folder / name) for name in sorted(names))
    assert base.keys() == tuned.keys()
    same = {name: torch.equal(base[name], tuned[name]) for name in base}
    assert all(same[name] for name in same if name.startswith("denoiser."))
    assert not any(same[name] for name in same if name.startswith("classifier.1.fc"))
    training = metadata["training"]
    assert training["forward_equivalents"] == 2 * 8 * 4
    assert training["before"]["forward_equivalents"] == 2 * (2 * 8 * 3)
    built = dds.METHOD.build(config, work.folder / dds.METHOD.checkpoint_name(config))
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(built.classifier[1].fc.weight, tuned["classifier.1.fc.weight"])
    assert built(x, 0.5).shape == (2, 2)


def test_the_classifier_is_shown_denoised_noisy_images_of_its_sigma(tmp_path):
    pair = dds.METHOD.build(configured(), None)
    seen = []
    pair.denoiser.denoise_pixels = lambda x, sigma, keys=None: seen.append((x, sigma)) or x
    objective = FinetuningObjective(pair, 0.7, job(tmp_path))
    objective.loss(Loader(job(tmp_path), 8).batch(0)).backward()
    ((noisy, sigma),) = seen
    assert sigma == 0.7
    # 512 values around images of [0.1,0.9]: their deviation is 0.7 to 0.8, its standard error 0.025
    assert 0.6 < float(noisy.std()) < 0.95
    assert all(value.grad is None for value in pair.denoiser.parameters())
    assert all(value.grad is not None for value in pair.classifier.parameters())


def test_fine_tuning_lowers_the_loss_on_denoised_images(tmp_path):
    torch.manual_seed(0)
    pair = dds.METHOD.build(configured(), None)
    objective, work = FinetuningObjective(pair, 0.25, job(tmp_path)), job(tmp_path)
    optimiser = torch.optim.AdamW(pair.classifier.parameters(), 1e-2)
    losses = []
    for step in range(20):
        loss = objective.loss(Loader(work, 16).batch(step))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-3:]) < sum(losses[:3]) / 2


def test_a_given_classifier_is_fine_tuned_too_and_named_in_the_file(tmp_path, own):
    own.make = lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    config = configured(finetune="true", classifier="users_own:make")
    dds.METHOD.train(config, job(tmp_path))
    path = job(tmp_path).folder / dds.METHOD.checkpoint_name(config)
    built = dds.METHOD.build(config, path)
    assert isinstance(built.classifier[1], nn.Linear)
    with pytest.raises(CheckpointError, match="made with classifier users_own:make, not "):
        dds.METHOD.build(configured(finetune="true"), path)


class Halving(nn.Module):
    """A denoiser that is told the noise level, in model units, and moves images to the middle."""

    def forward(self, x_noisy, sigma_model, keys):
        return x_noisy / (1 + sigma_model)


@pytest.mark.parametrize("made", [Halving(), lambda x, sigma_model, keys: x / (1 + sigma_model)])
@pytest.mark.parametrize("method", ["dds", "consistency-model"])
def test_any_denoiser_that_meets_the_contract_is_taken(own, made, method):
    own.denoiser, own.classifier = lambda: made, lambda: nn.Flatten()
    options = {"denoiser": "users_own:denoiser", "classifier": "users_own:classifier"}
    built = registry.load(method).build(registry.configure(method, TASK, 0.5, options), None)
    x = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(built(x, 0.5), to_pixel_units((2 * x - 1) / 2).flatten(1))


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ("words", "returned a str, expected a denoiser"),
        (lambda x: x, r"returned a function, expected a denoiser: \(x_noisy, sigma_model, keys\)"),
    ],
)
def test_what_is_no_denoiser_is_refused_with_the_contract(own, made, message):
    own.denoiser = lambda: made
    config = registry.configure("dds", TASK, 0.5, {"denoiser": "users_own:denoiser"})
    with pytest.raises(UsageError, match=message):
        dds.METHOD.build(config, None)


def test_a_denoiser_that_changes_the_shape_is_refused_when_it_does(own):
    own.denoiser = lambda: lambda x, sigma_model, keys: x[:, :, 1:]
    config = registry.configure("dds", TASK, 0.5, {"denoiser": "users_own:denoiser"})
    built = dds.METHOD.build(config, None)
    with pytest.raises(ModelError, match=r"gave \(1, 1, 7, 8\) for \(1, 1, 8, 8\), expected \(x_noisy"):
        built(torch.rand(1, 1, 8, 8), 0.5, None)


def test_a_chain_needs_a_diffusion_model(own):
    own.denoiser = Halving
    config = registry.configure("dds", TASK, 0.5, {"denoiser": "users_own:denoiser", "reverse_steps": 2})
    with pytest.raises(UsageError, match="reverse_steps is 2, but users_own:denoiser is no diffusion model"):
        dds.METHOD.build(config, None)


@pytest.fixture
def published(tmp_path):
    """A state dict as others publish it, without its architecture, and the network that it is of."""
    torch.manual_seed(0)
    network = ResNet(depth=8, channels=3, num_classes=10, is_padded=True).eval()
    renamed = {
        f"module.{name.replace('fc.', 'linear.')}": value
        for name, value in network.state_dict().items()
        if not name.endswith("num_batches_tracked")  # as files of old versions of torch
    }
    torch.save({"state_dict": renamed, "best_prec1": 91.5}, tmp_path / "resnet8.th")
    return tmp_path / "resnet8.th", network


def test_a_published_state_dict_is_taken_with_its_architecture_named(published, own):
    path, network = published
    x = torch.rand(2, 3, 32, 32)
    mean, std = (torch.tensor(one).view(3, 1, 1) for one in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    expected = network((x - mean) / std)
    config = registry.configure(
        "gaussian", COLOUR, 0.5, {"checkpoint": str(path), "backbone": "cifar_resnet8a"}
    )
    torch.testing.assert_close(registry.load("gaussian").build(config, path)(x, 0.5), expected)
    own.denoiser = lambda: lambda x, sigma_model, keys: x
    parts = {
        "denoiser": "users_own:denoiser",
        "classifier": "cifar_resnet8a",
        "classifier_checkpoint": str(path),
    }
    config = registry.configure("dds", COLOUR, 0.5, parts)
    torch.testing.assert_close(dds.METHOD.build(config, None)(x, 0.5), expected, rtol=1e-4, atol=1e-5)


def test_a_state_dict_without_its_architecture_is_refused_with_the_remedy(published):
    path, _ = published
    with pytest.raises(CheckpointError, match="or its network with --backbone, such as cifar_resnet20a"):
        registry.configure("gaussian", COLOUR, 0.5, {"checkpoint": str(path)})
    config = registry.configure(
        "gaussian", COLOUR, 0.5, {"checkpoint": str(path), "backbone": "cifar_resnet14a"}
    )
    with pytest.raises(CheckpointError, match="holds another model's weights"):
        registry.load("gaussian").build(config, path)


def test_a_chain_has_a_file_of_its_own_which_tells_it_and_noise_of_its_own_at_each_step(tmp_path):
    one, chain = (configured(finetune="true", reverse_steps=steps) for steps in (1, 2))
    name = dds.METHOD.checkpoint_name(chain)
    assert name == "dds_finetuned_chain_2_sigma_0.5.safetensors" != dds.METHOD.checkpoint_name(one)
    densepure = registry.configure("densepure", TASK, 0.5, {"finetune": "true"})
    assert registry.load("densepure").checkpoint_name(densepure) == name
    work = job(tmp_path)
    dds.METHOD.train(chain, work)
    assert dds.METHOD.build(chain, work.folder / name)
    with pytest.raises(CheckpointError, match=r"made with reverse_eta 1\.0, not 0\.0"):
        dds.METHOD.build(configured(finetune="true", reverse_steps=2, reverse_eta=0.0), work.folder / name)
    pair, seen = dds.METHOD.build(configured(), None), []
    pair.denoiser.denoise_pixels = lambda x, sigma, keys=None: seen.append(keys) or x
    objective = FinetuningObjective(pair, 0.7, work)
    for step in (0, 1):
        objective.loss(Loader(work, 8).batch(step))
    assert len(torch.cat(seen).unique()) == 16
    pair.denoiser.chain = Chain(steps=2)
    assert FinetuningObjective(pair, 0.7, work).forwards == 3 + 2


@pytest.mark.parametrize(
    "changes",
    [{"channels": []}, {"channels": None}, {"patch": "2"}, {"patch": 0}, {"steps": 0}, {"channels": [12]}],
)
def test_a_file_of_ours_that_tells_no_size_is_refused_in_one_sentence(tmp_path, changes):
    config = {"method": "dds", "channels": [8], "patch": 2, "steps": 10} | changes
    with pytest.raises(
        CheckpointError, match=r"d\.safetensors says channels .* and steps .*, which no denoiser has"
    ):
        load_denoiser({}, config, TASK, tmp_path / "d.safetensors")


def test_fine_tuning_goes_on_from_a_finished_training_alone_and_not_from_that_of_another_denoiser(tmp_path):
    config, work = configured(finetune="true", max_steps=4), job(tmp_path)
    with pytest.raises(UnfinishedError, match="time of dds_classifier is up at step 0 of"):
        dds.METHOD.train(config, replace(work, max_seconds=0.0))
    now = [0.0]
    late = replace(
        work,
        max_seconds=5.0,
        clock=lambda: now[0],
        report=lambda progress: now.__setitem__(0, 9.0 * (progress.stage == "dds_denoiser")),
    )
    with pytest.raises(
        CheckpointError, match=r"dds\.safetensors is of a training that was stopped after .* repeat the"
    ):
        dds.METHOD.train(config, late)
    dds.METHOD.train(config, work)
    name = dds.METHOD.checkpoint_name(config)
    assert load_checkpoint(work.folder / name)[1]["training"]["is_complete"]
    with pytest.raises(CheckpointError, match=r"other|does not continue this training \(denoiser "):
        dds.METHOD.train(
            replace(config, denoiser=str(changed(work.folder / "dds.safetensors", tmp_path))), work
        )


def changed(path, folder):
    """Return a file of ours whose denoiser is another."""
    tensors, metadata = load_checkpoint(path)
    tensors = {
        key: value + 1 if key.startswith("denoiser.") and value.is_floating_point() else value
        for key, value in tensors.items()
    }
    save_checkpoint(folder / "other.safetensors", tensors, **metadata)
    return folder / "other.safetensors"


def test_a_denoiser_of_another_schedule_than_its_file_says_is_refused(tmp_path):
    work = job(tmp_path)
    dds.METHOD.train(configured(diffusion_steps=500), work)
    with pytest.raises(
        CheckpointError, match=r"made with diffusion_steps 500, not 1000: add --set dds\.diffusion_steps=500"
    ):
        dds.METHOD.build(configured(), work.folder / "dds.safetensors")


def test_a_classifier_of_clean_images_is_told_no_noise_at_any_sigma():
    for sigma in (0.25, 1.0):
        config = registry.configure("dds", TASK, sigma, {**OPTIONS["dds"], "backbone": "vit-4"})
        assert dds.METHOD.build(config, None).classifier.sigma == 0.0
        assert dds.METHOD.build(config, None)(torch.rand(2, 1, 8, 8), sigma).isfinite().all()
