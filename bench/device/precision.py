"""The arithmetic a classifier runs with: float32, TF32 or bfloat16, compiled or not.

The noise is drawn and added in float32 whatever is chosen: the network casts what it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from bench.device.batching import is_out_of_memory
from bench.device.bfloat16 import prepare_for_bfloat16
from bench.device.linear import use_onednn
from bench.errors import UsageError
from bench.types import Classifier, Compilation, Precision

LAYOUTS: dict[str, torch.memory_format] = {
    "contiguous": torch.contiguous_format,
    "channels-last": torch.channels_last,
}
"""Memory format of each `bench.types.Layout`."""


class NotCompiledError(UsageError):
    """torch.compile fails; `reason` is the kind of its error and the first line of what it says."""

    def __init__(self, error: Exception) -> None:
        said = "".join(f": {line[:120]}" for line in str(error).strip().split("\n")[:1] if line)
        self.reason = f"{type(error).__name__}{said}"
        super().__init__(
            f"torch.compile fails here ({self.reason}): --compile none runs the networks as they are"
        )


_MODES = {"default": None, "cuda-graphs": "reduce-overhead"}


def make_ready(module: nn.Module, device_type: str, precision: Precision, num_classes: int) -> None:
    """Make a network ready for `at_precision`, in place, before it is compiled.

    Args:
        module: on its device, in its memory format, in eval mode; its weights must not change afterwards.
        num_classes: columns of the logits.
    """
    if device_type == "cpu":
        use_onednn(module)
    if precision == "bfloat16":
        prepare_for_bfloat16(module, num_classes)


def at_precision(classifier: Classifier, device_type: str, precision: Precision) -> Classifier:
    """Return the classifier at a precision; its logits are float32, or what is finer, as they come.

    float32 means float32: torch by itself lets convolutions use TF32 on CUDA. tf32 allows it for convolutions and
    matrix products, bfloat16 is autocast; `make_ready` prepares networks for it.
    """

    def classify(x_noisy: Tensor, sigma: float, keys: Tensor | None = None) -> Tensor:
        is_half = precision == "bfloat16"
        with (
            tf32(precision == "tf32", device_type),
            torch.autocast(device_type, torch.bfloat16, enabled=is_half),
        ):
            logits = classifier(x_noisy, sigma, keys)
        if not isinstance(logits, Tensor) or logits.dtype == torch.bool or logits.is_complex():
            return logits  # which the certifier refuses
        return logits.float() if logits.is_floating_point() and logits.element_size() < 4 else logits

    return classify


@contextmanager
def tf32(is_allowed: bool, device_type: str) -> Iterator[None]:
    """Allow or forbid TF32 on CUDA for a while, for matrix products and convolutions alike; elsewhere there is none."""
    if device_type != "cuda":
        yield
        return
    switches = tf32_switches()
    before = [getattr(place, name) for place, name, _, _ in switches]
    for place, name, allowed, forbidden in switches:
        setattr(place, name, allowed if is_allowed else forbidden)
    try:
        yield
    finally:
        for (place, name, _, _), value in zip(switches, before, strict=True):
            setattr(place, name, value)


def tf32_switches() -> list[tuple[Any, str, Any, Any]]:
    """Return (object, attribute, value that allows TF32, value that forbids it) for matrix products and convolutions.

    Booleans, which libraries still read; where a program has set the strings that torch 2.9 has in their place, torch
    refuses to read them, and strings it is.
    """
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    try:
        _ = matmul.allow_tf32, cudnn.allow_tf32
    except RuntimeError:
        places = (matmul, cudnn.conv, cudnn.rnn)  # type: ignore[attr-defined]
        return [(place, "fp32_precision", "tf32", "ieee") for place in places]
    return [(place, "allow_tf32", True, False) for place in (matmul, cudnn)]


@contextmanager
def training_arithmetic(precision: str, device_type: str) -> Iterator[None]:
    """Compute the forward pass of training in its precision for a while: low ones by autocast, the others as they are.

    On a CPU attention in a low precision is written out as matrix products there, since the gradient of torch's fused
    kernel takes 17 times as long in bfloat16 as in float32 (18 tokens, 4 heads of 32).
    """
    low = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(precision)
    if low is None:
        yield
        return
    with torch.autocast(device_type, low), ExitStack() as stack:
        if device_type == "cpu":
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        yield


@contextmanager
def full_precision(device_type: str) -> Iterator[None]:
    """Compute in float32 for a while, whatever precision surrounds it: geometry, noise."""
    with torch.autocast(device_type, enabled=False), tf32(False, device_type):
        yield


def layout(module: nn.Module, device_type: str, precision: str) -> torch.memory_format:
    """Return how a network's convolutions are laid out by rule: channels last, but for two cases on CUDA.

    There float32 convolutions have been slower that way, and GroupNorm copies what it is given to channels first and
    has it copied back. `bench cost` measures it instead. A run keeps to the rule: its logits depend on the layout in
    their last bits, and must come out again in a replay, whatever is fastest then. `torch.backends.cudnn.benchmark`
    stays off for the same reason: it chooses algorithms by time, anew in each process and for each batch size.
    """
    has_group_norm = any(isinstance(part, nn.GroupNorm) for part in module.modules())
    if device_type == "cuda" and (precision == "float32" or has_group_norm):
        return torch.contiguous_format
    return torch.channels_last


def compiled(
    classifier: Classifier,
    how: Compilation,
    compiler: Callable[..., Classifier] = torch.compile,
) -> Classifier:
    """Return the classifier under torch.compile.

    Where compiling fails, this or a call of what it returns raises UsageError: as it is, the classifier would be
    another function in its last bits than the one that the header of the run records.

    Args:
        classifier: best a module, which compiles as a whole, or whose `compiled_parts()` do, in place.
        how: "none", "default", or "cuda-graphs" for torch's mode "reduce-overhead".
        compiler: `torch.compile`, or a stand-in.
    """
    if how == "none":
        return classifier
    has_parts = hasattr(type(classifier), "compiled_parts")
    plain = [(one, one.forward) for one in classifier.compiled_parts()] if has_parts else []  # type: ignore[attr-defined]
    quick = classifier
    try:
        for one, forward in plain:
            one.forward = compiler(forward, mode=_MODES[how], dynamic=False)
        if not has_parts:
            quick = compiler(classifier, mode=_MODES[how], dynamic=False)
    except Exception as error:  # such as a Python that it does not know
        raise NotCompiledError(error) from error

    def classify(x_noisy: Tensor, sigma: float, keys: Tensor | None = None) -> Tensor:
        try:
            with many_programs():
                logits = quick(x_noisy, sigma, keys)
        except Exception as error:  # whatever the compiler of this machine raises
            if is_out_of_memory(error):
                raise
            for one, forward in plain:
                one.forward = forward
            classifier(x_noisy, sigma, keys)  # its own errors are not the compiler's
            raise NotCompiledError(error) from error
        return logits.clone() if how == "cuda-graphs" else logits  # the next replay overwrites them

    return classify


@contextmanager
def many_programs(limit: int = 64) -> Iterator[None]:
    """Let torch.compile hold one program for each batch size and method for a while, which by itself it would not.

    Beyond its own limit it silently runs networks as they are.
    """
    from torch._dynamo import config

    name = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"
    with config.patch({name: limit}):
        yield
