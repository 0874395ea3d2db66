"""Print the table of README.md: what sequential estimation saves and loses on probabilities that were observed.

python results/sequential/simulate.py     (minutes)
"""

import csv
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.smoothing.estimation import stopping_rule, table_tails
from bench.smoothing.stats import sequence_tails, upper_tail
from bench.types import Protocol

IMAGES = Path(__file__).with_name("images.csv")
"""method, sigma, index, whether the selected class is the label, and how many of OBSERVED samples had another one."""

OBSERVED, N0, ALPHA, RADII = 1000, 100, 0.001, (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
"""The protocol that IMAGES was made under."""

REPETITIONS = {1000: 60, 10_000: 24, 100_000: 16}
"""n -> how often each image is drawn."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """looks (T,); most (T, R) failures that certify a radius there, and fewest (T, R) that give it up."""

    looks: np.ndarray
    most: np.ndarray
    fewest: np.ndarray


def boundaries(protocol, sigma):
    """Return the rule that `--estimation sequential` runs."""
    rule = stopping_rule(protocol, sigma)
    looks = list(rule.most)
    most, fewest = (np.array([limits[look] for look in looks]) for limits in (rule.most, rule.hopeless))
    return Rule(looks=np.array(looks), most=most, fewest=fewest)


def confidence_sequence(protocol, sigma):
    """Return the rule before it: half of alpha for a confidence sequence, half for Clopper-Pearson's bound at n."""
    tails, n, level = table_tails(protocol.radii, sigma), protocol.n, protocol.alpha / 2
    step = 128 if n <= 10_000 else 1024  # a look after each block, as it was, would take hours to tabulate
    looks = [*range(step, n, step), n]
    at_n = [most(n, holds_at_n, n, tail, level) for tail in tails]
    certify, give_up = [], []
    for samples in looks:
        surely, possibly = (
            [most(samples, holds_at_all_looks, samples, tail, level, end) for tail in tails] for end in (1, 0)
        )
        is_last = samples == n
        certify.append([max(pair) if is_last else pair[0] for pair in zip(surely, at_n, strict=True)])
        give_up.append([min(pair) + 1 for pair in zip(possibly, at_n, strict=True)])
    return Rule(looks=np.array(looks), most=np.array(certify), fewest=np.array(give_up))


def holds_at_all_looks(failures, samples, tail, level, end):
    """Return whether an end of the confidence sequence, 1 or 0, allows a tail."""
    return sequence_tails(samples - failures, samples, level)[end] <= tail


def holds_at_n(failures, n, tail, level):
    """Return whether Clopper-Pearson's bound allows a tail."""
    return upper_tail(n - failures, n, level) <= tail


def most(samples, holds, *arguments):
    """Return the most failures of which `holds`, which is true of few and false of many; -1: of none."""
    low, high = -1, samples
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle, *arguments) else (low, middle - 1)
    return low


def play(rule, chances, generator):
    """Return the samples (I,) of each image, its certified radii (I, R), and its failures of n (I,)."""
    failures, stopped = np.zeros(len(chances), int), np.zeros(len(chances), int)
    certified = np.zeros((len(chances), rule.most.shape[1]), bool)
    alive, before = np.full(len(chances), bool((rule.most[-1] >= 0).any())), 0
    for look, limits, ends in zip(rule.looks, rule.most, rule.fewest, strict=True):
        failures += generator.binomial(look - before, chances)
        before = look
        held = np.logical_and.accumulate(failures[:, None] <= limits, axis=1)
        over = (held | np.logical_or.accumulate(~held & (failures[:, None] >= ends), axis=1)).all(1)
        now = alive & (over | (look == rule.looks[-1]))
        stopped[now], certified[now] = look, held[now]
        alive &= ~now
    return stopped, certified, failures


def measure(images, make, n, spread):
    """Return the share of samples saved, and each cell's accuracy beside fixed estimation on the same samples."""
    generator, repeated = np.random.default_rng(0), REPETITIONS[n]
    used = asked = 0
    losses = []
    for (_, sigma), cell in images.items():
        protocol = Protocol(n=n, alpha=ALPHA, estimation="sequential", radii=RADII)
        rule, tails = make(protocol, sigma), table_tails(RADII, sigma)
        at_n = np.array([most(n, holds_at_n, n, tail, ALPHA) for tail in tails])
        chances = np.repeat([chance for is_correct, chance in cell if is_correct], repeated)
        if spread:  # what the observed samples leave open
            chances = generator.beta(chances * OBSERVED + 0.5, (1 - chances) * OBSERVED + 0.5)
        samples, certified, failures = play(rule, chances, generator)
        used += samples.sum() / repeated + N0 * len(cell)
        asked += (N0 + n) * len(cell)
        fixed = failures[:, None] <= at_n
        changes = (certified.sum(0) - fixed.sum(0)) / repeated / len(cell)
        losses += [change for change, count in zip(changes, fixed.sum(0), strict=True) if count]
    return 1 - used / asked, np.array(losses)


def main():
    images = defaultdict(list)
    with IMAGES.open() as file:
        for row in csv.DictReader(file):
            chance = int(row["failures"]) / OBSERVED
            images[row["method"], float(row["sigma"])].append((row["is_correct"] == "1", chance))
    images = dict(
        sorted(images.items(), key=lambda cell: cell[0][1])
    )  # stable: methods in their order at each sigma
    print(
        "| probabilities | n | rule | samples saved (%) | accuracy, mean (points) | accuracy, worst cell (points) |"
    )
    print("|---|---:|---|---:|---:|---:|")
    rules = {"confidence sequence": confidence_sequence, "boundaries": boundaries}
    for spread, n in [(False, n) for n in REPETITIONS] + [(True, n) for n in REPETITIONS]:
        for name, make in rules.items():
            saved, losses = measure(images, make, n, spread)
            kind = "drawn around them" if spread else "observed shares"
            numbers = f"{100 * saved:.1f} | {100 * losses.mean():+.2f} | {100 * losses.min():+.2f}"
            print(f"| {kind} | {n:,} | {name} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()
