"""A million certificates, reported within 1 GiB a process; what that took in time is told, not tested."""

import random
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from bench.records.codec import RUN
from tests.records.test_file import record
from tests.support.fake_runs import make_header

PROGRAM = """
import time
began = time.perf_counter()
import contextlib, resource, sys
from bench.cli import main
with contextlib.suppress(SystemExit):
    main()
[peak] = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]  # not the parent's
children = resource.getrusage(resource.RUSAGE_CHILDREN)
print(round(time.perf_counter() - began, 1), peak, children.ru_maxrss)
"""


def write_run(folder, images):
    """Write a run of two methods at five sigmas, with counts of 100,000 samples that hardly come twice."""
    generator = random.Random(0)
    methods, sigmas = ("rrcm", "dds"), (0.12, 0.25, 0.5, 0.75, 1.0)
    header = make_header(methods=methods, sigmas=sigmas, indices=tuple(range(images)), n=100_000)
    k = np.arange(50_000, 100_001)
    tails = stats.beta.isf(header.alpha, header.n - k + 1, k)
    tails[-1] = -np.expm1(np.log(header.alpha) / header.n)
    units = np.maximum(-stats.norm.ppf(tails), 0.0)
    with open(folder / "records.jsonl", "wb") as file:
        file.write(RUN.encode(header))
        for method in methods:
            for sigma in sigmas:
                for index in range(images):
                    k = generator.randrange(50_000, 100_001)
                    chosen, unit = (index + (k % 20 == 0)) % 9, float(units[k - 50_000])
                    changes = {"method": method, "sigma": sigma, "label": index % 10}
                    changes |= {"predict": chosen if unit else -1, "radius": sigma * unit}
                    changes |= {"counts_selection": ((chosen, 100),), "n": header.n, "samples": 100_100}
                    changes["counts_estimation"] = ((chosen, k), (chosen + 1, 100_000 - k))
                    made = record(index, **changes, seconds=generator.random())
                    file.write(RUN.encode(made))


@pytest.mark.slow
def test_a_million_certificates_take_less_than_a_gibibyte_a_process(tmp_path):
    write_run(tmp_path, images=100_000)
    command = [sys.executable, "-c", PROGRAM, "report", tmp_path, "--quiet"]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    seconds, *kibibytes = told.splitlines()[-1].split()
    print(
        f"bench report: {seconds} s, {' and '.join(kibibytes)} KiB in it and in the largest that draws figures"
    )
    rows = (tmp_path / "acr.csv").read_text().splitlines()[1:]
    assert [int(row.split(",")[3]) for row in rows] == [100_000] * 10
    assert max(map(int, kibibytes)) < 2**20
