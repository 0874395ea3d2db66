"""The heads on the encoder's representation (arXiv 2501.13094): projector for pre-training, linear for classes."""

from __future__ import annotations

from torch import nn


def make_projector(dim: int, hidden_dim: int, output_dim: int) -> nn.Sequential:
    """Return Linear-BN-ReLU, Linear-BN-ReLU, Linear, none with bias, from (B,dim) to (B,output_dim)."""
    return nn.Sequential(
        nn.Linear(dim, hidden_dim, bias=False),
        nn.BatchNorm1d(hidden_dim),
        nn.ReLU(),
        nn.Linear(hidden_dim, hidden_dim, bias=False),
        nn.BatchNorm1d(hidden_dim),
        nn.ReLU(),
        nn.Linear(hidden_dim, output_dim, bias=False),
    )


def make_linear_head(dim: int, num_classes: int) -> nn.Linear:
    """Return the linear head, with zero bias and weights from a truncated normal of deviation 2e-5."""
    head = nn.Linear(dim, num_classes)
    nn.init.trunc_normal_(head.weight, std=2e-5)
    nn.init.zeros_(head.bias)
    return head
