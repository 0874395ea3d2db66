"""Closed forms of the pre-training loss, and who receives gradients."""

import math

import pytest
import torch

from rrcm.encoder import Encoder, EncoderConfig
from rrcm.losses import TEMPERATURE, Views, consistency_loss, contrastive_loss, info_nce

SIZES = EncoderConfig(
    image_size=8, patch_size=4, in_channels=1, embed_dim=16, depth=1, num_heads=2, hidden_dim=8, output_dim=8
)


def views():
    a, b, plain, noise = torch.rand((4, 6, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    return Views(a=a, b=b, plain=plain, noise=noise)


def test_collapsed_features_cannot_be_told_apart():
    features = torch.ones(8, 4)
    torch.testing.assert_close(info_nce(features, features), torch.full((8,), math.log(8)))


def test_orthonormal_features_have_the_closed_form():
    features = torch.eye(8)
    expected = math.log(1 + 7 * math.exp(-1 / TEMPERATURE))
    torch.testing.assert_close(info_nce(features, 3 * features), torch.full((8,), expected))


def test_the_loss_is_float32_under_a_lower_precision():
    queries, keys = torch.randn((2, 32, 16), generator=torch.Generator().manual_seed(0))
    expected = info_nce(queries, keys)
    with torch.autocast("cpu", torch.bfloat16):
        low = info_nce(queries, keys)
    assert low.dtype == torch.float32
    assert torch.equal(low, expected)


def test_target_never_receives_gradients_and_online_does():
    online, target = Encoder(SIZES), Encoder(SIZES)
    loss = contrastive_loss(online, target, views(), 0.002) + consistency_loss(online, views(), 2.0, 1.5)
    loss.mean().backward()
    assert all(parameter.grad is None for parameter in target.parameters())
    assert all(parameter.grad is not None for parameter in online.parameters())


def test_only_the_noisier_time_receives_gradients():
    online = Encoder(SIZES)
    consistency_loss(online, views(), 2.0, 2.0).mean().backward()
    once = online.pos_embed.grad.clone()
    with torch.no_grad():
        keys = online(views().plain + 2.0 * views().noise, torch.full((6,), 2.0))
    online.zero_grad()
    queries = online(views().plain + 2.0 * views().noise, torch.full((6,), 2.0))
    info_nce(queries, keys).mean().backward()
    torch.testing.assert_close(online.pos_embed.grad, once)


def test_time_token_changes_the_representation():
    online = Encoder(SIZES).eval()
    x = views().plain
    near, far = (online(x, torch.full((6,), t)) for t in (0.5, 0.6))
    assert (near - far).abs().max() > 1e-3
    assert near.shape == (6, 16)


@pytest.mark.parametrize(("patch_size", "num_heads"), [(3, 2), (4, 3)])
def test_sizes_that_do_not_divide_are_refused(patch_size, num_heads):
    from dataclasses import replace

    from bench.errors import UsageError

    with pytest.raises(UsageError, match="must divide"):
        Encoder(replace(SIZES, patch_size=patch_size, num_heads=num_heads))
