"""Where trained checkpoints lie: a folder that the user names, else zoo here and the one that comes with the program.

The program's own is only read: whoever keeps it names it, `bench train ... --zoo results/zoo`.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from importlib import resources
from pathlib import Path

from bench.errors import CheckpointError, UsageError

LOCAL_ZOO = Path("zoo")
"""Where `bench train` writes, below the current folder, when no --zoo is given."""

SHIPPED_ZOO = Path("results") / "zoo"
"""The zoo of a checkout, which a wheel holds as bench/zoo."""


def search_path(zoo: Path | None) -> tuple[Path, ...]:
    """Return the folders to look in, first one first: only `zoo` where it is given."""
    if zoo is not None:
        return (zoo,)
    package = Path(str(resources.files("bench")))
    return LOCAL_ZOO, SHIPPED_ZOO, package / "zoo", package.parent / SHIPPED_ZOO


def check(zoo: Path | None) -> None:
    """Return nothing where a zoo that is given is there: a mistyped name would have everything trained anew.

    Raises:
        UsageError: it is no folder.
    """
    if zoo is not None and not zoo.is_dir():
        raise UsageError(
            f"--zoo is {zoo}, which is no folder: mend the name, or make the folder, and what is missing is trained "
            "into it"
        )


def find(zoo: Path | None, dataset: str, name: str) -> Path | None:
    """Return the first existing <zoo>/<dataset>/<name>, or None."""
    paths = (folder / dataset / name for folder in search_path(zoo))
    return next((path for path in paths if path.is_file()), None)


def other_levels(zoo: Path | None, dataset: str, name: str) -> list[float]:
    """Return the noise levels, ascending, at which there are checkpoints that are called alike but for the sigma."""
    start, sigma, _ = name.partition("_sigma_")
    found = set()
    for folder in search_path(zoo) if sigma else ():
        for path in (folder / dataset).glob(f"{start}_sigma_*.safetensors"):
            with contextlib.suppress(ValueError):
                found.add(float(path.name.removeprefix(f"{start}_sigma_").removesuffix(".safetensors")))
    return sorted(found)


def writable(zoo: Path | None, dataset: str) -> Path:
    """Return the folder that new checkpoints of a data set go to; it need not exist yet."""
    return (LOCAL_ZOO if zoo is None else zoo) / dataset


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, or of the names and digests of all files below a folder, 64 hexadecimal digits.

    Raises:
        CheckpointError: there is no such file or folder, or it cannot be read.
    """
    try:
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.is_file())
            lines = [f"{file.relative_to(path).as_posix()} {sha256(file)}\n" for file in files]
            return hashlib.sha256("".join(lines).encode()).hexdigest()
        status = path.stat()
        return _digest(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


@functools.lru_cache
def _digest(path: Path, size: int, modified: int) -> str:
    """Return the SHA-256 of a file, computed once for each state that its size and time tell."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
