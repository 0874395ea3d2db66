"""The encoder, losses and schedules against tensors made by the released programs."""

import json
import os
import re
from pathlib import Path

import pytest
import safetensors
import torch
from safetensors.torch import load_file

from bench.smoothing import sigma
from bench.smoothing.sigma import karras_grid, nearest_time
from bench.training.loop import rate_scale
from rrcm import heads, schedule
from rrcm.encoder import Encoder, EncoderConfig
from rrcm.finetune import Recipe, in_steps
from rrcm.heads import Classifier
from rrcm.losses import TEMPERATURE, Views, consistency_loss, contrastive_loss, info_nce
from rrcm.schedule import num_scales, target_rate

GOLDEN = Path(os.environ.get("GOLDEN_DIR", Path(__file__).parents[3] / "shared" / "golden"))

pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"no reference tensors at {GOLDEN}")


VITS, CLASSIFIERS = "rrcm_vit_*.safetensors", "rrcm_classifier_*.safetensors"


class Watched(dict):
    """A dict that remembers which of its entries were looked at, in the dicts inside it as well."""

    def __init__(self, values):
        super().__init__(
            {key: Watched(value) if isinstance(value, dict) else value for key, value in values.items()}
        )
        self.seen = set()

    def __getitem__(self, key):
        self.seen.add(key)
        return super().__getitem__(key)

    def part(self, prefix):
        return {name.removeprefix(prefix): self[name] for name in self if name.startswith(prefix)}

    def unseen(self):
        inner = [
            f"{key}.{name}"
            for key, value in self.items()
            if isinstance(value, Watched)
            for name in value.unseen()
        ]
        return sorted({*self} - self.seen) + inner


def read(path):
    with safetensors.safe_open(path, "pt") as file:
        metadata = {key: json.loads(value) for key, value in file.metadata().items()}
    return Watched({"tensors": load_file(path), "metadata": metadata})


def encoder(config, weights):
    network = Encoder(EncoderConfig(**{name: config[name] for name in config}))
    network.load_state_dict(weights)
    return network


def files(pattern):
    return sorted(GOLDEN.glob(pattern)) if GOLDEN.is_dir() else []


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))


@pytest.fixture
def use(monkeypatch):
    """Return what sets our constants to those that a file's metadata says."""

    def set_constants(metadata):
        for name in ("sigma_data", "sigma_min", "rho"):
            monkeypatch.setattr(sigma, name.upper(), metadata[name])
        monkeypatch.setattr(info_nce, "__defaults__", (metadata["tau"],))

    return set_constants


def test_our_constants_are_the_papers():
    ours = (TEMPERATURE, sigma.SIGMA_DATA, sigma.SIGMA_MIN, sigma.SIGMA_MAX, sigma.RHO)
    assert (ours, info_nce.__defaults__) == ((0.2, 0.5, 0.002, 80, 7), (0.2,))
    assert (schedule.START_SCALES, schedule.END_SCALES, schedule.FINE_TUNING_SCALES) == (20, 80, 81)


def check_outputs(file):
    tensors = file["tensors"]
    network = encoder(file["metadata"]["config"], tensors.part("nnet.")).eval()
    h = network(tensors["in.x_t"], tensors["in.t"])
    close(h, tensors["out.cls_token"])
    close(network.project(h), tensors["out.projection"])


def check_losses(file):
    tensors, metadata = file["tensors"], file["metadata"]
    online = encoder(metadata["config"], tensors.part("nnet.")).train()
    target = encoder(metadata["config"], tensors.part("target.")).train()
    grid = karras_grid(metadata["num_scales"], metadata["sigma_max"])
    index = int(tensors["loss.index"])
    views = Views(
        a=tensors["loss.x_aug1"],
        b=tensors["loss.x_aug2"],
        plain=tensors["loss.x"],
        noise=tensors["loss.noise"],
    )
    contrastive = contrastive_loss(online, target, views, float(grid[-1]))
    consistency = consistency_loss(online, views, float(grid[index]), float(grid[index + 1]))
    close(contrastive, tensors["loss.contrastive"])
    close(consistency, tensors["loss.consistency"])
    close(contrastive + consistency, tensors["loss.total"])
    (contrastive + consistency).mean().backward()
    close(online.pos_embed.grad, tensors["loss.grad.pos_embed"])
    close(online.blocks[0].attn.qkv.weight.grad, tensors["loss.grad.qkv0"])
    assert all(parameter.grad is None for parameter in target.parameters())


