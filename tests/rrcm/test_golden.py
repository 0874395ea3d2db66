"""The encoder, losses and schedules against tensors made by the released programs."""

import json
import os
from pathlib import Path

import pytest
import safetensors
import torch
from safetensors.torch import load_file

from bench.noise import karras_grid
from bench.train import rate_scale
from rrcm.encoder import Encoder, EncoderConfig
from rrcm.finetune import Recipe, in_steps
from rrcm.heads import Classifier
from rrcm.losses import Views, consistency_loss, contrastive_loss
from rrcm.schedule import num_scales, target_rate

GOLDEN = Path(os.environ.get("GOLDEN_DIR", Path(__file__).parents[3] / "shared" / "golden"))

pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"no reference tensors at {GOLDEN}")


def read(path):
    with safetensors.safe_open(path, "pt") as file:
        metadata = {key: json.loads(value) for key, value in file.metadata().items()}
    return load_file(path), metadata


def part(tensors, prefix):
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def encoder(config, weights):
    network = Encoder(EncoderConfig(**config))
    network.load_state_dict(weights)
    return network


def files(pattern):
    return sorted(GOLDEN.glob(pattern)) if GOLDEN.is_dir() else []


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))


@pytest.mark.parametrize("path", files("rrcm_vit_*.safetensors"), ids=lambda path: path.stem)
def test_encoder_reproduces_released_outputs(path):
    tensors, metadata = read(path)
    network = encoder(metadata["config"], part(tensors, "nnet.")).eval()
    h = network(tensors["in.x_t"], tensors["in.t"])
    close(h, tensors["out.cls_token"])
    close(network.project(h), tensors["out.projection"])


@pytest.mark.parametrize("path", files("rrcm_vit_*.safetensors"), ids=lambda path: path.stem)
def test_losses_and_gradients_reproduce_released_ones(path):
    tensors, metadata = read(path)
    online = encoder(metadata["config"], part(tensors, "nnet.")).train()
    target = encoder(metadata["config"], part(tensors, "target.")).train()
    grid = karras_grid(metadata["num_scales"])
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
    (contrastive + consistency).mean().backward()
    close(online.pos_embed.grad, tensors["loss.grad.pos_embed"])
    close(online.blocks[0].attn.qkv.weight.grad, tensors["loss.grad.qkv0"])
    assert all(parameter.grad is None for parameter in target.parameters())


@pytest.mark.parametrize("path", files("rrcm_classifier_*.safetensors"), ids=lambda path: path.stem)
@pytest.mark.parametrize("sigma", [0.25, 0.5, 1.0])
def test_classifier_reproduces_released_logits(path, sigma):
    tensors, metadata = read(path)
    network = Encoder(EncoderConfig(**metadata["config"]))
    classifier = Classifier(
        network, num_classes=len(tensors["linear_head.bias"]), layernorm=metadata["layernorm"]
    )
    weights = {name: tensors[name] for name in classifier.state_dict()}
    classifier.load_state_dict(weights)
    logits = classifier.eval()(tensors["in.image"] + tensors[f"in.noise_{sigma}"], sigma)
    close(logits, tensors[f"out.logits_{sigma}"])


def test_schedules_reproduce_released_ones():
    path = GOLDEN / "rrcm_schedules.json"
    for name, recorded in json.loads(path.read_text()).items():
        if not name.endswith("_pretrain"):
            continue
        total, sharpness = recorded["args"]["total_steps"], recorded["args"]["target_ema_A"]
        for step, rate, scales in zip(
            recorded["steps"], recorded["target_ema"], recorded["num_scales"], strict=True
        ):
            assert target_rate(step, total, sharpness) == pytest.approx(rate, abs=1e-9)
            assert num_scales(step, total) == scales


def test_fine_tuning_rate_reproduces_the_released_one():
    recorded = json.loads((GOLDEN / "rrcm_schedules.json").read_text())["finetune_lr"]
    warmup, total = recorded["args"]["warmup"], recorded["args"]["total"]
    recipe = in_steps(Recipe(schedule="cosine", epochs=total, warmup_epochs=warmup, batch_size=5), 10)
    for epoch, scale in zip(recorded["steps"], recorded["scale"], strict=True):
        assert rate_scale(2 * epoch + 1, recipe) == pytest.approx(scale, abs=1e-9)
