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
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from bench.errors import CheckpointError, ModelError, UsageError
from bench.smoothing.noise import seeded_initialisation
from bench.types import Classifier

NO_ARGUMENTS: Mapping[str, Any] = MappingProxyType({})

COMPOSES = "compose_certificate"
"""Hook of a classifier whose certificates several bounds make; see `bench.types.CertifyPart`."""

SHOWN = 300
"""Characters of another program's message that are shown."""


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
    """
    return PixelsAlone(module).eval()


def as_classifier(made: Any, source: str = "the function") -> Classifier:
    """Return a torch module or a callable as a classifier, modules in eval mode: it may take noisy pixels alone.

    Args:
        made: of noisy pixels, or of (x_noisy, sigma, keys).
        source: what made it, for the message.

    Raises:
        UsageError: it cannot be called.
    """
    if not callable(made):
        raise UsageError(f"{source} returned a {type(made).__name__}, expected a torch module or a callable")
    takes_pixels_alone = _takes_pixels_alone(made)
    if takes_pixels_alone and hasattr(made, COMPOSES):
        raise UsageError(
            f"{source} has {COMPOSES} and takes pixels alone: let it take (x_noisy, sigma, keys), as its parts may"
        )
    if not isinstance(made, nn.Module):
        return (lambda x_noisy, sigma, keys=None: made(x_noisy)) if takes_pixels_alone else made
    return from_module(made) if takes_pixels_alone else made.eval()


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
    except (SafetensorError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"{source} opens a file that is damaged, or of another kind ({_short(error)}): bring the right file"
        ) from error
    except RuntimeError as error:
        if "loading state_dict" not in str(error):
            raise
        raise CheckpointError(
            f"{source} loads weights of another model ({_short(error)}): bring the file of this model, or make the "
            "model of the file"
        ) from error


def open_part(source: str) -> Any:
    """Return whatever "module:function" returns, a torch module in eval mode: a part of a method.

    Raises:
        UsageError: no such function, or one that needs arguments.
        CheckpointError: as in `opened`.
    """
    made = _guarded(source, lambda: called(source, function_named(source)))
    return made.eval() if isinstance(made, nn.Module) else made


def open_module(source: str) -> nn.Module:
    """Return the torch module that "module:function" returns, in eval mode: a part of a method.

    Raises:
        UsageError: no such function, one that needs arguments, or what it returns is no torch module.
    """
    made = open_part(source)
    if not isinstance(made, nn.Module):
        raise UsageError(f"{source} returned a {type(made).__name__}, expected a torch module")
    return made.eval()


def function_named(source: str) -> Callable[..., Any]:
    """Return the function that "module:function" names; the module is looked for in the current folder first.

    Raises:
        UsageError: a module that cannot be imported, or that has no such function.
    """
    module_name, function_name = source.split(":")
    try:
        with _from_current_folder():
            module = importlib.import_module(module_name)
        return getattr(module, function_name)
    except (ImportError, AttributeError) as error:
        raise UsageError(_refusal(source, f"{error}{_place(error)}")) from error
    except Exception as error:  # whatever the user's module does when it is imported
        told = f"{type(error).__name__}: {error}{_place(error)}"
        raise UsageError(f"{source} cannot be called: its module cannot be imported ({told})") from error


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
    """Return whether something is called with noisy pixels alone: it can be, and has no place that is named sigma."""
    made = _innermost(made)
    try:
        signature = inspect.signature(made.forward if isinstance(made, nn.Module) else made)
    except (TypeError, ValueError):  # a scripted module tells nothing of itself
        return isinstance(made, nn.Module)
    kinds = {one.kind for one in signature.parameters.values()}
    if "sigma" in signature.parameters or inspect.Parameter.VAR_POSITIONAL in kinds:
        return False
    try:
        signature.bind(None)
    except TypeError:
        return False
    return True


def _innermost(made: Any) -> Any:
    """Return what tells how it is called: the module inside of a wrapper of torch that takes anything."""
    inner = made.module if isinstance(made, nn.DataParallel) else getattr(made, "_orig_mod", None)
    if isinstance(made, functools.partial) and not (made.args or made.keywords):
        inner = made.func
    return _innermost(inner) if isinstance(inner, nn.Module) else made


def _short(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


FAULTS = (RuntimeError, AssertionError, ValueError)
"""What torch, and the checks in models' own code, raise on inputs that do not fit."""

OTHER_TYPE = re.compile(r"dtype|(Double|Half|BFloat16)|Input type .* should be the same")
CHANNELS = re.compile(r"to have (\d+) channels, but got (\d+) channels")
OTHER_SHAPE = re.compile(
    r"shapes cannot be multiplied|size mismatch|Sizes of tensors must match|[Kk]ernel size can't be greater|"
    r"must match the size|Input (height|width|size)|Output size is too small|invalid for input of size"
)
OTHER_DEVICE = re.compile(r"same device|Input type \(torch\.cuda|to be on cpu|to be on cuda")


def explained(classifier: Classifier, network: Any = None) -> Classifier:
    """Return the classifier; an error of its own that means a known fault becomes a ModelError of one line.

    Args:
        network: the module behind it, whose weights tell their type; any other object tells nothing.
    """

    def classify(x_noisy: Tensor, sigma: float, keys: Tensor | None = None) -> Tensor:
        try:
            return classifier(x_noisy, sigma, keys)
        except FAULTS as error:
            told = _meaning(str(error), network, x_noisy)
            if told is None:
                raise
            raise ModelError(f"the classifier cannot take the noisy images: {told}") from error

    return classify


def _meaning(text: str, network: Any, x: Tensor) -> str | None:
    """Return what an error's text means, with the remedy; None where it is no known fault."""
    _, channels, height, width = x.shape
    short, images = " ".join(text.split())[:200], f"{channels}x{height}x{width}"
    if OTHER_DEVICE.search(text):
        return (
            f"its weights are not on {x.device}, where the images are ({short}): let the function return the torch "
            "module itself, which is moved there, or give --device cpu"
        )
    if OTHER_TYPE.search(text) and (types := _types(network) - {x.dtype} or _types_in(text)):
        names = ", ".join(sorted(str(one).removeprefix("torch.") for one in types))
        return (
            f"its weights are {names}, and the images are {str(x.dtype).removeprefix('torch.')}: call .float() on the "
            "model where it is made"
        )
    if (found := CHANNELS.search(text)) and int(found[2]) == channels:
        repeat = f", or repeat the channel before it, x.repeat(1, {found[1]}, 1, 1)" if channels == 1 else ""
        first = f"its first layer takes {found[1]} channels"
        return f"{first}, and the images are {images}: use a model of such images{repeat}"
    if OTHER_SHAPE.search(text):
        return f"a layer of it does not fit images of {images} ({short}): use a model of such images"
    return None


def _types(network: Any) -> set[torch.dtype]:
    if not isinstance(network, nn.Module):
        return set()
    return {one.dtype for one in network.parameters() if one.is_floating_point()}


def _types_in(text: str) -> set[str]:
    names = {"Double": "float64", "double": "float64", "Half": "float16", "BFloat16": "bfloat16"}
    return {name for word, name in names.items() if re.search(rf"\b{word}\b|{word}Tensor|::{word}", text)}
