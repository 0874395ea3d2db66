"""Classifiers of the transformers library, which is not needed otherwise: a stand-in for it is enough here."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

from baselines.parts.external import load_classifier
from bench.errors import CheckpointError, UsageError
from bench.types import Task

COLOUR = Task(dataset="tiny", channels=3, image_size=8, num_classes=2)


class Echo(nn.Module):
    """Answers the first two values of what it sees."""

    def __init__(self, labels=2):
        super().__init__()
        self.config = SimpleNamespace(num_labels=labels, num_channels=3)

    def forward(self, x):
        self.shape = tuple(x.shape)
        return SimpleNamespace(logits=x.flatten(1)[:, :2])


def processor(**changes):
    values = {"do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    return SimpleNamespace(**(values | {"size": {"height": 4, "width": 6}} | changes))


@pytest.fixture
def library(monkeypatch):
    """A stand-in for transformers; its `network`, `processor` and `error` are what the next call gives."""
    module = ModuleType("transformers")
    module.network, module.processor, module.asked = Echo(), processor(), []

    def network(source, **options):
        module.asked.append((source, options))
        if source == "missing":
            raise OSError("no such repository\nsecond line")
        return module.network

    def processor_of(source, **options):
        module.asked.append((source, options))
        return module.processor

    module.AutoModelForImageClassification = SimpleNamespace(from_pretrained=network)
    module.AutoImageProcessor = SimpleNamespace(from_pretrained=processor_of)
    monkeypatch.setitem(sys.modules, "transformers", module)
    return module


def test_classifier_sees_its_own_size_normalised_and_neither_pickles_nor_code_are_read(library):
    classifier = load_classifier("transformers:owner/name", "", COLOUR)
    logits = classifier(torch.full((1, 3, 8, 8), 0.75))
    torch.testing.assert_close(logits, torch.ones(1, 2))
    assert library.network.shape == (1, 3, 4, 6)
    no_code = {"trust_remote_code": False}
    assert library.asked == [("owner/name", {"use_safetensors": True, **no_code}), ("owner/name", no_code)]


@pytest.mark.parametrize(
    ("changes", "size"),
    [
        ({"size": {"shortest_edge": 5}}, (5, 5)),
        ({"do_center_crop": True, "crop_size": {"height": 3, "width": 3}}, (3, 3)),
        ({"do_center_crop": False, "crop_size": {"height": 3, "width": 3}}, (4, 6)),
    ],
)
def test_input_size_is_that_of_the_crop_or_of_the_resizing(library, changes, size):
    library.processor = processor(**changes)
    assert load_classifier("transformers:a", "", COLOUR).resize.size == size


def test_processor_that_does_not_normalise_leaves_pixels_as_they_are(library):
    library.processor = processor(do_normalize=False, size={"height": 8, "width": 8})
    x = torch.rand(1, 3, 8, 8)
    assert torch.equal(load_classifier("transformers:a", "", COLOUR)(x), x.flatten(1)[:, :2])


def test_classifier_that_does_not_fit_or_cannot_be_read_is_refused(library):
    with pytest.raises(CheckpointError, match=r"^transformers:missing cannot be read: no such repository$"):
        load_classifier("transformers:missing", "", COLOUR)
    with pytest.raises(UsageError, match="brings its own weights; leave classifier_checkpoint out"):
        load_classifier("transformers:a", "file.pt", COLOUR)
    library.network = Echo(labels=5)
    with pytest.raises(UsageError, match="has 5 classes and 3 channels, but the data set has 2 and 3"):
        load_classifier("transformers:a", "", COLOUR)


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UsageError, match=r"pip install 'rrcm-bench\[transformers\]'"):
        load_classifier("transformers:a", "", COLOUR)
