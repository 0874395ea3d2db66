"""Checkpoint files: safetensors that say what they are, written at once or not at all, loaded strictly."""

from __future__ import annotations

import json
import re
import struct
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from bench.errors import CheckpointError, clipped, shown
from bench.records.disk import replace_file
from bench.training import processes
from bench.types import Checkpoint

OBJECTS = ("config", "training")
"""Entries of a safetensors file's metadata that are JSON objects: its configuration, and how it came about."""

NAMED = 24
"""Wrong tensors that a message names, at most."""

MOST_PICKLED = 2**23
"""Bytes of the part of a torch file that says what its tensors are, at most: some 50,000 tensors."""

DAMAGE = (
    *(RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError, AssertionError),
    *(ArithmeticError, struct.error, OSError),
)
"""What torch's reader raises on damaged bytes: it follows them as a program of its own, whatever they have become."""


def save_checkpoint(
    path: Path,
    tensors: dict[str, Tensor],
    *,
    config: dict[str, Any],
    training: dict[str, Any],
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write tensors with their configuration and provenance as one safetensors file, at once or not at all.

    Floating-point tensors are stored as `dtype`, those with a number beyond its range as they are. Of several
    processes that train together the first one writes, and all return when the file is there.
    """
    if processes.is_first():
        path.parent.mkdir(parents=True, exist_ok=True)
        plain = {
            name: _as(value.detach(), dtype).cpu().contiguous().clone()  # tensors may share their memory
            for name, value in tensors.items()
        }
        content = save(plain, {"config": json.dumps(config), "training": json.dumps(training)})
        replace_file(path, content)
    processes.meet()


def _as(value: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a tensor as `dtype`, or as it is where it holds no real numbers or one beyond the range of `dtype`."""
    if not value.is_floating_point():
        return value
    made = value.to(dtype)
    return made if torch.equal(made.isfinite(), value.isfinite()) else value


def load_checkpoint(path: Path | Checkpoint) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the metadata of a safetensors file, see `load_metadata`, or of one that was read before.

    Raises:
        CheckpointError: the file is missing, truncated, or not a safetensors file, or as in `load_metadata`.
    """
    if isinstance(path, Checkpoint):
        return path.tensors, {"config": path.config, "training": path.training}
    metadata = load_metadata(path)
    with _readable(path):
        return load_file(path), metadata


def load_metadata(path: Path) -> dict[str, Any]:
    """Return what a safetensors file says of itself ({} where it says nothing).

    Values are JSON; other programs' plain texts stay texts.

    Raises:
        CheckpointError: the file is missing, truncated, or not a safetensors file, or its OBJECTS are no objects.
    """
    if not path.is_file():
        raise CheckpointError(f"No checkpoint at {path}: train it with `bench train`, or name another --zoo.")
    with _readable(path), safetensors.safe_open(path, "pt") as file:
        stored = file.metadata() or {}
    metadata = {key: _value(text) for key, text in stored.items() if key != "format"}
    for key in OBJECTS:
        if not isinstance(metadata.get(key, {}), dict):
            raise CheckpointError(
                f"{path} says {key} {shown(stored[key])}, expected a JSON object as `bench train` and "
                "`bench import-checkpoint` write it; take that entry out of the file's metadata."
            )
    return metadata


def _value(text: str) -> Any:
    """Return the JSON value of a text, or the text itself where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what reading a damaged safetensors file raises into one sentence."""
    try:
        yield
    except (safetensors.SafetensorError, ValueError, OSError) as error:
        raise CheckpointError(
            f"{path} is not a readable safetensors file ({clipped(first_line(error), 200)}): it may be truncated; "
            "delete it to train it again, or fetch it again."
        ) from error


def load_weights(module: nn.Module, tensors: dict[str, Tensor], source: Path | Checkpoint) -> None:
    """Load tensors into a module strictly.

    Raises:
        CheckpointError: a name is missing or unexpected, or a shape or kind of number differs; the message names some.
    """
    own = module.state_dict()
    check_weights(shapes_of(own), tensors, source)
    check_kinds(own, tensors, source)
    module.load_state_dict(tensors)


def check_configuration(
    metadata: Mapping[str, Any], options: Mapping[str, Any], source: Path | Checkpoint
) -> None:
    """Return nothing where the file's own configuration agrees with options that no shape tells, or says nothing.

    Raises:
        CheckpointError: the file says another value; the message names the option that would agree.
    """
    config = metadata.get("config", {})
    for name, value in options.items():
        if config.get(name, value) != value:
            said = clipped(str(config[name]).lower())
            raise CheckpointError(
                f"{source} was made with {name} {said}, not {str(value).lower()}: "
                f"add --set {config.get('method', 'METHOD')}.{name}={said}."
            )


def check_trained_as(path: Path, options: Mapping[str, Any], method: str) -> None:
    """Return nothing where a checkpoint says nothing else of how it was trained than the method's `options`.

    Raises:
        CheckpointError: it was trained with another value of one of them, or cannot be read.
    """
    trained = load_metadata(path).get("training", {}).get("options", {})
    if not isinstance(trained, dict):
        raise CheckpointError(f"{path} says options {shown(trained)}, expected a table: train it again.")
    for name, value in options.items():
        if name in trained and trained[name] != value:
            raise CheckpointError(
                f"{path} was trained with {name} {clipped(str(trained[name]))}, not {value}: "
                f"leave --set {method}.{name} out, or give another --zoo for a checkpoint that is trained like that."
            )


def unfinished(path: Path) -> str | None:
    """Return how far the training had come that wrote a checkpoint before it ended, such as "38 steps"; else None.

    None also for a file that says nothing of its training, or that is not one of ours.

    Raises:
        CheckpointError: as in `load_metadata`.
    """
    if path.suffix != ".safetensors" or not path.is_file():
        return None
    training = load_metadata(path).get("training", {})
    if training.get("is_complete", True) is not False:
        return None
    steps, options = training.get("steps"), training.get("options")
    most = options.get("max_steps") if isinstance(options, dict) else None
    if not isinstance(steps, list) or not all(isinstance(one, int) for one in steps):
        return "an unknown number of steps"
    of = f" of at most {most:,}" if isinstance(most, int) and len(steps) == 1 else ""
    return f"{' and '.join(f'{one:,}' for one in steps)}{of} steps"


def load_torch_file(path: Path, *, checks_sums: bool = False) -> Any:
    """Return what a file written by `torch.save` holds: tensors and plain values; no code in it is run.

    Args:
        checks_sums: of the parts of the file, which other programs need not write.

    Raises:
        CheckpointError: the file is missing, cut off, of another kind, or holds other Python objects.
    """
    if not path.is_file():
        raise CheckpointError(f"No file at {path}: name a checkpoint, or a folder that holds one.")
    other = _other_kind(path)
    if other:
        raise CheckpointError(f"{path} is {other}, expected a file written by torch.save.")
    _check_unpacked(path, checks_sums=checks_sums)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # of pickle protocols and old formats: what counts is whether it loads
            return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        held = f"Python objects ({found[1]})" if found else "more than tensors and plain values"
        raise CheckpointError(
            f"{path} holds {held}; nothing of it was run: save its state dict of tensors alone and try again."
        ) from error
    except DAMAGE as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> CheckpointError:
    if "TorchScript" in str(error):
        return CheckpointError(
            f"{path} is a TorchScript program, no checkpoint: open it in a function of your own, MODULE:FUNCTION."
        )
    return CheckpointError(f"{path} is cut off or damaged ({first_line(error)}): fetch it again.")


def _check_unpacked(path: Path, *, checks_sums: bool) -> None:
    """Refuse a zip archive that would unpack to much more than it is: torch stores its parts as they are."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
            changed = archive.testzip() if checks_sums else None
    except (zipfile.BadZipFile, *DAMAGE) as error:
        raise _damaged(path, error) from error
    if changed is not None:
        raise _damaged(path, ValueError(f"{changed} does not match its checksum"))
    unpacked, size = sum(part.file_size for part in parts), path.stat().st_size
    pickled = max((part.file_size for part in parts if part.filename.endswith(".pkl")), default=0)
    if unpacked > 2 * size + MOST_PICKLED or pickled > MOST_PICKLED:
        raise CheckpointError(
            f"{path} would unpack to {max(unpacked, pickled):,} bytes, which no checkpoint of {size:,} bytes does: "
            "fetch it again."
        )


def _other_kind(path: Path) -> str:
    """Return what a file is by its first bytes, where that is not a zip archive or a pickle, else ""."""
    with path.open("rb") as file:
        start = file.read(256)
    if not start:
        return "empty"
    if start[:2] == b"PK" or start[:1] == b"\x80":
        return ""
    if start[8:9] == b"{":
        return "a safetensors file"
    if start.lstrip()[:1] == b"<":
        return "a web page"
    if start.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS, not the file itself"
    if start[:2] == b"\x1f\x8b":
        return "a gzip archive"
    return f"of an unknown kind (it begins with {start[:8]!r})"


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    """Return the shape of each tensor."""
    return {name: value.shape for name, value in tensors.items()}


def check_weights(
    expected: Mapping[str, torch.Size], tensors: Mapping[str, Tensor], source: Path | Checkpoint
) -> None:
    """Return nothing for tensors of exactly these names and shapes.

    Raises:
        CheckpointError: how many names are missing, unexpected or of another shape, and the first of them.
    """
    missing = [f"missing {name}" for name in expected if name not in tensors]
    unexpected = [f"unexpected {name}" for name in tensors if name not in expected]
    misshapen = [
        f"{name} has shape {tuple(tensors[name].shape)}, expected {tuple(shape)}"
        for name, shape in expected.items()
        if name in tensors and tensors[name].shape != shape
    ]
    if problems := [*missing, *unexpected, *misshapen]:
        counts = f"{len(missing)} missing, {len(unexpected)} unexpected, {len(misshapen)} of another shape"
        more = f"; and {len(problems) - NAMED} more" if len(problems) > NAMED else ""
        some = "; ".join(clipped(problem, 200) for problem in problems[:NAMED])
        raise CheckpointError(f"{source} holds another model's weights ({counts}): {some}{more}.")


def check_plain(tensors: Mapping[str, Tensor], source: Path | Checkpoint) -> None:
    """Return nothing for dense tensors that hold values.

    Raises:
        CheckpointError: one is sparse, or without values.
    """
    for name, given in tensors.items():
        if given.layout != torch.strided or given.device.type == "meta":
            raise CheckpointError(
                f"{source} holds no plain values for {name}: save its state dict of dense tensors."
            )


def check_kinds(
    expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor], source: Path | Checkpoint
) -> None:
    """Return nothing for tensors of the expected kinds: floating-point numbers of 16 bits or more, or integers.

    Numbers of another size become those of the network, which holds each of float16 and bfloat16 exactly.

    Raises:
        CheckpointError: a tensor is of another kind (integers or complex numbers for real ones), holds 8-bit
            numbers that need scales of their own, or holds no values at all.
    """
    check_plain({name: tensors[name] for name in expected}, source)
    for name, own in expected.items():
        given = tensors[name]
        if _kind(given) not in {
            _kind(own),
            "float" if _kind(own) == "integer" else "",
        }:  # counters of halved files
            raise CheckpointError(
                f"{source} holds {name} as {str(given.dtype).removeprefix('torch.')}, expected "
                f"{str(own.dtype).removeprefix('torch.')}: convert its weights, such as quantised ones, first."
            )


