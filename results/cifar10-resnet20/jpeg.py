"""Print how far the certified radii of the originals lie above those of the JPEG images: mean and 95% t interval."""

from pathlib import Path

from scipy import stats

from bench.records.file import read_run

HERE = Path(__file__).parent

radii = [
    [
        one.radius if one.is_correct else 0.0
        for one in sorted(read_run(HERE / name).records, key=lambda one: one.index)
    ]
    for name in ("jpeg-20", "originals-20")
]
differences = [after - before for before, after in zip(*radii, strict=True)]
mean, error = sum(differences) / len(differences), stats.sem(differences)
low, high = stats.t.interval(0.95, len(differences) - 1, mean, error)
averages = " and ".join(f"{sum(one) / len(one):.3f}" for one in radii)
print(f"{len(differences)} images, average radius {averages}, difference {mean:.3f} [{low:.3f}, {high:.3f}]")
