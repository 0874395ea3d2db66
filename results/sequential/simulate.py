"""Print the table of README.md: what sequential estimation saves and loses on probabilities that were observed.

python results/sequential/simulate.py [RUN]     (RUN: a run under fixed estimation; default: results/mnist5k; minutes)
"""

import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.records.file import read_run
from bench.smoothing.estimation import stopping_rule, table_tails
from bench.smoothing.stats import sequence_tails, upper_tail
from bench.types import Protocol

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


def measure(records, header, make, n, spread):
    """Return the share of samples saved, and each cell's accuracy beside fixed estimation on the same samples."""
    generator, repeated = np.random.default_rng(0), REPETITIONS[n]
    used = asked = 0
    losses = []
    for sigma in header.sigmas:
        protocol = Protocol(n=n, alpha=header.alpha, estimation="sequential", radii=header.radii)
        rule, tails = make(protocol, sigma), table_tails(header.radii, sigma)
        at_n = np.array([most(n, holds_at_n, n, tail, header.alpha) for tail in tails])
        for method in header.methods:
            images = records[method, sigma]
            chances = np.repeat([chance for is_right, chance in images if is_right], repeated)
            if spread:  # what 1,000 samples leave open
                chances = generator.beta(chances * header.n + 0.5, (1 - chances) * header.n + 0.5)
            samples, certified, failures = play(rule, chances, generator)
            used += samples.sum() / repeated + header.n0 * len(images)
            asked += (header.n0 + n) * len(images)
            fixed = failures[:, None] <= at_n
            changes = (certified.sum(0) - fixed.sum(0)) / repeated / len(images)
            losses += [change for change, count in zip(changes, fixed.sum(0), strict=True) if count]
    return 1 - used / asked, np.array(losses)


def main():
    run = read_run(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[1] / "mnist5k"))
    records = defaultdict(list)
    for one in run.records:
        counts = dict(one.counts_estimation)
        failing = 1 - counts.get(one.selected, 0) / sum(counts.values())
        records[one.method, one.sigma].append((one.selected == one.label, failing))
    print(
        "| probabilities | n | rule | samples saved (%) | accuracy, mean (points) | accuracy, worst cell (points) |"
    )
    print("|---|---:|---|---:|---:|---:|")
    rules = {"confidence sequence": confidence_sequence, "boundaries": boundaries}
    for spread, n in [(False, n) for n in REPETITIONS] + [(True, n) for n in REPETITIONS]:
        for name, make in rules.items():
            saved, losses = measure(records, run.header, make, n, spread)
            kind = "drawn around them" if spread else "observed shares"
            numbers = f"{100 * saved:.1f} | {100 * losses.mean():+.2f} | {100 * losses.min():+.2f}"
            print(f"| {kind} | {n:,} | {name} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()
