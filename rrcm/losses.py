"""The pre-training loss (arXiv 2501.13094): instance discrimination across views and along the trajectory."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.training.processes import gather, rank
from rrcm.encoder import Encoder

TEMPERATURE = 0.2


def info_nce(queries: Tensor, keys: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Return the InfoNCE loss of each image, (B,): -log softmax_j(cos(q_i, k_j)/temperature) at j = i.

    Args:
        queries, keys: (B,D), row i of both belonging to image i; the other rows, and the keys of all other processes
            that train together, are the negatives.
    """
    everyone = gather(keys.float())
    device_type = queries.device.type
    with torch.autocast(device_type, enabled=False):  # a loss is float32, whatever the network computes in
        similarity = F.normalize(queries.float(), dim=1) @ F.normalize(everyone, dim=1).T
        return -torch.diagonal(F.log_softmax(similarity / temperature, dim=1), offset=rank() * len(queries))


@dataclass(frozen=True, kw_only=True)
class Views:
    """One batch of pre-training: two strong views and a plain one, (B,C,H,W) in model units, and one noise draw."""

    a: Tensor
    b: Tensor
    plain: Tensor
    noise: Tensor


def contrastive_loss(online: Encoder, target: Encoder, views: Views, t: float) -> Tensor:
    """Return online(a) against target(b) plus online(b) against target(a), projections, (B,), at the smallest time."""
    noisy = torch.cat([views.a + t * views.noise, views.b + t * views.noise])
    times = noisy.new_full((len(noisy),), t)
    queries_a, queries_b = (online.project(online(x, s)) for x, s in _halves(noisy, times))
    with torch.no_grad():
        keys_a, keys_b = (target.project(target(x, s)) for x, s in _halves(noisy, times))
    return info_nce(queries_a, keys_b) + info_nce(queries_b, keys_a)


def consistency_loss(online: Encoder, views: Views, t_noisier: float, t_cleaner: float) -> Tensor:
    """Return the representation at one time against that at the next, without gradient through the next, (B,)."""
    noisier = online(
        views.plain + t_noisier * views.noise, views.plain.new_full((len(views.plain),), t_noisier)
    )
    with torch.no_grad():
        times = views.plain.new_full((len(views.plain),), t_cleaner)
        cleaner = online(views.plain + t_cleaner * views.noise, times)
    return info_nce(noisier, cleaner)


def _halves(x: Tensor, t: Tensor) -> list[tuple[Tensor, Tensor]]:
    return list(zip(x.chunk(2), t.chunk(2), strict=True))
