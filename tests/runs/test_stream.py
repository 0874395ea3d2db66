"""What costs are measured on: fresh noise of the given sigma, counted as certificates count."""

import pytest
import torch

from bench.errors import ModelError
from bench.runs.stream import Stream
from bench.smoothing.certifier import Smoothed


def stream_of(classify, images=None):
    images = torch.full((1, 3, 8, 8), 0.5) if images is None else images
    smoothed = Smoothed(classifier=classify, sigma=0.25, num_classes=2, batch_size=128)
    return Stream(smoothed=smoothed, images=images)


def test_each_batch_is_fresh_noise_of_the_given_sigma_on_the_next_image():
    seen = []

    def classify(x_noisy, sigma, keys=None):
        assert torch.is_inference_mode_enabled()
        seen.append((x_noisy.clone(), sigma, keys))
        return x_noisy.flatten(1)[:, :2]

    images = torch.stack([torch.full((3, 8, 8), value) for value in (0.25, 0.75)])
    work = stream_of(classify, images).work(200)
    for _ in range(3):
        counts = work.batch()
    assert work.size == 200
    assert counts.tolist() == [
        sum(int((x[:, 0, 0, 0] >= x[:, 0, 0, 1]).sum()) for x, _, _ in seen),
        sum(int((x[:, 0, 0, 0] < x[:, 0, 0, 1]).sum()) for x, _, _ in seen),
        0,
    ]
    noise = [x - images[number % 2] for number, (x, _, _) in enumerate(seen)]
    assert len({float(one[0, 0, 0, 0]) for one in noise}) == 3
    # 38,400 draws: the standard deviation of the spread is 0.36%; 5% is passed with probability below 1e-40.
    assert all(one.std().item() == pytest.approx(0.25, rel=0.05) for one in noise)
    assert all(abs(one.mean().item()) < 0.05 for one in noise)
    assert {sigma for _, sigma, _ in seen} == {0.25}
    assert all(len(set(keys.tolist())) == 200 for _, _, keys in seen)


def test_logits_that_are_not_finite_count_as_no_class():
    work = stream_of(lambda x_noisy, sigma, keys: torch.full((len(keys), 2), torch.nan)).work(5)
    assert work.batch().tolist() == [0, 0, 5]


def test_logits_of_another_shape_are_refused():
    work = stream_of(lambda x_noisy, sigma, keys: torch.zeros(len(keys), 3)).work(5)
    with pytest.raises(ModelError, match=r"logits of shape \(5, 2\)"):
        work.batch()
