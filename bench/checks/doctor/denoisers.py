"""A denoiser on trial: the error of its images at each noise level, as declared and under known alternatives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from bench.checks.doctor.images import Images
from bench.checks.doctor.trials import CANNOT_TELL, Answer, Trial, is_better, judge, mean_error
from bench.device.hardware import as_float64
from bench.training.released import DenoiserReading

LEVELS = (0.25, 0.5, 1.0)
"""Noise levels at which a denoiser is tried, in pixel units."""

BY = "error of the denoised images"


def ask_denoiser(denoiser: DenoiserReading, images: Images, batch_size: int) -> Iterator[Answer]:
    """Yield an answer per question about a denoiser.

    One fault is found, the alternative that is better than what is declared and than the alternatives of all other
    questions that are too; the other questions are then asked again without it.
    """
    questions = denoiser.alternatives()
    trials = _all_trials(questions, images, batch_size)
    if (fault := _fault(trials)) is not None:
        question, name = fault
        yield _answer(question, trials[question])
        mended = {**questions[question][name].alternatives()}
        del mended[question]
        trials = _all_trials(mended, images, batch_size)
    for question, found in trials.items():
        answer = _answer(question, found)
        accused = answer.verdict.kind == "looks like"
        # an alternative is better, but so are others, of other questions, to the same degree
        yield replace(answer, verdict=CANNOT_TELL) if accused else answer


def _all_trials(
    questions: Mapping[str, Mapping[str, DenoiserReading]], images: Images, batch_size: int
) -> dict[str, tuple[Trial, ...]]:
    """Return the trials of every question, the declared reading first."""
    return {
        question: tuple(
            mean_error(name, f"error, noise {sigma:g}", errors)
            for sigma in LEVELS
            for name, denoise in readings.items()
            if (errors := _errors(denoise, images, sigma, batch_size)) is not None
        )
        for question, readings in questions.items()
    }


@torch.inference_mode()
def _errors(
    denoise: DenoiserReading, images: Images, sigma: float, batch_size: int
) -> NDArray[np.float64] | None:
    """Return the root mean squared error of each denoised image, (n,) in pixel units.

    None where the schedule ends below the noise level.
    """
    x_noisy = images.x + sigma * images.noise
    try:
        x_hat = torch.cat([denoise(part, sigma) for part in x_noisy.split(batch_size)])
    except ValueError:
        return None
    return as_float64(x_hat - images.x).square().flatten(1).mean(dim=1).sqrt().cpu().numpy()


def _answer(question: str, trials: tuple[Trial, ...]) -> Answer:
    declared = trials[0].reading
    return Answer(
        question=f"denoiser, {question}",
        declared=declared,
        trials=trials,
        verdict=judge(trials, declared),
        by=BY,
    )


def _fault(trials: Mapping[str, tuple[Trial, ...]]) -> tuple[str, str] | None:
    """Return (question, reading) of the one alternative that explains a denoiser best, or None."""
    better = [
        (question, name)
        for question, found in trials.items()
        for name in dict.fromkeys(trial.reading for trial in found[1:])
        if is_better(found, name, found[0].reading)
    ]
    pool = {
        (question, name): [trial for trial in trials[question] if trial.reading == name]
        for question, name in better
    }
    best = [one for one in better if all(_explains(pool[one], pool[two]) for two in better if two != one)]
    return best[0] if best else None


def _explains(one: list[Trial], other: list[Trial]) -> bool:
    """Return whether the trials of one reading are better than those of another."""
    return is_better([*one, *other], one[0].reading, other[0].reading)
