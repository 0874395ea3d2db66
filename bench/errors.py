"""Every exception this project raises on purpose; each message is one sentence that says how to mend it."""

import shlex

SHOWN = 60
"""Characters of a value that a message holds, about."""


def shown(value: object, most: int = SHOWN) -> str:
    """Return a value of any type and size as Python writes it, for a message: of a long one, its two ends."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of more digits than Python writes, a list within itself
        text = f"a very large {type(value).__name__}"
    return clipped(text, most)


def clipped(text: str, most: int = SHOWN) -> str:
    """Return a text of any length for a message: of one that is longer than `most` characters, its two ends."""
    if len(text) <= most:
        return text
    return f"{text[: most // 2]} ... ({len(text)} characters) ... {text[-most // 4 :]}"


def typed(path: object) -> str:
    """Return a path as a user types it in a shell: quoted where it must be, "./" before a leading dash."""
    text = str(path)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


def plain(text: str) -> str:
    """Return a text in which control characters and those that turn the direction of writing are spelled out.

    A terminal obeys them wherever they come from; "\\n" and "\\t" are spelled out too.
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else _spelled(one) for one in text)


def _spelled(character: str) -> str:
    return character if character in _KEPT else character.encode("unicode_escape").decode()


_KEPT = frozenset("\u00a0\u2002\u2003\u2009\u202f\u3000\u200d\ufe0f")
"""Spaces, and what joins the parts of one sign: they are not printable to Python, and harmless."""


class BenchError(Exception):
    """Something the user can mend; the command line prints its message in one line and exits with 1."""


class UsageError(BenchError):
    """A wrong key, name, type or value in a command or preset; the command line exits with 2."""


class UnpublishedError(UsageError):
    """A named recipe that its paper does not give for this noise level."""


class DataError(BenchError):
    """A data set, image or subset that is missing, empty, unreadable or outside [0,1]."""


class CheckpointError(BenchError):
    """A checkpoint that is missing, truncated, of another model, or not tensors only."""


class RecordsError(BenchError):
    """A records file that cannot be read, written or continued."""


class BusyError(RecordsError):
    """A file that another process writes to."""


class ProtocolError(BenchError):
    """Runs or records made under different protocols, which must not be compared or mixed."""


class NumericalError(BenchError):
    """A NaN or an infinity where a finite number must be: in logits, or in a training loss at a step."""


class ModelError(BenchError):
    """A classifier that breaks its contract: logits of another shape, or of another number of classes."""


class UnfinishedError(BenchError):
    """A training whose time was up before it had a checkpoint; its state is kept."""

    def __init__(self, stage: str, step: int, steps: int) -> None:
        super().__init__(
            f"the time of {stage} is up at step {step} of {steps}; its state is kept, repeat the command to continue"
        )


class EngineError(BenchError):
    """Workers that cannot be started, or that die again and again."""


class TerminatedError(BenchError):
    """A SIGTERM; the command line exits with 143, as a shell says of a process that it ended."""

    def __init__(self) -> None:
        super().__init__("terminated; everything certified is kept, repeat the command to continue")
