"""What `certify` and `predict` are given by mistake: one sentence of ours, before or in place of torch's."""

from fractions import Fraction

import numpy as np
import pytest
import torch

import bench
from bench.errors import BenchError, DataError, ModelError, UsageError
from bench.smoothing.stats import radius

IMAGE = torch.full((1, 2, 2), 0.5)


def logits(x_noisy, sigma, keys=None):
    return torch.stack([x_noisy.mean((1, 2, 3)), torch.zeros(len(x_noisy))], 1)


ANSWERS = {
    "tuple": lambda found: (found,),
    "dict": lambda found: {"logits": found},
    "list": lambda found: found.tolist(),
    "NoneType": lambda found: None,
    "float": lambda found: 1.0,
    "torch.bool": lambda found: found > 0,
    "torch.complex64": lambda found: found.to(torch.complex64),
}


@pytest.mark.parametrize("name", ["certify", "predict"])
@pytest.mark.parametrize("kind", ANSWERS)
def test_a_classifier_that_returns_something_else_than_logits_is_named(name, kind):
    with pytest.raises(ModelError, match=f"the classifier must return .*, got {kind}"):
        getattr(bench, name)(lambda *given: ANSWERS[kind](logits(*given)), IMAGE, sigma=0.5)


@pytest.mark.parametrize("kind", ANSWERS)
def test_a_classifier_that_returns_it_amid_a_certificate_is_named(kind):
    calls = []

    def late(*given):
        calls.append(given)
        return logits(*given) if len(calls) < 3 else ANSWERS[kind](logits(*given))

    with pytest.raises(ModelError, match=f"the classifier must return .*, got {kind}"):
        bench.certify(late, IMAGE, sigma=0.5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"seed": 2**63}, "seed must be below 2\\*\\*63, got 9223372036854775808"),
        ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
        ({"index": -1}, "index must be a whole number of at least 0, got -1"),
        ({"index": 2**70}, "index must be below 2\\*\\*31"),
        ({"index": 1.5}, "index must be a whole number of at least 0, got 1.5"),
        ({"batch_size": 2.5}, "batch_size must be a whole number of at least 1, got 2.5"),
        ({"batch_size": "8"}, "batch_size must be a whole number of at least 1, got '8'"),
        ({"sigma": "0.5"}, "sigma must be a positive number in pixel units, such as 0.5, got '0.5'"),
        ({"sigma": 1e38}, r"sigma must be in units of pixels in \[0,1\], at most 4, got 1e\+38"),
        ({"sigma": 1e300}, "sigma must be in units of pixels"),
        ({"sigma": float("nan")}, "sigma must be a positive number in pixel units, such as 0.5, got nan"),
        ({"sigma": True}, "sigma must be a positive number in pixel units, such as 0.5, got True"),
        ({"alpha": "0.1"}, "alpha must lie between 0 and 1, such as 0.001, got '0.1'"),
        ({"n": 10**5000}, "n must be below 2\\*\\*31, got a very large int"),
    ],
)  # fmt: skip
def test_odd_arguments_are_refused(given, message):
    with pytest.raises(UsageError, match=message):
        bench.certify(logits, IMAGE, **({"sigma": 0.5} | given))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ([[[0.5]]], r"an image must be a torch tensor \(C, H, W\), got list"),
        (None, "an image must be a torch tensor .*, got NoneType"),
        (np.zeros((1, 2, 2), np.float32), "an image must be a torch tensor .*, got ndarray"),
        (IMAGE.byte(), r"float32, got shape .*, torch.uint8: give image.float\(\) / 255"),
        (IMAGE.double(), r"float32, got shape .*, torch.float64: give image.float\(\)$"),
        (IMAGE.to_sparse(), "an image must be a dense tensor with values, got torch.sparse_coo on cpu"),
        (IMAGE.to("meta"), "an image must be a dense tensor with values, got torch.strided on meta"),
        (IMAGE * torch.nan, "an image must hold finite numbers, got NaN or infinity"),
        (IMAGE + 0.5000001, r"an image must lie in \[0,1\], got values from 1.000000\d+ to 1.000000\d+:"),
    ],
)
@pytest.mark.parametrize("name", ["certify", "predict"])
def test_odd_images_are_refused(name, image, message):
    with pytest.raises(DataError, match=message):
        getattr(bench, name)(logits, image, sigma=0.5)


