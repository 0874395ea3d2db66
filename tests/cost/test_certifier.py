"""The certifier's own cost: all three works classify the same number of samples, and ratios are paired."""

from dataclasses import replace

import pandas as pd
import pytest
import torch

from bench.cost import certifier
from bench.cost.certifier import Subject, bare_forward, plain_loop, whole_certifier
from bench.smoothing.certifier import Protocol
from bench.types import CostRecord
from tests.support.tiny import bench, image_tree


def subject(calls):
    def classify(x_noisy, sigma, keys=None):
        calls.append(len(x_noisy))
        return torch.nn.functional.one_hot(keys % 2, 2).float()

    protocol = Protocol(n0=10, n=290, alpha=0.001, seed=0)
    x = torch.full((1, 4, 4), 0.5)
    return Subject(classifier=classify, x=x, sigma=0.5, protocol=protocol, batch_size=128, num_classes=2)


@pytest.mark.parametrize("make", [bare_forward, whole_certifier, plain_loop])
def test_each_work_classifies_the_samples_of_one_certificate(make):
    calls = []
    make(subject(calls))()
    assert sum(calls) == 300
    assert max(calls) == 128


def test_the_plain_loop_counts_every_sample():
    counts = plain_loop(subject([]))()
    assert sum(counts.values()) == 300
    assert counts[0] == 150


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """Return options that name a tiny data set and a zoo trained for it."""
    image_tree(tmp_path / "data")
    data = ("--dataset", "folder", "--data-dir", tmp_path / "data", "--image-size", "8")
    sizes = ("--set", "gaussian.max_steps=2", "--set", "gaussian.batch_size=8", "--zoo", tmp_path / "zoo")
    assert bench(monkeypatch, "train", "gaussian", "--sigma", "0.5", *data, *sizes) == 0
    return (*data, *sizes, "--methods", "gaussian", "--sigma", "0.5", "--n", "50", "--n0", "10")


def test_ratios_are_paired_by_round_and_written(commands, tmp_path, monkeypatch, capsys):
    seconds = {"forward": (1.0, 2.0), "certifier": (2.0, 8.0), "reference": (8.0, 8.0)}

    def measure(contenders, **rules):
        assert rules["repetitions"] == 2
        return tuple(
            CostRecord(
                method=one.method,
                sigma=one.sigma,
                device=one.device,
                batch_size=one.batch_size,
                samples_per_repetition=one.batch_size,
                repetition_seconds=seconds[one.method],
                samples_per_certificate=one.samples_per_certificate,
                parameters=0,
            )
            for one in contenders
        )

    monkeypatch.setattr(certifier.timing, "measure", measure)
    options = (*commands, "--repetitions", "2", "--out", tmp_path / "out")
    assert bench(monkeypatch, "cost", "--certifier", *options) == 0
    row = pd.read_csv(tmp_path / "out" / "certifier.csv").iloc[0]
    assert row["certifier_over_forward_median"] == (0.5 + 0.25) / 2
    assert row["certifier_over_reference_median"] == (4 + 1) / 2
    assert row["certifier_samples_per_second_median"] == (60 / 2 + 60 / 8) / 2
    assert "bench cost --certifier" in (tmp_path / "out" / "certifier.md").read_text()


def test_the_real_measurement_gives_positive_rates(commands, tmp_path, monkeypatch):
    options = (*commands, "--repetitions", "2", "--out", tmp_path / "out")
    assert bench(monkeypatch, "cost", "--certifier", *options) == 0
    assert (pd.read_csv(tmp_path / "out" / "certifier.csv").filter(like="median") > 0).all(axis=None)


def test_operations_and_both_precisions_are_told(commands, tmp_path, monkeypatch):
    options = (*commands, "--repetitions", "1", "--out", tmp_path / "out")
    assert bench(monkeypatch, "cost", "--certifier", *options) == 0
    precise = pd.read_csv(tmp_path / "out" / "certifier.csv").iloc[0]
    low = ("--precision", "bfloat16", "--reference-precision", "float32")
    assert bench(monkeypatch, "cost", "--certifier", *options, *low) == 0
    row = pd.read_csv(tmp_path / "out" / "certifier.csv").iloc[0]
    assert (row["precision"], row["reference_precision"]) == ("bfloat16", "float32")
    assert row["flops_per_sample"] == precise["flops_per_sample"] > 1e5
    rate = row["certifier_samples_per_second_median"]
    assert row["certifier_flops_per_second"] == pytest.approx(rate * row["flops_per_sample"])


@pytest.mark.parametrize("estimation", ["skip-wrong", "sequential"])
def test_estimation_that_draws_fewer_samples_is_refused(commands, tmp_path, monkeypatch, capsys, estimation):
    options = (*commands, "--estimation", estimation, "--out", tmp_path / "out")
    assert bench(monkeypatch, "cost", "--certifier", *options) == 2
    assert (
        f"estimation is {estimation}, which draws fewer samples than are counted" in capsys.readouterr().err
    )


def test_operations_of_a_sample_are_those_of_a_hand_count():
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2))
    one = replace(subject([]), classifier=lambda x_noisy, sigma, keys=None: network(x_noisy))
    assert certifier._flops(one) == 2 * 16 * 2


def test_the_folder_is_named_after_the_device():
    assert certifier.default_folder("AMD EPYC, 2 threads").name == "amd-epyc-2-threads"
