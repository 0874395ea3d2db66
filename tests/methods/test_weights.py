"""The digest of weights: it sees them wherever a classifier holds them, and says where it cannot."""

import functools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bench.methods.weights import IN_PART, fingerprint
from bench.types import UNSEEN


def linear(shift=0.0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Linear(4, 2)
    with torch.no_grad():
        network.bias[1] += shift
    return network


@dataclass
class Held:
    parts: dict[str, Any] = field(default_factory=dict)

    def __call__(self, x):
        return self.parts["networks"][0](x)


class Slotted:
    __slots__ = ("network",)

    def __init__(self, network):
        self.network = network

    def __call__(self, x):
        return self.network(x)


class InItsClass:
    def __call__(self, x):
        return type(self).network(x)


class Unregistered(nn.Module):
    """Keeps its weights where no state dict finds them: in a list, and as a plain tensor."""

    def __init__(self, network):
        super().__init__()
        self.networks, self.scale = [network], network.weight.detach().clone()

    def forward(self, x):
        return self.networks[0](x) * self.scale.mean()


def closure(network):
    return lambda x: network(x)


def nested(network):
    inner = closure(network)
    return lambda x: inner(x)


def default(network):
    def classify(x, *, network=network):
        return network(x)

    return classify


def in_class(network):
    return type("Made", (InItsClass,), {"network": network})()


def of_global(network):
    """Return a function of a module whose global is the network, as a user's file has it."""
    names: dict[str, Any] = {"NETWORK": network, "__name__": "mynet"}
    exec("def classify(x):\n    return NETWORK(x)", names)
    return names["classify"]


HOLDERS = {
    "module": lambda network: nn.Sequential(nn.Flatten(), network),
    "unregistered": Unregistered,
    "closure": closure,
    "nested": nested,
    "default": default,
    "partial": lambda network: functools.partial(lambda inner, x: inner(x), network),
    "bound method": lambda network: network.forward,
    "dataclass": lambda network: Held(parts={"networks": [network]}),
    "slots": Slotted,
    "class": in_class,
    "global": of_global,
    "scripted": torch.jit.script,
    "array": lambda network: Held(
        parts={"w": network.weight.detach().numpy(), "b": network.bias.detach().numpy()}
    ),
}


@pytest.mark.parametrize("name", HOLDERS)
@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*")
def test_weights_are_seen_wherever_a_classifier_holds_them(name):
    hold = HOLDERS[name]
    first, again, other = (fingerprint(hold(linear(shift))) for shift in (0.0, 0.0, 1e-7))
    assert len(first) == 64
    assert first == again
    assert first != other


def test_a_type_or_a_shape_or_a_name_makes_another_digest():
    zeros = [{"w": torch.zeros(4)}, {"w": torch.zeros(2, 2)}, {"w": torch.zeros(4, dtype=torch.int32)}]
    assert len({fingerprint(Held(parts=held)) for held in [*zeros, {"v": torch.zeros(4)}]}) == 4


def test_types_that_numpy_lacks_and_strange_layouts_are_digested():
    weights = torch.arange(4.0).reshape(2, 2)
    strange = [weights.bfloat16(), weights.to_sparse(), weights.t(), torch.tensor(1.0), torch.empty(0)]
    assert all(len(fingerprint(Held(parts={"w": one}))) == 64 for one in strange)


def test_what_holds_no_tensor_is_unseen():
    assert fingerprint(lambda x: x * 2) == UNSEEN
    assert fingerprint(Held(parts={"threshold": 0.5})) == UNSEEN


def test_what_cannot_be_looked_into_is_named_behind_the_digest():
    @functools.cache
    def loaded():
        return linear()

    network = linear()
    found = fingerprint(lambda x: loaded()(x) + network(x))
    assert found[64:] == f"{IN_PART}functools._lru_cache_wrapper"
    meta = Held(parts={"a": torch.zeros(1), "b": nn.Linear(2, 2, device="meta")})
    assert "Parameter" in fingerprint(meta)


def test_many_objects_and_cycles_come_to_an_end():
    held = Held(parts={"numbers": list(range(1000)), "arrays": [np.zeros(1)] * 1000})
    held.parts["self"] = held
    assert len(fingerprint(held)) == 64