@pytest.mark.parametrize("path", files(VITS), ids=lambda path: path.stem)
@pytest.mark.parametrize("check", [check_outputs, check_losses], ids=lambda check: check.__name__)
def test_encoder_losses_and_gradients_reproduce_released_ones(path, check, use):
    file = read(path)
    use(file["metadata"])
    check(file)


def sigmas(tensors):
    return [name.removeprefix("in.noise_") for name in tensors if name.startswith("in.noise_")]


def check_classifier(file, monkeypatch):
    tensors, metadata = file["tensors"], file["metadata"]
    monkeypatch.setattr(heads, "FINE_TUNING_SCALES", metadata["num_scales"])
    head = tensors.part("linear_head.")
    network = encoder(metadata["config"], tensors.part("base_model."))
    classifier = Classifier(network, num_classes=len(head["bias"]), layernorm=metadata["layernorm"]).eval()
    classifier.linear_head.load_state_dict(head)
    assert sigmas(tensors)
    for name in sigmas(tensors):
        index, sigma = int(tensors[f"out.nearest_index_{name}"]), float(name)
        assert nearest_time(sigma, metadata["num_scales"]) == karras_grid(metadata["num_scales"])[index]
        close(
            classifier(tensors["in.image"] + tensors[f"in.noise_{name}"], sigma),
            tensors[f"out.logits_{name}"],
        )


@pytest.mark.parametrize("path", files(CLASSIFIERS), ids=lambda path: path.stem)
def test_classifier_reproduces_released_logits_and_grid_points(path, monkeypatch):
    check_classifier(read(path), monkeypatch)


def schedules():
    path = GOLDEN / "rrcm_schedules.json"
    return Watched(json.loads(path.read_text())) if path.is_file() else {}


def check_curriculum(recorded, monkeypatch):
    args = recorded["args"]
    assert (args["target_ema_mode"], args["scale_mode"]) == ("sigmoid", "icm")
    for name in ("start_scales", "end_scales"):
        monkeypatch.setattr(schedule, name.upper(), args[name])
    rising = args["target_ema_A"], args["start_ema"], args["end_ema"]
    for step, rate, scales in zip(
        recorded["steps"], recorded["target_ema"], recorded["num_scales"], strict=True
    ):
        assert target_rate(step, args["ema_decay_steps"], *rising) == pytest.approx(rate, rel=1e-9)
        assert num_scales(step, args["total_steps"]) == scales


def check_fine_tuning_rate(recorded, _):
    warmup, total = recorded["args"]["warmup"], recorded["args"]["total"]
    recipe = in_steps(Recipe(schedule="cosine", epochs=total, warmup_epochs=warmup, batch_size=5), 10)
    for epoch, scale in zip(recorded["steps"], recorded["scale"], strict=True):
        assert rate_scale(2 * epoch + 1, recipe) == pytest.approx(scale, rel=1e-9, abs=1e-9)


def check_grid(recorded, _):
    """The released grid is float64 rounded to float32."""
    ours = karras_grid(len(recorded)).float().double()
    torch.testing.assert_close(ours, torch.tensor(recorded, dtype=torch.float64), rtol=1e-9, atol=0)


SCHEDULES = {
    r".*_pretrain": check_curriculum,
    r"finetune_lr": check_fine_tuning_rate,
    r"karras_sigmas_\d+": check_grid,
}


@pytest.mark.parametrize("name", schedules())
def test_schedules_reproduce_released_ones_and_none_is_left_out(name, monkeypatch):
    recorded = schedules()[name]
    (check,) = (check for pattern, check in SCHEDULES.items() if re.fullmatch(pattern, name))
    check(recorded, monkeypatch)
    if isinstance(recorded, Watched):
        assert recorded.unseen() == []
    else:
        assert len(recorded) == int(name.rsplit("_", 1)[1])


@pytest.mark.parametrize("path", files("rrcm_*.safetensors"), ids=lambda path: path.stem)
def test_nothing_in_a_file_is_left_unlooked_at(path, use, monkeypatch):
    file = read(path)
    if path.match(CLASSIFIERS):
        check_classifier(file, monkeypatch)
    elif path.match(VITS):
        use(file["metadata"])
        check_outputs(file)
        check_losses(file)
    assert file.unseen() == []


def test_every_file_of_the_method_is_looked_at():
    kinds = (VITS, CLASSIFIERS, "rrcm_schedules.json")
    assert {path for kind in kinds for path in files(kind)} == set(files("rrcm_*"))
