"""The heap keeps what a batch has freed: no page is asked of the system again."""

import subprocess
import sys

import pytest

FAULTS = """
import resource
from bench.device.heap import keep_memory
print(keep_memory())
import torch

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

torch.set_num_threads(1)
for _ in range(10):
    torch.ones(2**24)
before = faults()
for _ in range(10):
    torch.ones(2**24)
print(faults() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of glibc alone")
def test_memory_that_was_freed_is_not_asked_of_the_system_again():
    """Ten times 64 MiB would be 163,840 pages of 4 KiB."""
    told = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True).stdout.split()
    if told[0] == "False":
        pytest.skip("the C library is no glibc")
    assert int(told[1]) < 80_000
