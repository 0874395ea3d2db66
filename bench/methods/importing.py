"""Released checkpoints -> safetensors files of ours: recognised, checked name by name, described."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from bench.errors import CheckpointError, UsageError, typed
from bench.methods import registry, zoo
from bench.training.checkpoints import check_plain, load_metadata, load_torch_file, save_checkpoint
from bench.training.released import Released, ReleasedFile
from bench.types import Checkpoint

LIKENESSES = {"patch_embed.": "a vision transformer", "layer1.": "a residual network"}
"""Start of a tensor's name -> what kind of network has it."""


def import_checkpoint(
    path: Path,
    out: Path,
    *,
    command: str,
    which: str | None = None,
    method: str | None = None,
    said: Mapping[str, Any],
) -> tuple[str, ...]:
    """Write a released checkpoint as the safetensors file `out`, and return sentences on what it is.

    Args:
        path: a file written by torch.save, or a released folder.
        command: the command line, kept in the file.
        which, method, said: as in `read`.

    Raises:
        CheckpointError: the file is damaged, holds more than tensors, or is of another kind or model.
        UsageError: something must be said that is not, or the other way round.
    """
    if out.suffix != ".safetensors":
        raise UsageError(f"--out is {out}, expected a name that ends in .safetensors")
    if out.exists():
        raise UsageError(f"{out} exists: give another --out")
    if (path / "model_index.json").is_file():
        raise UsageError(
            f"{path} is a diffusers pipeline: nothing to import, `--set METHOD.denoiser={typed(path)}` takes it as it "
            "is"
        )
    if path.suffix == ".safetensors" and load_metadata(path).get("config"):
        raise UsageError(
            f"{path} holds its configuration already: `bench doctor --checkpoint {typed(path)}` says what it is"
        )
    found = read(path, which=which, method=method, said=said)
    check_plain(found.tensors, path)
    for name, value in found.tensors.items():
        if value.is_floating_point() and value.element_size() < 2:
            raise CheckpointError(
                f"{path} holds {name} in 8 bits, which need scales: convert its weights first"
            )
    origin = {"command": command, **found.training}
    save_checkpoint(out, found.tensors, config=found.config, training=origin)
    return (*found.description, found.use or _how_to_use(out, found.file_name))


def read(
    path: Path, *, which: str | None = None, method: str | None = None, said: Mapping[str, Any]
) -> Checkpoint:
    """Return a released checkpoint in our form.

    Args:
        which: network of a released folder, by the names of `Released.files`; None: the default.
        method: the method that trained it; None: the first one that recognises it.
        said: what tensors do not tell, as in `ReleasedFile`; None where the user said nothing.

    Raises:
        CheckpointError, UsageError: as in `import_checkpoint`.
    """
    if path.is_dir():
        path = _file_in(path, which)
    elif which is not None:
        raise UsageError(f"--which is {which}, but {path} is not a folder: leave it out")
    content = load_torch_file(path)
    file = ReleasedFile(path=path, content=content, tensors=_state_dict(content), said=said)
    found = _recognised(file, method).read(file)
    found.training.update(imported_from=path.name, sha256=zoo.sha256(path))
    return found


def _file_in(folder: Path, which: str | None) -> Path:
    """Return the file of one network, None being the default, in a released folder of any method."""
    forms = [form.files for _, form in registry.offers("RELEASED") if form.files]
    names = [files[name] for files in forms if (name := which or next(iter(files))) in files]
    if not names:
        known = dict.fromkeys(name for files in forms for name in files)
        raise UsageError(f"--which is {which}, expected one of {', '.join(known)}")
    for name in names:
        if (folder / name).is_file():
            return folder / name
    found = sorted(entry.name for entry in folder.iterdir())
    shown = ", ".join(found[:6]) or "nothing"
    raise CheckpointError(
        f"{folder} holds {shown}{', ...' if len(found) > 6 else ''}, and no {' or '.join(names)}: name a "
        "released folder, or one of its files."
    )


def _recognised(file: ReleasedFile, method: str | None) -> Released:
    """Return the form of the file among those of the method, or of all."""
    known: dict[str, None] = {}  # an ordered set
    for name, form in registry.offers("RELEASED"):
        if method in (None, name) and form.recognises(file):
            return form
        known[form.what] = None
    if method is not None:
        registry.load(method)
        raise UsageError(
            f"--method is {method}, but {file.path} is no checkpoint of it that can be read: leave it out"
        )
    *most, last = known
    raise CheckpointError(
        f"{file.path} is {_likeness(file.content, file.tensors)}, expected {', '.join(most)}, or {last}. A network of "
        "another form is used by a function of yours that makes it and loads the file: give MODULE:FUNCTION."
    )


def _state_dict(content: Any) -> dict[str, Tensor]:
    """Return the named tensors of a file: at the top, or below "model" or "state_dict"; {} where there are none."""
    if not isinstance(content, dict):
        return {}
    for key in ("model", "state_dict"):
        if isinstance(content.get(key), dict):
            return _state_dict(content[key])
    named = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    return named if len(named) == len(content) else {}


def _likeness(content: Any, tensors: Mapping[str, Tensor]) -> str:
    """Return what a file that is not imported looks like."""
    names = [name.removeprefix("module.") for name in tensors]
    if not tensors:
        keys = f" with the keys {', '.join(map(str, list(content)[:6]))}" if isinstance(content, dict) else ""
        return f"a {type(content).__name__}{keys} and no state dict"
    for start, what in LIKENESSES.items():
        if any(name.startswith(start) for name in names):
            return f"the state dict of {what} of another form"
    return f"a state dict of another model, with names such as {', '.join(names[:3])}"


def _how_to_use(out: Path, file_name: str | None) -> str:
    if file_name is None:
        return "give --sigma to learn the name under which a zoo expects the file"
    return f"`--zoo DIR` of run and train finds it as DIR/<data set>/{file_name}" + (
        "" if out.name == file_name else ", so rename or move it"
    )
