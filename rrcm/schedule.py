"""What changes over pre-training: the number of discretisation steps and the target encoder's rate."""

from __future__ import annotations

import math

START_SCALES, END_SCALES = 20, 80
START_RATE, END_RATE = 0.99, 0.9999

FINE_TUNING_SCALES = END_SCALES + 1
"""Grid points among which fine-tuning and certification look for the time nearest to 2 sigma."""


def num_scales(step: int, total_steps: int) -> int:
    """Return the number N of grid points at a step: min(20 * 2^ceil(k/K'), 80) + 1 (arXiv 2501.13094, Appendix).

    K' = ceil(K / log2(80/20 + 1)), so that N is 21 at step 0 only, then 41, then 81.
    """
    period = math.ceil(total_steps / math.log2(END_SCALES / START_SCALES + 1))
    return min(START_SCALES * 2 ** math.ceil(step / period), END_SCALES) + 1


def target_rate(
    step: int, total_steps: int, sharpness: float, start: float = START_RATE, end: float = END_RATE
) -> float:
    """Return the target encoder's rate at a step, in [start, end] (arXiv 2501.13094, Appendix).

    e = sqrt(k/K (end^2 - start^2) + start^2); c = 2 / (1 + exp(-A (e - start)/(end - start))) - 1;
    rate = c end + (1 - c) start, with A = sharpness (15 on CIFAR-10, 10 on ImageNet).
    """
    e = math.sqrt(step / total_steps * (end**2 - start**2) + start**2)
    c = 2 / (1 + math.exp(-sharpness * (e - start) / (end - start))) - 1
    return c * end + (1 - c) * start
