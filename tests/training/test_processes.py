"""Two processes with half a batch each do what one does with the whole: loss, gradients, statistics, training."""

import dataclasses
import math
import sys
import time
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save
from torch import nn

from bench.errors import UsageError
from bench.methods import registry
from bench.training import checkpoints, curves, processes
from bench.training.batches import Loader
from bench.training.loop import Recipe, Supervised, fit
from rrcm import model
from rrcm.encoder import Encoder, EncoderConfig
from rrcm.losses import Views, consistency_loss, contrastive_loss, info_nce
from tests.support.tiny import OPTIONS, TASK, bench, job

SIZES = EncoderConfig(
    image_size=8, patch_size=4, in_channels=1, embed_dim=16, depth=1, num_heads=2, hidden_dim=8, output_dim=8
)
RECIPE = Recipe(max_steps=6, batch_size=8, evaluate_every=2, warmup_steps=1, clip=0.5, schedule="constant")
CLOSE = {"rtol": 1e-3, "atol": 1e-4}
# The class token starts near 0, where the first LayerNorm multiplies what sums of floats differ by.


def generator():
    return torch.Generator().manual_seed(0)


def pre_training_step():
    """Return the loss, the gradients and the running statistics of one step on this process's share of 8 images."""
    a, b, plain, noise = (processes.share(x) for x in torch.rand((4, 8, 1, 8, 8), generator=generator()))
    views = Views(a=a, b=b, plain=plain, noise=noise)
    torch.manual_seed(0)
    online, target = Encoder(SIZES), Encoder(SIZES)
    for network in (online, target):
        processes.share_statistics(network)
    loss = (contrastive_loss(online, target, views, 0.002) + consistency_loss(online, views, 2.0, 1.5)).mean()
    loss.backward()
    processes.average_gradients(online.parameters())
    gradients = {name: parameter.grad for name, parameter in online.named_parameters()}
    return processes.mean(loss), gradients, dict(target.named_buffers())


def gradient_through_keys():
    """Return the gradient of weights that make both queries and keys."""
    weight = nn.Parameter(torch.randn(4, 4, generator=generator()))
    rows = processes.share(torch.randn(8, 4, generator=generator()))
    info_nce(rows, rows @ weight).mean().backward()
    processes.average_gradients([weight])
    return weight.grad


class Objective(Supervised):
    """A linear classifier whose loss is not finite at step 3 in the last process, scored higher by that process."""

    def __init__(self):
        torch.manual_seed(0)
        super().__init__(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 2)))

    def loss(self, batch):
        loss = nn.functional.cross_entropy(self.network(batch.x), batch.labels)
        is_last = processes.rank() == processes.count() - 1
        return loss * math.nan if batch.step == 3 and is_last else loss

    def score(self, average):
        return float(average[1].num_batches_tracked) + processes.rank()


def training(folder):
    """Return what a short training ends with."""
    objective = Objective()
    fitted = fit("stage", objective, RECIPE, job(folder))
    return objective.network.state_dict(), fitted.network.state_dict(), fitted.score, fitted.skipped


def draws(folder):
    """Return a draw of what all images have in common, and one of what they have not."""
    batch = Loader(job(folder), 8).batch(0)
    return torch.rand(3, generator=batch.shared), torch.rand(3, generator=batch.generator)


def refusal(folder):
    """Return what is said of a batch that two processes cannot share."""
    with pytest.raises(UsageError) as refused:
        Loader(job(folder), 7).batch(0)
    return str(refused.value)


def both_stages(folder):
    """Return what pre-training and fine-tuning in one call make, the first process writing slowly."""

    def slowly(*arguments):
        time.sleep(0.5)
        return save(*arguments)

    checkpoints.save = slowly
    job_of_both = job(folder / "both")
    config = registry.configure("rrcm", TASK, 0.5, OPTIONS["rrcm"])
    model.train(config, job_of_both)
    return load_file(job_of_both.folder / model.checkpoint_name(config))


