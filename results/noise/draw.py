"""Draw noise.png: one image as it is and as the base classifier sees it at three noise levels.

python results/noise/draw.py
"""

from pathlib import Path

import matplotlib.pyplot as plt
import torch

from bench.data.sets import batch, load

SIGMAS = (0.0, 0.25, 0.5, 1.0)


def main() -> None:
    """Write noise.png beside this file."""
    images, _ = batch(load("mnist5k", "test"), [798])
    noise = torch.randn(images[0].shape, generator=torch.Generator().manual_seed(0))
    figure, axes = plt.subplots(1, len(SIGMAS), figsize=(6.0, 1.8))
    for axis, sigma in zip(axes, SIGMAS, strict=True):
        axis.imshow((images[0] + sigma * noise)[0].clamp(0, 1), cmap="gray", vmin=0, vmax=1)
        axis.set_title("image" if sigma == 0 else f"σ = {sigma:g}", fontsize=10)
        axis.axis("off")
    figure.tight_layout()
    figure.savefig(Path(__file__).with_name("noise.png"), dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()
