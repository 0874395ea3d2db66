"""Any model as a classifier: a torch module, a callable, and a function of the user's own by "module:function"."""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import os
import pickle
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from bench.errors import CheckpointError, ModelError, UsageError, clipped
from bench.smoothing.noise import seeded_initialisation
from bench.types import Classifier

NO_ARGUMENTS: Mapping[str, Any] = MappingProxyType({})

CALL = "(x_noisy, sigma, keys=None)"
"""How a classifier is called that is told sigma; see `bench.types.Classifier`."""

COMPOSES = "compose_certificate"
"""Hook of a classifier whose certificates several bounds make; see `bench.types.CertifyPart`."""

SHOWN = 300
"""Characters of another program's message that are shown."""

DAMAGED = re.compile(r"PytorchStreamReader|unexpected EOF|file might be corrupted|Invalid magic number")
"""What torch says in a RuntimeError of a file that is cut off or is none of its own."""

Module = TypeVar("Module", bound=nn.Module)


class PixelsAlone(nn.Module):
    """A module of noisy pixels as a Classifier: sigma plays no part."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x_noisy: Tensor, sigma: float, keys: Tensor | None = None) -> Tensor:
        """Return logits (B,K) for x_noisy (B,C,H,W) in pixel units."""
        return self.network(x_noisy)


def from_module(module: nn.Module) -> PixelsAlone:
    """Return a classifier that calls a torch module on the noisy pixels alone.

    Args:
        module: from (B, C, H, W) pixels to (B, K) logits; its first layer does any normalisation. It is put
            in evaluation mode, because dropout and batch statistics would make a class depend on its batch.

    Raises:
        UsageError: it cannot be called, or needs more than pixels.
    """
    _check_callable(module, "from_module's argument is")
    signature = _signature(module)
    if signature is not None and not _takes(signature, 1):
        raise UsageError(
            f"from_module's argument takes {clipped(str(signature))}, expected noisy pixels alone: give a model of "
            f"{CALL} to certify itself"
        )
    return in_eval_mode(PixelsAlone(module))


def as_classifier(made: Any, source: str = "the function", verb: str = "returned") -> Classifier:
    """Return a torch module or a callable as a classifier, modules in eval mode: it may take noisy pixels alone.

    Args:
        made: of noisy pixels, or of (x_noisy, sigma, keys).
        source, verb: where it is from, for the message.

    Raises:
        UsageError: it cannot be called, or with other arguments.
    """
    _check_callable(made, f"{source} {verb}")
    takes_pixels_alone = _takes_pixels_alone(made)
    if takes_pixels_alone and hasattr(made, COMPOSES):
        raise UsageError(
            f"{source} has {COMPOSES} and takes pixels alone: let it take (x_noisy, sigma, keys), as its parts may"
        )
    signature = _signature(made)
    if not takes_pixels_alone and signature is not None and not _takes(signature, 3):
        raise UsageError(
            f"{source} {verb} a callable of {clipped(str(signature))}, expected one of {CALL}, or of x_noisy alone: "
            "give it these parameters"
        )
    if not isinstance(made, nn.Module):
        return (lambda x_noisy, sigma, keys=None: made(x_noisy)) if takes_pixels_alone else made
    return from_module(made) if takes_pixels_alone else in_eval_mode(made)


def _check_callable(made: Any, subject: str) -> None:
    """Raise UsageError for what is no model, such as a class, a name or a state dict."""
    expected = "expected a torch module or a callable"
    if isinstance(made, type):
        raise UsageError(f"{subject} the class {made.__name__}, {expected}: make one, {made.__name__}(...)")
    if not callable(made):
        remedy = ": load a state dict into a model, model.load_state_dict(...)"
        raise UsageError(
            f"{subject} a {type(made).__name__}, {expected}{remedy if isinstance(made, Mapping) else ''}"
        )


def in_eval_mode(module: Module) -> Module:
    """Return a module in eval mode; what refuses to change, as an exported program does, stays as it is."""
    try:
        module.eval()
    except NotImplementedError:
        for child in module.children():
            in_eval_mode(child)
    return module


@contextlib.contextmanager
def modes_kept(model: object) -> Iterator[None]:
    """Give a module, and each module inside, its training or eval mode back at the end of the block, if it has one."""
    parts = list(model.modules()) if isinstance(model, nn.Module) else []
    modes = [(part, part.training) for part in parts if hasattr(part, "training")]
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def opened(source: str, build: Callable[[], Any]) -> Classifier:
    """Return what a method's or a user's function builds, as a classifier; see `as_classifier`.

    Weights that it draws from torch's global generator are the same each time, and in every process.

    Raises:
        CheckpointError: a file that the function opens is missing, damaged or of another model.
        UsageError: what it returns cannot be called; and whatever else `build` raises.
    """
    return as_classifier(_guarded(source, build), source)


def _guarded(source: str, build: Callable[[], Any]) -> Any:
    """Return what a function builds, its weights drawn from one seed; see `opened`."""
    try:
        with seeded_initialisation(0):
            return build()
    except OSError as error:
        raise CheckpointError(
            f"{source} opens a file that cannot be read ({_short(error)}): bring that file, or mend its path where "
            f"{source} opens it"
        ) from error
    except SystemExit as error:
        raise UsageError(_ended(source, "called")) from error
    except (SafetensorError, pickle.UnpicklingError, EOFError, RuntimeError) as error:
        told = _fault_of_a_file(error)
        if told is None:
            raise
        raise CheckpointError(f"{source} {told}") from error


def _fault_of_a_file(error: Exception) -> str | None:
    """Return what an error tells of the file that a function opens, with the remedy; None where it is no such fault."""
    text = str(error)
    if "loading state_dict" in text:
        return (
            f"loads weights of another model ({_short(error)}): bring the file of this model, or make the model of "
            "the file"
        )
    if "deserialize object on" in text:
        return (
            f"opens a file of weights on a device that is not here ({_short(error)}): give torch.load "
            'map_location="cpu"; the model is moved to the device later'
        )
    if not isinstance(error, RuntimeError) or DAMAGED.search(text):
        return f"opens a file that is damaged, or of another kind ({_short(error)}): bring the right file"
    return None


def _ended(source: str, moment: str) -> str:
    return (
        f"{source} ends the program when {moment} (sys.exit): put the script part of its module below "
        "`if __name__ == '__main__'`"
    )


def open_part(source: str) -> Any:
    """Return whatever "module:function" returns, a torch module in eval mode: a part of a method.

    Raises:
        UsageError: no such function, or one that needs arguments.
        CheckpointError: as in `opened`.
    """
    made = _guarded(source, lambda: called(source, function_named(source)))
    return in_eval_mode(made) if isinstance(made, nn.Module) else made


def open_module(source: str) -> nn.Module:
    """Return the torch module that "module:function" returns, in eval mode: a part of a method.

    Raises:
        UsageError: no such function, one that needs arguments, or what it returns is no torch module.
    """
    made = open_part(source)
    if not isinstance(made, nn.Module):
        raise UsageError(f"{source} returned a {type(made).__name__}, expected a torch module")
    return made


def function_named(source: str) -> Callable[..., Any]:
    """Return the function that "module:function" names; the module is looked for in the current folder first.

    In place of the function there may be the torch module itself; the function then returns it.

    Raises:
        UsageError: a module that cannot be imported, that is hidden by another, or that has no such function.
    """
    module_name, function_name = source.split(":")
    found = _attribute(source, module_name, function_name)
    if not callable(found):
        raise UsageError(_refusal(source, f"it is a {type(found).__name__}, no function"))
    return (lambda: found) if isinstance(found, nn.Module) else found


def _attribute(source: str, module_name: str, name: str) -> Any:
    try:
        with _from_current_folder(), seeded_initialisation(0):
            module = importlib.import_module(module_name)
        _check_not_hidden(source, module_name)
        return getattr(module, name)
    except UsageError:
        raise
    except (ImportError, AttributeError) as error:
        _check_not_hidden(source, module_name)
        raise UsageError(_refusal(source, f"{error}{_place(error)}")) from error
    except SystemExit as error:
        raise UsageError(_ended(source, "imported")) from error
    except Exception as error:  # whatever the user's module does when it is imported
        told = f"{type(error).__name__}: {error}{_place(error)}"
        raise UsageError(f"{source} cannot be called: its module cannot be imported ({told})") from error


def _check_not_hidden(source: str, module_name: str) -> None:
    """Raise UsageError where the current folder has the module, and Python has imported another of its name."""
    here, top = Path.cwd(), module_name.split(".")[0]
    own = here.joinpath(*module_name.split("."))
    if top not in sys.modules or not (own.with_suffix(".py").is_file() or (own / "__init__.py").is_file()):
        return
    imported = sys.modules[top]
    places = [getattr(imported, "__file__", None), *getattr(imported, "__path__", ())]
    mine = (here / f"{top}.py", here / top / "__init__.py", here / top)
    if not {Path(place).resolve() for place in places if place} & {path.resolve() for path in mine}:
        raise UsageError(
            f"{source} is hidden: Python has imported another module {top} ({places[0] or 'built in'}), not the one in "
            f"{here}: rename that one"
        )


def called(source: str, function: Callable[..., Any], arguments: Mapping[str, Any] = NO_ARGUMENTS) -> Any:
    """Return what a function returns when it is called with these arguments.

    Raises:
        UsageError: it needs others; and whatever else it raises.
    """
    try:
        inspect.signature(function).bind(**arguments)
    except (TypeError, ValueError) as error:
        raise UsageError(_refusal(source, str(error))) from error
    return function(**arguments)


@contextlib.contextmanager
def _from_current_folder() -> Iterator[None]:
    """Look for modules in the current folder first, and behind all others once the block has ended."""
    here = os.getcwd()
    importlib.invalidate_caches()
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)
        if here not in sys.path:
            sys.path.append(here)


def _place(error: Exception) -> str:
    """Return the file and line of the user's code where an error was raised, "" where it was raised by ours."""
    own = [
        one
        for one in traceback.extract_tb(error.__traceback__)
        if one.filename != __file__
        and not one.filename.startswith("<frozen")
        and "importlib" not in one.filename
    ]
    theirs = [one for one in own if "site-packages" not in one.filename] or own
    return f", {theirs[-1].filename}, line {theirs[-1].lineno}" if theirs else ""