def work(rank, folder):
    """Be one of two processes, and write down what it found."""
    torch.set_num_threads(1)
    store = f"file://{folder / 'store'}"
    dist.init_process_group(
        "gloo", init_method=store, rank=rank, world_size=2, timeout=timedelta(seconds=120)
    )
    found = {
        "step": pre_training_step(),
        "keys": gradient_through_keys(),
        "training": training(folder),
        "draws": draws(folder),
        "refusal": refusal(folder),
        "stages": both_stages(folder),
    }
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("two")


@pytest.fixture(scope="module")
def two(folder):
    """What each of two processes found."""
    torch.multiprocessing.spawn(work, (folder,), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def test_loss_gradients_and_statistics_are_those_of_the_whole_batch(two):
    loss, gradients, statistics = pre_training_step()
    for found in two:
        torch.testing.assert_close(found["step"], (loss.detach(), gradients, statistics), **CLOSE)
    assert gradients["pos_embed"].abs().max() > 1e-3


def test_keys_of_other_processes_carry_gradients(two):
    expected = gradient_through_keys()
    for found in two:
        torch.testing.assert_close(found["keys"], expected, **CLOSE)
    assert expected.abs().max() > 1e-3


def test_fine_tuning_waits_for_the_encoder_that_the_first_process_writes(two):
    first, second = (found["stages"] for found in two)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_training_takes_the_steps_of_one_process_and_agrees_on_what_to_skip(two, folder, tmp_path):
    whole = training(tmp_path)
    for found in two:
        torch.testing.assert_close(found["training"][:2], whole[:2], **CLOSE)
        assert found["training"][2:] == whole[2:] == (5.0, 1)
    first, second = (found["training"][:2] for found in two)
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    ours, theirs = (
        [
            dataclasses.replace(look, seconds=0, loss=0, waiting=0)
            for look in curves.read(path / "state" / "stage.csv")
        ]
        for path in (tmp_path, folder)
    )
    assert theirs == ours


def test_processes_share_the_draws_of_the_batch_and_no_others(two):
    (shared, own), (shared_too, other) = (found["draws"] for found in two)
    assert torch.equal(shared, shared_too)
    assert len({tuple(draw.tolist()) for draw in (shared, own, other)}) == 3


def test_a_batch_that_cannot_be_shared_is_refused(two):
    for found in two:
        assert found["refusal"].startswith("7 images cannot be shared by 2 processes")


def test_several_processes_need_accelerate(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "accelerate", None)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert bench(monkeypatch, "train", "rrcm") == 2
    assert "2 processes were started, but accelerate is missing: pip install 'rrcm-bench[distributed]'" in (
        capsys.readouterr().err
    )


def test_processes_that_train_together_have_a_gpu_each(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert bench(monkeypatch, "train", "rrcm", "--device", "cuda:0") == 2
    assert "--device cuda:0 gives all of them one GPU: use cuda" in capsys.readouterr().err


def test_float16_trains_with_a_scaled_loss_and_resumes(tmp_path):
    recipe = dataclasses.replace(RECIPE, precision="float16", nonfinite_limit=20)
    whole = fit("stage", Objective(), recipe, job(tmp_path / "whole"))
    fit("stage", Objective(), dataclasses.replace(recipe, max_steps=4), job(tmp_path / "parts"))
    resumed = fit("stage", Objective(), recipe, job(tmp_path / "parts"))
    for ours, theirs in zip(resumed.network.parameters(), whole.network.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert whole.skipped < 6


def test_torchs_own_batch_norm_serves_gpus_with_the_parameters_and_buffers_of_ours():
    norm = nn.BatchNorm2d(3).eval()
    shared = processes.shared_batch_norm(norm, torch.device("cuda"))
    assert isinstance(shared, nn.SyncBatchNorm)
    assert not shared.training
    assert all(ours is theirs for ours, theirs in zip(shared.parameters(), norm.parameters(), strict=True))
    assert shared.state_dict().keys() == norm.state_dict().keys()
    assert isinstance(processes.shared_batch_norm(norm, torch.device("cpu")), processes.SharedBatchNorm)
