"""Data sets by their name on the Hugging Face hub: the parquet files of a split, in the hub's own cache."""

from __future__ import annotations

import re
from pathlib import Path

from bench.data.tables import INSTALL, SPLIT_WORDS, words_of
from bench.errors import DataError, clipped

PREFIX = "hf:"
"""Stands before a name on the hub where a folder is asked for."""

NAME = re.compile(r"hf:/?/?([\w.-]+/[\w.-]+)((?:/[\w.-]+)*)")
"""hf:OWNER/NAME, and a folder in it."""


def is_on_hub(folder: Path) -> bool:
    """Return whether what was typed for a folder is a name on the hub."""
    return Path(folder).as_posix().startswith(PREFIX)


def hub_folder(name: Path, dataset: str, split: str, *, download: bool) -> Path:
    """Return the folder of the hub's cache that holds the parquet files of a split.

    Args:
        name: hf:OWNER/NAME, or hf:OWNER/NAME/FOLDER for one of several sets.
        dataset: whose split it is.
        split: "train" or "test".
        download: fetch the files that the cache lacks.

    Raises:
        DataError: no such name, huggingface_hub is missing, or the files are neither in the cache nor fetched.
    """
    match = NAME.fullmatch(name.as_posix())
    if match is None:
        raise DataError(
            f"{name} is no name of a data set on the hub, expected hf:OWNER/NAME or hf:OWNER/NAME/FOLDER"
        )
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise DataError(
            f"{name} is fetched by the package huggingface_hub, which is missing; run `{INSTALL}`"
        ) from error
    patterns = [
        f"*{spelling}*.parquet" for word in words_of(dataset, split) for spelling in SPLIT_WORDS[word]
    ]
    try:
        folder = snapshot_download(
            match[1], repo_type="dataset", allow_patterns=patterns, local_files_only=not download
        )
    except (OSError, ValueError, RuntimeError) as error:
        remedy = "look at the name and the connection" if download else "add --download"
        text = clipped(" ".join(str(error).split()), 200)
        raise DataError(f"{name} was not found ({text}); {remedy}") from error
    return Path(folder) / match[2].strip("/")