def _kind(tensor: Tensor) -> str:
    if tensor.is_floating_point():
        return "float" if tensor.element_size() > 1 else "float of 8 bits"
    if tensor.is_complex() or tensor.is_quantized or tensor.dtype == torch.bool:
        return str(tensor.dtype)
    return "integer"


def load_state(path: Path | Checkpoint) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the state dict and the metadata of a file that another program wrote, on the CPU.

    A name ending in .safetensors is read as that, any other as torch's format, tensors only: code in the file
    never runs. A state dict may stand below "state_dict" in a larger dict, with "module." before every name.

    Raises:
        CheckpointError: the file is missing, not of that format, or holds anything but tensors by name.
    """
    if isinstance(path, Checkpoint) or path.suffix == ".safetensors":
        return load_checkpoint(path)
    content = load_torch_file(path)
    state = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise CheckpointError(f"{path} holds no state dict, expected tensors by name; name another file.")
    return without_prefix({name: name.removeprefix("module.") for name in state}, state, path), {}


def without_prefix(
    names: Mapping[str, str], tensors: Mapping[str, Tensor], source: Path
) -> dict[str, Tensor]:
    """Return tensors under the names that theirs become.

    Raises:
        CheckpointError: two names become one, so that the file does not tell which tensor is meant.
    """
    found = {names[name]: value for name, value in tensors.items()}
    if len(found) < len(tensors):
        raise CheckpointError(f"{source} holds names twice, with and without a prefix; name another file.")
    return found


def first_line(error: BaseException) -> str:
    """Return an exception's message without its later lines, for a message of one sentence."""
    return str(error).strip().split("\n")[0] or type(error).__name__
