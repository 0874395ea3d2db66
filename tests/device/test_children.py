"""Processes that help another one end with it."""

import os
import subprocess
import sys
import time

import pytest

PARENT = """
import multiprocessing, os, signal, time
from bench.device.children import end_with_parent, without_interrupts

def help_on(connection):
    end_with_parent()
    os.kill(os.getpid(), signal.SIGINT)
    connection.send((os.getpid(), signal.SIGINT in signal.sigpending()))
    time.sleep(60)

end_with_parent()  # of no parent: nothing
ours, theirs = multiprocessing.Pipe()
with without_interrupts():
    multiprocessing.get_context("fork").Process(target=help_on, args=(theirs,)).start()
assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])
print(*ours.recv(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks")
def test_a_process_ends_with_the_one_that_it_helps_and_leaves_interrupts_to_it():
    parent = subprocess.run([sys.executable, "-c", PARENT], capture_output=True, text=True, timeout=60)
    number, has_put_off = parent.stdout.split()
    assert has_put_off == "True"
    until = time.monotonic() + 30
    while os.path.exists(f"/proc/{number}") and time.monotonic() < until:
        if _is_dead(number):
            return
        time.sleep(0.05)
    assert not os.path.exists(f"/proc/{number}")


def _is_dead(number):
    """Whether a process has ended, and only waits for someone to ask for its exit code."""
    try:
        with open(f"/proc/{number}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True
