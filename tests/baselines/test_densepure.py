"""DensePure: votes of several reverse chains, the same whatever the batch."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from baselines import dds, densepure
from baselines.densepure import Config, DensePure
from baselines.purifiers.denoised import DenoisedClassifier
from bench.errors import UsageError
from bench.methods import registry
from bench.types import Protocol
from tests.support.smoothing import certify
from tests.support.tiny import OPTIONS, TASK, job

SIZES = {"channels": (8, 8)}


def images(count=6):
    return torch.rand((count, 1, 8, 8), generator=torch.Generator().manual_seed(0))


def method(**options):
    torch.manual_seed(0)
    return densepure.METHOD.build(Config(task=TASK, sigma=0.5, **SIZES, **options), None)


def twin(**options):
    torch.manual_seed(0)
    return dds.METHOD.build(dds.Config(task=TASK, sigma=0.5, **SIZES, **options), None)


class Halves(nn.Module):
    """Logits that tell the two classes apart by the brightness of the noisiest pixel, so that chains disagree."""

    def forward(self, x):
        bright = x[:, 0, 0, 0] - 0.5
        return torch.stack([-bright, bright], dim=1)


def undecided(votes=7, **options):
    shaky = method(votes=votes, reverse_steps=3, **options)
    shaky.pair.classifier = Halves()
    return shaky


def test_one_vote_of_one_step_gives_the_classes_of_dds():
    classes = twin()(images(), 0.5).argmax(1)
    assert torch.equal(method(votes=1, reverse_steps=1)(images(), 0.5).argmax(1), classes)


def test_one_vote_of_several_steps_gives_the_classes_of_dds_with_that_chain():
    ours, theirs = method(votes=1, reverse_steps=4), twin(reverse_steps=4)
    ours.pair.classifier = theirs.classifier = Halves()
    keys = torch.arange(6)
    assert torch.equal(ours(images(), 0.5, keys).argmax(1), theirs(images(), 0.5, keys).argmax(1))


def test_shares_are_the_counted_classes_of_the_chains():
    shaky, keys = undecided(), torch.arange(6)
    shares = shaky(images(), 0.5, keys)
    chains = [shaky.pair(images(), 0.5, densepure.chain_keys(keys, chain)).argmax(1) for chain in range(7)]
    expected = torch.stack(chains).float().mean(0)
    torch.testing.assert_close(shares, torch.stack([1 - expected, expected], dim=1))
    assert ((shares > 0) & (shares < 1)).any()


def test_votes_do_not_depend_on_the_batch():
    shaky, keys = undecided(), torch.arange(100, 106)
    together = shaky(images(), 0.5, keys)
    alone = torch.cat([shaky(images()[i : i + 1], 0.5, keys[i : i + 1]) for i in (4, 1)])
    assert torch.equal(together[[4, 1]], alone)
    assert not torch.equal(shaky(images(), 0.5, keys + 1000), together)


def test_a_certificate_does_not_depend_on_the_batch_size():
    counts = [
        certify(
            undecided(votes=2),
            images()[0],
            sigma=0.5,
            index=2,
            protocol=Protocol(n0=20, n=30, alpha=0.001, seed=0),
            batch_size=batch_size,
            num_classes=2,
        )
        for batch_size in (16, 128)
    ]
    assert counts[0] == counts[1]
    assert len(counts[0].counts_estimation) == 2


def test_a_chain_that_is_not_finite_spoils_its_sample_alone():
    broken = DensePure(
        DenoisedClassifier(twin().denoiser, nn.Sequential(nn.Flatten(), nn.Linear(64, 2))), votes=2
    )
    x = images()
    x[2] = torch.nan
    assert broken(x, 0.5).isnan().all(1).tolist() == [False, False, True, False, False, False]


def test_checkpoint_is_that_of_dds(tmp_path):
    config = Config(task=TASK, sigma=0.5, **OPTIONS["dds"])
    densepure.METHOD.train(config, work := job(tmp_path))
    name = dds.METHOD.checkpoint_name(dds.Config(task=TASK, sigma=0.5, **OPTIONS["dds"]))
    assert densepure.METHOD.checkpoint_name(config) == name
    ours = densepure.METHOD.build(replace(config, votes=1, reverse_steps=1), work.folder / name)
    theirs = dds.METHOD.build(dds.Config(task=TASK, sigma=0.5, **OPTIONS["dds"]), work.folder / name)
    assert torch.equal(ours(images(), 0.5).argmax(1), theirs(images(), 0.5).argmax(1))


def test_fewer_votes_than_one_are_refused():
    with pytest.raises(UsageError, match="votes is 0, expected at least 1"):
        registry.configure("densepure", TASK, 0.5, {"votes": 0})


def test_keys_of_a_chain_are_one_for_each_sample_and_are_made_on_their_device():
    keys = torch.arange(10_000) * 7919 + 2**62
    chains = torch.cat([densepure.chain_keys(keys, chain) for chain in range(10)])
    assert len(chains.unique()) == 100_000
    assert densepure.chain_keys(torch.empty(3, dtype=torch.int64, device="meta"), 1).device.type == "meta"
