"""A user's own classifier by "module:function": a method without options, without a checkpoint, without training."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from bench.errors import UsageError
from bench.types import Classifier, Task


@dataclass(frozen=True, kw_only=True)
class PlugInConfig:
    """What every method is told; a plug-in has no options of its own."""

    task: Task
    sigma: float


@dataclass(frozen=True, kw_only=True)
class PlugIn:
    """A plug-in as a method's module; see `bench.types.MethodModule`."""

    source: str
    Config: type = PlugInConfig

    def build(self, config: PlugInConfig, checkpoint: Path | None) -> Classifier:
        """Return the classifier that the function returns; see `open_plug_in`."""
        return open_plug_in(self.source)


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


def plug_in(source: str) -> PlugIn:
    """Return the plug-in as a method, its function found but not yet called.

    Raises:
        UsageError: a module that cannot be imported, or that has no such function.
    """
    _function(source)
    return PlugIn(source=source)


def open_plug_in(source: str) -> Classifier:
    """Return the classifier that "module:function" returns, in eval mode.

    It is a module or a callable, of noisy pixels or of (x_noisy, sigma, keys).

    Raises:
        UsageError: no such function, one that needs arguments, or what it returns cannot be called.
    """
    made = _made(source)
    if not callable(made):
        raise UsageError(f"{source} returned a {type(made).__name__}, expected a torch module or a callable")
    takes_pixels_alone = _takes_pixels_alone(made)
    if not isinstance(made, nn.Module):
        return (lambda x_noisy, sigma, keys=None: made(x_noisy)) if takes_pixels_alone else made
    return from_module(made) if takes_pixels_alone else made.eval()


def open_part(source: str) -> Any:
    """Return whatever "module:function" returns, a torch module in eval mode: a part of a method.

    Raises:
        UsageError: no such function, or one that needs arguments.
    """
    made = _made(source)
    return made.eval() if isinstance(made, nn.Module) else made


def open_module(source: str) -> nn.Module:
    """Return the torch module that "module:function" returns, in eval mode: a part of a method.

    Raises:
        UsageError: no such function, one that needs arguments, or what it returns is no torch module.
    """
    made = _made(source)
    if not isinstance(made, nn.Module):
        raise UsageError(f"{source} returned a {type(made).__name__}, expected a torch module")
    return made.eval()


def _made(source: str) -> Any:
    function = _function(source)
    try:
        inspect.signature(function).bind()
    except (TypeError, ValueError) as error:
        raise UsageError(_refusal(source, str(error))) from error
    return function()


def _function(source: str) -> Callable[[], Any]:
    module_name, function_name = source.split(":")
    try:
        return getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError) as error:
        raise UsageError(_refusal(source, str(error))) from error


def _refusal(source: str, reason: str) -> str:
    return (
        f"{source} cannot be called: {reason}; expected an importable module (PYTHONPATH) and a function without "
        "arguments that returns what is asked for"
    )


def _takes_pixels_alone(made: Callable[..., Any]) -> bool:
    signature = inspect.signature(made.forward if isinstance(made, nn.Module) else made)
    for arguments in ((None,) * 3, (None,)):
        try:
            signature.bind(*arguments)
        except TypeError:
            continue
        return len(arguments) == 1
    return False