@pytest.mark.parametrize("sigma", [np.float16(0.3), np.float32(0.3), Fraction(3, 10)])
def test_a_radius_is_a_float_of_the_noise_level_as_a_float(sigma):
    found = bench.certify(logits, IMAGE, sigma=sigma)
    assert type(found.radius) is float
    assert found.radius == bench.certify(logits, IMAGE, sigma=float(sigma)).radius > 0
    assert type(radius(0.1, sigma)) is float


@pytest.mark.parametrize(
    "given",
    [
        {"index": np.int32(3)},
        {"n": np.uint8(200)},
        {"n0": np.int8(100)},
        {"seed": np.int16(2000)},
        {"batch_size": np.uint8(255)},
        {"alpha": Fraction(1, 1000)},
    ],
    ids=str,
)
def test_small_integers_of_numpy_do_not_overflow(given):
    [(name, value)] = given.items()
    plain = {name: float(value) if name == "alpha" else int(value)}
    for call in (bench.certify, bench.predict) if name != "n0" else (bench.certify,):
        assert call(logits, IMAGE, sigma=0.5, **given) == call(logits, IMAGE, sigma=0.5, **plain)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda found: (found,), r"got tuple: return its logits, such as output\[0\]"),
        (lambda found: {"logits": found}, r"got dict: return its logits, such as output\.logits"),
        (lambda found: found.numpy(), "got ndarray: wrap an array in torch.from_numpy"),
        (lambda found: found[:, :1], "got 1 column: of a single logit z return two"),
    ],
)
def test_another_answer_is_told_its_remedy(answer, message):
    with pytest.raises(ModelError, match=message):
        bench.certify(lambda *given: answer(logits(*given)), IMAGE, sigma=0.5)


@pytest.mark.parametrize("model", [None, "resnet18", {"weight": IMAGE}])
def test_what_is_no_model_is_no_answer_of_a_function(model):
    with pytest.raises(UsageError, match=r"^the model is a \w+, expected a torch module or a"):
        bench.certify(model, IMAGE, sigma=0.5)


def test_numbers_of_numpy_are_numbers():
    one = bench.certify(logits, IMAGE, sigma=np.float32(0.5), index=np.int64(3), n=200)
    assert one == bench.certify(logits, IMAGE, sigma=0.5, index=3, n=200)


def test_messages_of_ours_are_short():
    with pytest.raises(BenchError) as caught:
        bench.certify(logits, IMAGE, sigma="9" * 10**7)
    assert len(str(caught.value)) < 300


def test_a_batch_given_as_one_image_is_told_how_to_give_one():
    with pytest.raises(
        DataError, match=r"got shape \(2, 1, 8, 8\), torch.float32: give one image of the batch"
    ):
        bench.certify(logits, torch.rand(2, 1, 8, 8), sigma=0.5)


@pytest.mark.parametrize(
    ("shape", "remedy"), [((8, 9, 3), r"give image.permute\(2, 0, 1\)"), ((8, 9), r"give image\[None\]")]
)
def test_an_image_whose_channels_are_not_first_is_refused(shape, remedy):
    with pytest.raises(DataError, match=remedy):
        bench.certify(logits, torch.rand(shape), sigma=0.5)
    assert bench.certify(logits, torch.rand(8, 1, 1), sigma=0.5, n0=10, n=10)


def test_sparse_logits_are_named():
    with pytest.raises(ModelError, match=r"must return dense real numbers, got .*sparse"):
        bench.certify(lambda *given: logits(*given).to_sparse(), IMAGE, sigma=0.5)
