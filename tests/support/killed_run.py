"""A run without torch that tests kill: at every system call that writes, or at a random moment."""

import itertools
import os
import signal
import time
import traceback
import warnings

from bench.config.run import RunConfig
from bench.records import lines
from bench.records.file import FILE_NAME, RecordsFile, read_run
from bench.runs.engines.base import LocalEngine
from bench.runs.progress import Observer, pending_jobs, write_results
from bench.smoothing.estimation import certified_radius
from bench.types import ABSTAIN, Protocol, Record

CONFIG = RunConfig(methods=("a", "b"), sigmas=(0.25, 0.5))
WRITING = ("write", "fsync", "replace", "ftruncate", "truncate")
"""The functions of `os` through which records reach the disk."""


def header(indices):
    """Return the header of a run on these images."""
    from tests.support.fake_runs import make_header  # and scipy, which workers can do without

    return make_header(methods=CONFIG.methods, sigmas=CONFIG.sigmas, indices=indices, n0=10, n=100)


def certify(method, sigma, index, seconds=0.0):
    """Return the record that every run makes of a job."""
    time.sleep(seconds)
    k = 50 + (7 * index) % 50
    radius = certified_radius(k, 100, Protocol(n0=10, n=100), sigma)
    return Record(
        method=method,
        sigma=sigma,
        index=index,
        label=index % 2,
        predict=ABSTAIN if radius is None else 1,
        radius=radius or 0.0,
        counts_selection=((1, 10),),
        counts_estimation=((0, 100 - k), (1, k)),
        n0=10,
        n=100,
        samples=110,
        seconds=1.0,
    )


def run(folder, *, images=2, seconds=0.0):
    """Begin or continue the run; first on half of the images, so that its header is rewritten once."""
    path = folder / FILE_NAME
    begun = len(read_run(folder).header.indices) if path.exists() else 0
    for count in range(max(begun, images // 2), images + 1, images // 2):
        indices = tuple(range(count))
        with RecordsFile.create_or_resume(folder, header(indices)) as file:
            jobs = pending_jobs(file.run, CONFIG, indices, Observer())
            load = lambda method, sigma: lambda group: [certify(method, sigma, i, seconds) for i in group]  # noqa: E731
            write_results(LocalEngine().results(load, jobs), file, Observer())


def die_at(step, is_cut, names=WRITING):
    """Make this process kill itself before its call number `step` of these, where `is_cut` amid a write."""
    calls = itertools.count()

    def deadly(function, name):
        def call(*args, **rest):
            if next(calls) == step:
                if is_cut and name == "write":
                    function(args[0], args[1][: len(args[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **rest)

        return call

    for name in names:
        setattr(lines.os, name, deadly(getattr(os, name), name))


def in_child(work, *, seconds=None):
    """Run `work` in a child process, killed after `seconds` if given; return whether it ended by itself.

    Raises:
        AssertionError: it failed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the child runs no thread's code
        child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL)
    return code == 0
