"""How far a noisy float32 image lies from the real one: `python -m tests.smoothing.rounding` prints a table of it."""

import numpy as np
import torch

from bench.smoothing.noise import noise_block
from bench.smoothing.philox import stream


def rounding_errors(shape, sigma, samples=8):
    """Return (samples, *shape) float64 differences between what a classifier sees and x + sigma z in float64."""
    x = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0)).double() / 255
    z = noise_block(0, 0, "estimation", 0, shape, torch.device("cpu"), samples)
    words = stream((0, 2), (0, 0, 0)).random_raw(z.numel() + z.numel() % 2).reshape(-1, 2)
    u = (words[:, 0] >> np.uint64(11) | np.uint64(1)) / 2.0**53
    v = (words[:, 1] >> np.uint64(11)) / 2.0**53
    length, angle = np.sqrt(-2 * np.log(u)), 2 * np.pi * v
    exact = (
        np.stack([length * np.cos(angle), length * np.sin(angle)], 1).ravel()[: z.numel()].reshape(z.shape)
    )
    return z.mul_(sigma).add_(x.float()).double().numpy() - (x.numpy() + sigma * exact)


def main():
    for shape in ((1, 28, 28), (3, 32, 32), (3, 224, 224)):
        for sigma in (0.25, 1.0):
            errors = rounding_errors(shape, sigma)
            lengths = np.sqrt((errors**2).reshape(len(errors), -1).sum(1))
            size = " x ".join(map(str, shape))
            numbers = (abs(errors).max(), np.sqrt((errors**2).mean()), lengths.mean())
            print(f"| {size} | {sigma} | {' | '.join(f'{number:.1e}' for number in numbers)} |")


if __name__ == "__main__":
    main()
