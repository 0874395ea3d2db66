"""Counter-based words: the published ones, in numpy and in torch alike."""

import numpy as np
import pytest
import torch

from bench.smoothing.philox import signed, stream, torch_words

ALL = 2**64 - 1
PI = (
    0x243F6A8885A308D3, 0x13198A2E03707344, 0xA4093822299F31D0,
    0x082EFA98EC4E6C89, 0x452821E638D01377, 0xBE5466CF34E90C6C,
)  # fmt: skip
PUBLISHED = [
    (
        (0, 0), (0, 0, 0, 0),
        (0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B),
    ),
    (
        (ALL, ALL), (ALL, ALL, ALL, ALL),
        (0x87B092C3013FE90B, 0x438C3C67BE8D0224, 0x9CC7D7C69CD777B6, 0xA09CAEBF594F0BA0),
    ),
    (
        PI[4:], PI[:4],
        (0xA528F45403E61D95, 0x38C72DBD566E9788, 0xA5A1610E72FD18B5, 0x57BD43B5E52B7FE6),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("key", "counter", "expected"), PUBLISHED)
def test_words_are_those_published_with_random123(key, counter, expected):
    found = torch_words(*([torch.tensor(signed(word)) for word in part] for part in (key, counter)))
    assert tuple(int(word) % 2**64 for word in found) == expected


def test_a_stream_of_numpy_holds_the_words_of_its_counters():
    rng = np.random.default_rng(0)
    for key, counter in zip(
        rng.integers(2**64, size=(8, 2), dtype=np.uint64),
        rng.integers(2**64, size=(8, 3), dtype=np.uint64),
        strict=True,
    ):
        groups = torch.arange(1, 6)
        rest = [torch.tensor(signed(int(word))) for word in counter]
        found = torch_words([torch.tensor(signed(int(word))) for word in key], (groups, *rest))
        expected = stream(key, counter).random_raw(20)
        assert np.array_equal(torch.stack(found, 1).numpy().view(np.uint64).ravel(), expected)
