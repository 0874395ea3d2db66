"""The published presets on a virtual 80 GB card: how many calls of 540 s they take, and that every row can be VALID."""

from dataclasses import replace

import pytest
import torch

from bench.commands.cost import _limit
from bench.cost import measure
from bench.cost.plan import WHOLE_IMAGE_SECONDS, Plan
from bench.cost.presets import COST_PRESETS
from bench.cost.records import open_cost_file, read_cost_run
from bench.cost.summary import BEST, rows
from bench.methods import registry
from bench.training.architectures import Chains
from tests.support.fake_costs import HEADER, SESSION, FakeDevice
from tests.support.virtual_card import CIFAR10, IMAGENET, Card, VirtualMeasurer, sizes

SLOW = Card(float32=20e12, bfloat16=350e12)


def planned(preset, networks):
    architectures = registry.architectures(COST_PRESETS[preset].family, Chains())
    return Plan(
        architectures={name: architectures[name] for name in networks},
        settings=("float32", "bfloat16", "bfloat16-compiled"),
        batch_sizes=None,
        sweep=COST_PRESETS[preset].batch_sizes,
        device_type="cuda",
        repetitions=10,
        n0=100,
        n=COST_PRESETS[preset].samples,
        energy=True,
        first=COST_PRESETS[preset].first,
        layouts=True,
        reference="dds",
    )


def calls_of(preset, networks, card, folder, monkeypatch, limit=540.0):
    """Do calls until nothing is left, and return (seconds, rows) after each."""
    device, plan, found = FakeDevice(), planned(preset, networks), []
    monkeypatch.setattr(measure, "trial_flops", lambda *_: card.float32 / 2)
    while True:
        with open_cost_file(folder, HEADER) as file:
            file.append(replace(SESSION, created=f"call {len(found)}"))
            if not found:
                file.append(*sizes(networks, plan.architectures))
            virtual = VirtualMeasurer(networks, card, device, plan, file)
            monkeypatch.setattr(measure, "Measurer", lambda *_, virtual=virtual: virtual)
            started = device.now
            device.now += 8.0  # torch starts, networks are counted
            measurement = measure.Measurement(plan, file, device.instruments(), torch.device("cpu"), 0.5)
            done = list(measurement.steps(started, _limit(limit)))
            left = measurement.left()
        if not done:
            assert not left
            return found
        found.append((device.now - started, rows(read_cost_run(folder))))
        assert len(found) < 60


@pytest.mark.parametrize(
    ("preset", "networks", "card", "most"),
    [
        ("paper-imagenet", IMAGENET, Card(), 16),
        ("paper-imagenet", IMAGENET, SLOW, 26),
        ("paper-cifar10", CIFAR10, Card(), 6),
    ],
)
def test_a_preset_ends_in_calls_of_nine_minutes_with_every_row_valid(
    preset, networks, card, most, tmp_path, monkeypatch
):
    found = calls_of(preset, networks, card, tmp_path, monkeypatch)
    assert max(seconds for seconds, _ in found) <= 540.0
    assert len(found) <= most
    last = found[-1][1]
    assert [(row.comparison, row.size.method, row.reasons) for row in last if row.reasons] == []
    best = [row for row in last if row.comparison == BEST]
    assert {row.size.method for row in best} == networks.keys()
    assert [row.size.method for row in best if row.joules_per_sample is None] == []
    samples = 100 + min(COST_PRESETS[preset].samples)
    quick = [
        row
        for row in best
        if row.size.calls == 1 and samples / row.pair.throughput.median < WHOLE_IMAGE_SECONDS
    ]
    assert [row.size.method for row in quick if row.image_ratio is None] == []


def test_the_headline_of_imagenet_is_there_first(tmp_path, monkeypatch):
    found = calls_of("paper-imagenet", IMAGENET, Card(), tmp_path, monkeypatch)
    for _, after in found[:3]:
        verdicts = {(row.comparison, row.size.method): row.verdict for row in after}
    assert {verdict for (_, method), verdict in verdicts.items() if method in ("rrcm-b", "dds")} == {"VALID"}
