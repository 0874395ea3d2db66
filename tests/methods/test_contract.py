"""What every method of the registry owes the harness."""

import re
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bench.errors import CheckpointError
from bench.methods import registry
from tests.support.tiny import OPTIONS, TASK, job

METHODS = ["rrcm", "gaussian", "consistency", "dds", "consistency-model", "smoothadv", "macer"]


def configured(name):
    return registry.configure(name, TASK, 0.5, OPTIONS[name])


@pytest.fixture(params=METHODS)
def trained(request, tmp_path):
    module, config = registry.load(request.param), configured(request.param)
    work = job(tmp_path)
    module.train(config, work)
    return module, config, work.folder / module.checkpoint_name(config)


def test_training_writes_the_checkpoint_that_build_loads(trained):
    module, config, path = trained
    classifier = module.build(config, path)
    x_noisy = torch.rand(5, 1, 8, 8)
    logits = classifier(x_noisy, 0.5, torch.arange(5))
    assert logits.shape == (5, 2)
    torch.testing.assert_close(classifier(x_noisy[:2], 0.5), logits[:2], rtol=1e-4, atol=1e-5)
    assert not torch.equal(module.build(config, None)(x_noisy, 0.5), logits)


def test_truncated_checkpoint_is_refused(trained):
    module, config, path = trained
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        module.build(config, path)


class SizesFromValues(TorchDispatchMode):
    """Collects what is chosen by a mask, whose size a GPU has to be waited for."""

    def __init__(self):
        super().__init__()
        self.found = set()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        chosen = args[1] if operation is torch.ops.aten.index.Tensor else ()
        if any(index is not None and index.dtype == torch.bool for index in chosen):
            self.found.add(str(operation))
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", METHODS)
def test_no_training_step_waits_for_the_size_of_what_it_computes(name, tmp_path):
    with SizesFromValues() as sizes:
        registry.load(name).train(configured(name), job(tmp_path))
    assert sizes.found == set()


def test_training_twice_gives_the_same_weights(tmp_path):
    files = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        work = job(folder)
        registry.load("rrcm").train(configured("rrcm"), work)
        config = configured("rrcm")
        files.append(
            registry.load("rrcm").build(config, work.folder / "rrcm_sigma_0.5.safetensors").state_dict()
        )
    assert all(torch.equal(files[0][name], files[1][name]) for name in files[0])


def test_rrcm_pre_trains_once_for_all_sigmas(tmp_path):
    work = job(tmp_path)
    module, config = registry.load("rrcm"), configured("rrcm")
    module.train(config, work)
    encoder = work.folder / "rrcm_pretrained.safetensors"
    before = encoder.stat().st_mtime_ns
    module.train(registry.configure("rrcm", TASK, 1.0, OPTIONS["rrcm"]), work)
    assert encoder.stat().st_mtime_ns == before
    assert (work.folder / "rrcm_sigma_1.safetensors").exists()


def test_every_method_has_a_section_on_the_page_of_methods():
    page = (Path(__file__).parents[2] / "baselines" / "README.md").read_text()
    ours = {
        entry.name for entry in registry.methods().values() if entry.module.startswith(("baselines", "rrcm"))
    }
    assert ours <= set(re.findall(r"^## (\S+)$", page, re.MULTILINE))
