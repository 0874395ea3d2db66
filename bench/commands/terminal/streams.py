"""What stdout and stderr can print: the encoding of a terminal or a pipe may lack characters."""

from __future__ import annotations

import codecs
import sys
from typing import TextIO


def holds_all(stream: TextIO | None) -> bool:
    """Return whether the encoding of a stream has every character; a stream that names no encoding has."""
    encoding = getattr(stream, "encoding", None)
    return encoding is None or codecs.lookup(encoding).name.startswith("utf")


def replace_lacking() -> None:
    """Have stdout and stderr print "?" for each character that their encoding lacks."""
    for stream in (sys.stdout, sys.stderr):
        if not holds_all(stream) and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
