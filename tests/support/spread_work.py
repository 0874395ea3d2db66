"""What tests send to workers in other processes; it imports no torch, so that these start quickly."""

import os
import signal
import time

from bench.errors import ModelError
from bench.runs.engines.base import Job
from tests.support import killed_run


def single_jobs(*indices):
    """Return jobs of one image each."""
    return [Job(method="a", sigma=0.5, indices=(index,)) for index in indices]


class Loader:
    """What processes are sent: records of `killed_run`; image 3 kills its process once, image 5 raises `error`."""

    def __init__(self, folder, error=None):
        self.folder, self.error = folder, error

    def __call__(self, method, sigma):
        (self.folder / f"loaded-{os.getpid()}-{method}").touch(exist_ok=False)

        def certify(indices):
            if 3 in indices and not (self.folder / "killed").exists():
                (self.folder / "killed").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if 5 in indices and self.error is not None:
                raise _error(self.error)
            return [killed_run.certify(method, sigma, index) for index in indices]

        return certify


def _error(name):
    class LocalError(Exception):
        """Cannot be sent: it has no place in a module."""

    errors = {"ours": ModelError, "python": KeyError, "local": LocalError}
    return TwoPartError("first", "second") if name == "two" else errors[name]("logits of shape (1, 1)")


class TwoPartError(Exception):
    """Cannot be made again from its message, as unpickling does."""

    def __init__(self, first, second):
        super().__init__(f"{first} logits of shape (1, 1) {second}")


def until(condition):
    """Wait until something is so, for twenty minutes at most: what hangs is found, what is slow is not."""
    for _ in range(120_000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it has not come in twenty minutes")


class Waiting:
    """A loader: images from 2 on leave a file when they begin, and wait until there is the file `go`."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, method, sigma):
        def certify(indices):
            [index] = indices
            if index >= 2:
                (self.folder / f"begun-{index}-{os.getpid()}").touch()
                until((self.folder / "go").exists)
            return [killed_run.certify(method, sigma, index)]

        return certify


def stamped(image, seed):
    """Return an image of bytes with the seed's last byte as its first value; one whose last is 255 ends its process."""
    if image.flat[-1] == 255:
        os._exit(3)
    image = image.copy()
    image.flat[0] = seed % 256
    return image
