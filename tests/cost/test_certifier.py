"""The certifier's own cost: all three works classify the same number of samples, and ratios are paired."""

import pandas as pd
import pytest
import torch

from bench.cost import certifier
from bench.cost.certifier import CertifierCost, cost_frame, flops_of, folder_name, forward_pass, plain_loop
from bench.cost.work import certificate
from bench.runs.stream import Stream
from bench.smoothing.certifier import Smoothed
from bench.types import Protocol
from tests.support.tiny import bench, image_tree

PROTOCOL = Protocol(n0=10, n=290, alpha=0.001, seed=0)


def stream(classify):
    smoothed = Smoothed(classifier=classify, sigma=0.5, num_classes=2, batch_size=128)
    return Stream(smoothed=smoothed, images=torch.full((1, 1, 4, 4), 0.5))


def by_keys(x_noisy, sigma, keys=None):
    return torch.nn.functional.one_hot(keys % 2, 2).float()


@pytest.mark.parametrize(
    "make",
    [
        lambda one: forward_pass(one, 300, 128),
        lambda one: certificate(one, PROTOCOL, 128),
        lambda one: plain_loop(one, 300, 128),
    ],
)
def test_each_work_classifies_the_samples_of_one_certificate(make):
    calls = []

    def classify(x_noisy, sigma, keys=None):
        calls.append(len(x_noisy))
        return by_keys(x_noisy, sigma, keys)

    work = make(stream(classify))
    work.batch()
    assert work.size == sum(calls) == 300
    assert max(calls) == 128


def test_the_plain_loop_counts_every_sample():
    assert plain_loop(stream(by_keys), 300, 128).batch() == {0: 150, 1: 150}


def test_ratios_are_paired_by_round():
    cost = CertifierCost(
        method="gaussian",
        sigma=0.5,
        batch_size=8,
        samples=60,
        seconds={"forward": [1.0, 2.0], "certifier": [2.0, 8.0], "reference": [8.0, 8.0]},
        flops=10,
        precision="float32",
        reference="float32",
        peak=None,
    )
    row = cost_frame([cost]).iloc[0]
    assert row["repetitions"] == 2
    assert row["certifier_over_forward_median"] == (0.5 + 0.25) / 2
    assert row["certifier_over_reference_median"] == (4 + 1) / 2
    assert row["certifier_samples_per_second_median"] == (60 / 2 + 60 / 8) / 2


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    """Return options that name a tiny data set and a zoo trained for it."""
    root = tmp_path_factory.mktemp("trained")
    image_tree(root / "data")
    data = ("--dataset", "folder", "--data-dir", root / "data", "--image-size", "8")
    sizes = ("--set", "gaussian.max_steps=2", "--set", "gaussian.batch_size=8", "--zoo", root / "zoo")
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert bench(monkeypatch, "train", "gaussian", "--sigma", "0.5", *data, *sizes) == 0
    return (*data, *sizes, "--methods", "gaussian", "--sigma", "0.5", "--n", "50", "--n0", "10")


def test_rates_operations_and_both_precisions_are_measured_and_told(commands, tmp_path, monkeypatch):
    options = (*commands, "--repetitions", "2", "--out", tmp_path / "out")
    low = ("--precision", "bfloat16", "--reference-precision", "float32")
    rows = []
    for precision in ((), low):
        assert bench(monkeypatch, "cost", "--certifier", *options, *precision) == 0
        rows.append(pd.read_csv(tmp_path / "out" / "certifier.csv").iloc[0])
        assert (rows[-1].filter(like="median") > 0).all()
    precise, row = rows
    assert (row["precision"], row["reference_precision"]) == ("bfloat16", "float32")
    assert row["flops_per_sample"] == precise["flops_per_sample"] > 1e5
    rate = row["certifier_samples_per_second_median"]
    assert row["certifier_flops_per_second"] == pytest.approx(rate * row["flops_per_sample"])
    assert "bench cost --certifier" in (tmp_path / "out" / "certifier.md").read_text()


def test_estimation_that_draws_fewer_samples_is_refused(commands, tmp_path, monkeypatch, capsys):
    options = (*commands, "--estimation", "sequential", "--out", tmp_path / "out")
    assert bench(monkeypatch, "cost", "--certifier", *options) == 2
    message = "estimation is sequential, which draws fewer samples than are counted"
    assert message in capsys.readouterr().err


def test_operations_of_a_sample_are_those_of_a_hand_count():
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2))
    assert flops_of(stream(lambda x_noisy, sigma, keys=None: network(x_noisy))) == 2 * 16 * 2


def test_the_folder_is_named_after_the_device():
    assert folder_name("AMD EPYC, 2 threads") == "amd-epyc-2-threads"


def test_a_repetition_has_as_many_images_as_a_run_certifies_together(commands, tmp_path, monkeypatch):
    """On an accelerator, where the samples of one image leave batches half empty."""
    monkeypatch.setattr("bench.cost.certifier.group_size", lambda setup, size: 3)
    sizes = []
    whole = certifier.certificate
    monkeypatch.setattr(
        certifier, "certificate", lambda *given, **options: sizes.append(options) or whole(*given, **options)
    )
    options = (*commands, "--repetitions", "1", "--out", tmp_path / "out")
    assert bench(monkeypatch, "cost", "--certifier", *options) == 0
    assert pd.read_csv(tmp_path / "out" / "certifier.csv").iloc[0]["samples"] == 3 * (10 + 50)
    assert sizes[0]["images"] == 3


def test_the_forward_pass_is_filled_up_as_the_certifier_is(commands, tmp_path, monkeypatch):
    monkeypatch.setattr("bench.runs.workbench.compiled", lambda classifier, how: classifier)
    told = []
    whole = certifier.forward_pass
    monkeypatch.setattr(
        certifier, "forward_pass", lambda *given, **options: told.append(options) or whole(*given, **options)
    )
    options = (*commands, "--repetitions", "1", "--out", tmp_path / "out", "--compile", "default")
    assert bench(monkeypatch, "cost", "--certifier", *options) == 0
    assert told == [{"is_filled": True}]


def test_a_network_compiled_for_one_size_sees_it_alone_in_the_forward_pass_too():
    seen = []

    def classify(x_noisy, sigma, keys=None):
        seen.append(len(x_noisy))
        return x_noisy.flatten(1)[:, :2]

    for is_filled, expected in ((True, {4}), (False, {4, 2})):
        seen.clear()
        forward_pass(stream(classify), 10, 4, is_filled=is_filled).batch()
        assert set(seen) == expected
