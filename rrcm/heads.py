"""What stands on the encoder (arXiv 2501.13094): the linear head, and with it the classifier of noisy pixels."""

from __future__ import annotations

from torch import Tensor, nn

from bench.smoothing.sigma import nearest_time, to_model_units
from bench.training.released import Fed
from rrcm.encoder import Encoder
from rrcm.schedule import FINE_TUNING_SCALES

FORGOTTEN_SCALES = 21
"""Points of the time grid that the released program takes where its user forgets --step."""


def make_linear_head(dim: int, num_classes: int) -> nn.Linear:
    """Return the linear head, with zero bias and weights from a truncated normal of deviation 2e-5."""
    head = nn.Linear(dim, num_classes)
    nn.init.trunc_normal_(head.weight, std=2e-5)
    nn.init.zeros_(head.bias)
    return head


class Classifier(nn.Module):
    """Encoder and linear head as a classifier of noisy pixels: one forward pass, sigma becoming the time token.

    It takes the encoder over, drops its projector, and trains the patch projection, frozen or not in pre-training.
    """

    def __init__(self, encoder: Encoder, num_classes: int, *, layernorm: bool = True) -> None:
        super().__init__()
        encoder.projection_head = nn.Identity()  # serves pre-training only
        self.base_model = encoder
        encoder.patch_embed.requires_grad_(True)
        self.linear_head = make_linear_head(encoder.config.embed_dim, num_classes)
        self.layernorm = layernorm

    def forward(self, x_noisy: Tensor, sigma: float, keys: Tensor | None = None) -> Tensor:
        """Return logits (B,K) for x_noisy (B,C,H,W) in pixel units.

        The encoder is told the grid time nearest to 2 sigma.
        """
        t = x_noisy.new_full((len(x_noisy),), nearest_time(sigma, FINE_TUNING_SCALES))
        return self.linear_head(self.base_model(to_model_units(x_noisy), t, layernorm=self.layernorm))

    def fed(self) -> Fed:
        """Return what the encoder sees and is told: [-1,1], and a time of the grid."""
        half = (0.5,) * self.base_model.config.in_channels
        return Fed(
            normalisation=(half, half),
            time=f"the grid time nearest to 2 sigma, of {FINE_TUNING_SCALES}",
            other_times={
                f"told the nearest time of a {FORGOTTEN_SCALES}-point grid": lambda sigma: (
                    nearest_time(sigma, FORGOTTEN_SCALES) / 2
                )
            },
        )