def _refusal(source: str, reason: str) -> str:
    return (
        f"{source} cannot be called: {reason}; expected a module in the current folder or on PYTHONPATH, and a "
        f"function without arguments, or with --set {source}.NAME=VALUE for each, that returns what is asked for"
    )


def _takes_pixels_alone(made: Callable[..., Any]) -> bool:
    """Return whether something is called with noisy pixels alone: it can be, and has no place that is named sigma.

    Of what takes anything, a module is: it hands all on to a network within. A function is told all.
    """
    is_module, signature = isinstance(_innermost(made), nn.Module), _signature(made)
    if signature is None:
        return is_module
    is_told = "sigma" in signature.parameters or (_takes_anything(signature) and not is_module)
    return not is_told and _takes(signature, 1)


def _signature(made: Callable[..., Any]) -> inspect.Signature | None:
    """Return how something is called, or what it wraps; None where it does not tell, as a scripted module."""
    return _own_signature(_innermost(made))


def _own_signature(made: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(made.forward if isinstance(made, nn.Module) else made)
    except (TypeError, ValueError):
        return None


def _takes(signature: inspect.Signature, positional: int) -> bool:
    """Return whether something can be called with so many arguments by position."""
    try:
        signature.bind(*(None,) * positional)
    except TypeError:
        return False
    return True


def _takes_anything(signature: inspect.Signature | None) -> bool:
    return signature is not None and any(
        one.kind is one.VAR_POSITIONAL for one in signature.parameters.values()
    )


def _innermost(made: Any) -> Any:
    """Return what tells how it is called: the module inside of a wrapper of torch that takes anything."""
    inner = getattr(made, "_orig_mod", None)
    if isinstance(made, functools.partial) and not (made.args or made.keywords):
        inner = made.func
    elif isinstance(made, nn.Module) and isinstance(getattr(made, "module", None), nn.Module):
        inner = made.module if _takes_anything(_own_signature(made)) else inner
    return _innermost(inner) if isinstance(inner, nn.Module) else made


def _short(error: Exception) -> str:
    return clipped(" ".join(str(error).split()) or type(error).__name__, SHOWN)


def not_a_tensor(logits: object, shape: str) -> str:
    """Return what is wrong with logits that are not a torch tensor of the shape."""
    if hasattr(logits, "__array__"):
        remedy = "wrap an array in torch.from_numpy"
    elif isinstance(logits, tuple | list):
        remedy = "return its logits, such as output[0]"
    else:
        remedy = "return its logits" + ("" if logits is None else ", such as output.logits")
    kind = type(logits).__name__
    return f"the classifier must return logits of shape {shape} as a torch tensor, got {kind}: {remedy}"


def check_shape(logits: Tensor, samples: int, num_classes: int) -> None:
    """Raise ModelError where the logits do not have shape (samples, num_classes), or are no real numbers."""
    if not isinstance(logits, Tensor):
        raise ModelError(not_a_tensor(logits, f"({samples}, {num_classes})"))
    if (shape := tuple(logits.shape)) != (samples, num_classes):
        raise ModelError(
            f"the classifier must return logits of shape ({samples}, {num_classes}), one row per "
            f"sample and one column per class, got {shape}: use a model of these classes"
        )
    if logits.dtype == torch.bool or logits.is_complex() or logits.layout != torch.strided:
        kind = f"{logits.dtype}, {logits.layout}"
        raise ModelError(f"the classifier must return dense real numbers, got {kind}: return its logits")
