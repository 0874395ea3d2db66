"""Networks that are right by construction, or trained in a second, under right and wrong declarations.

A constructed network errs on an image with probability below 1e-9 under its own reading, so that a right declaration
is accused, and a wrong one missed, with probability below 64e-9 in each of these tests; their seeds are fixed too.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from baselines.networks.consistency_map import ConsistencyModel
from baselines.networks.diffusion import DiffusionDenoiser
from baselines.networks.resnet import Normalize
from baselines.parts.readings import Reading
from bench.checks.doctor.examine import examine
from bench.checks.doctor.images import choose_images
from bench.checks.doctor.metadata import Subject, declared_scaling
from bench.checks.doctor.scalings import known_scalings, named
from bench.commands.doctor import answer_table, sentence
from bench.data.sets import PixelTensor
from bench.data.subsets import held_out, training_parts
from bench.errors import CheckpointError, DataError, NumericalError
from bench.methods import registry
from bench.report.markup import as_cell
from bench.smoothing.classifiers import PixelsAlone
from bench.smoothing.sigma import cosine_alphas_cumprod, linear_alphas_cumprod
from bench.training.released import Fed
from bench.types import Split, Task

TASK = Task(dataset="shades", channels=1, image_size=8, num_classes=4)
SHADES = torch.tensor([0.2, 0.4, 0.6, 0.8])
SIGMA = 0.12
SCALINGS = {scaling.name: scaling for scaling in known_scalings(1)}


def shades(name="train", per_class=160):
    """Return a split of images of one of four shades each, 16 held out per class."""
    labels = torch.arange(4 * per_class) % 4
    pixels = (255 * SHADES[labels]).round().to(torch.uint8)[:, None, None, None].expand(-1, 1, 8, 8)
    names = ("night", "dusk", "dawn", "noon")
    return Split(
        task=TASK,
        name=name,
        images=PixelTensor(pixels.contiguous()),
        labels=labels.tolist(),
        class_names=names,
    )


IMAGES = choose_images(shades(), seed=0)


class NearestShade(nn.Module):
    """Classifies by the mean of what it sees: the nearest of the shades as they look under its scaling."""

    def __init__(self, trained_on, order=(0, 1, 2, 3)):
        super().__init__()
        (factor,), (offset,) = trained_on.factor, trained_on.offset
        self.shades, self.order = factor * SHADES + offset, list(order)

    def forward(self, seen):
        return -(seen.mean(dim=(1, 2, 3))[:, None] - self.shades[self.order]).square()


def declared(network, name):
    """Return the network behind the normalisation of a named scaling, as a subject."""
    scaling = SCALINGS[name]
    mean = tuple(-b / a for a, b in zip(scaling.factor, scaling.offset, strict=True))
    module = nn.Sequential(Normalize(mean, tuple(1 / a for a in scaling.factor)), network)
    return subject(module)


def subject(module, sigma=SIGMA, **changes):
    values = {"metadata": (), "classifier": PixelsAlone(module).eval(), "network": module, "sigma": sigma}
    return Subject(**({**values, "scaling": declared_scaling(module, 1)} | changes))


def verdicts(tried, images=IMAGES):
    answers = examine(tried, images, torch.device("cpu"), batch_size=30)
    return {answer.question: (answer.verdict.kind, answer.verdict.readings) for answer in answers}


AS_DECLARED = ("as declared", ())


@pytest.mark.parametrize("name", SCALINGS)
def test_right_input_and_labels_are_not_accused(name):
    found = verdicts(declared(NearestShade(SCALINGS[name]), name))
    assert found["input"] == found["labels"] == AS_DECLARED


@pytest.mark.parametrize(
    ("said", "trained_on"),
    [
        ("[-1,1]", "[0,1]"),
        ("[0,1]", "[-1,1]"),
        ("[0,1]", "[0,255]"),
        ("[0,1]", "ImageNet normalisation"),
        ("ImageNet normalisation", "[-1,1]"),
        ("[-1,1]", "MNIST normalisation"),
    ],
)
def test_wrong_scale_and_normalisation_are_found(said, trained_on):
    found = verdicts(declared(NearestShade(SCALINGS[trained_on]), said))
    assert found["input"] == ("looks like", (trained_on,))
    assert found["labels"] == AS_DECLARED  # asked under the input that was found


@pytest.mark.parametrize(
    ("order", "name"),
    [
        ((1, 0, 3, 2), "permuted labels"),
        ((3, 0, 1, 2), "one higher (a background class first)"),
        ((2, 1, 0, 3), "alphabetical by class name"),
        ((3, 2, 1, 0), "reversed"),
    ],
)
def test_permuted_labels_are_found_and_the_input_is_judged_under_them(order, name):
    found = verdicts(declared(NearestShade(SCALINGS["[-1,1]"], order), "[-1,1]"))
    assert found["labels"] == ("looks like", (name,))
    assert found["input"] == AS_DECLARED


def test_network_at_chance_is_accused_of_nothing():
    constant = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    nn.init.zeros_(constant[1].weight)
    found = verdicts(subject(constant))
    assert {kind for kind, _ in found.values()} == {"cannot tell"}


def trained(sigma, scaling, steps=50):
    """Return a ResNet-8 trained for a second on the shades with noise, under a scaling of its own."""
    torch.manual_seed(0)
    network = registry.backbone("cifar_resnet8").make(TASK, sigma)
    split = shades()
    kept = torch.tensor(held_out(split, 0.1, 0)[0])
    labels = torch.tensor(split.labels)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(steps):
        chosen = kept[torch.randint(len(kept), (32,))]
        x = split.images.batch(chosen)
        x_noisy = scaling.instead_of(SCALINGS["[-1,1]"], x + sigma * torch.randn_like(x))
        optimiser.zero_grad()
        nn.functional.cross_entropy(network(x_noisy), labels[chosen]).backward()
        optimiser.step()
    return network.eval()


@pytest.fixture(scope="module")
def half():
    return trained(0.5, SCALINGS["[-1,1]"])


@pytest.mark.parametrize("said", [0.0, 0.12, 0.25, 1.0])
def test_training_at_another_sigma_is_found_by_the_moments_that_batch_norm_kept(half, said):
    assert verdicts(subject(half, sigma=said))["sigma"] == ("looks like", ("sigma 0.5",))


def test_right_sigma_is_not_accused_and_an_undeclared_one_is_found(half):
    assert verdicts(subject(half, sigma=0.5))["sigma"] == AS_DECLARED
    assert verdicts(subject(half, sigma=None))["sigma"] == ("looks like", ("sigma 0.5",))


def test_moments_tell_a_scaling_that_accuracy_cannot():
    network = trained(0.25, SCALINGS["[0,1]"])
    network[1].fc = nn.Linear(64, 4)  # at chance
    assert verdicts(subject(network, sigma=0.25))["input"] == ("looks like", ("[0,1]",))


class ToldShade(nn.Module):
    """Classifies by shade if the sigma it is told, times a factor, is that of the noise it sees."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x_noisy, sigma, keys=None):
        seen = x_noisy.std(dim=(1, 2, 3)) * self.factor
        fits = (seen / sigma).log().abs() < 0.35
        logits = NearestShade(SCALINGS["[0,1]"])(x_noisy)
        return torch.where(fits[:, None], logits, torch.tensor([1.0, 0, 0, 0]))


def test_classifier_told_another_time_is_found():
    for factor, verdict in (
        (1, AS_DECLARED),
        (2, ("looks like", ("told 2 sigma",))),
        (0.5, ("looks like", ("told sigma / 2",))),
    ):
        network = ToldShade(factor)
        tried = subject(network, classifier=network, is_told_sigma=True)
        assert verdicts(tried)["time"] == verdict


QUADRANTS = replace(
    IMAGES,
    x=0.3
    + 0.4
    * torch.eye(4)[torch.tensor(IMAGES.labels)]
    .view(-1, 1, 2, 2)
    .repeat_interleave(4, 2)
    .repeat_interleave(4, 3),
)
"""Images whose class is their brightest quadrant, under any scaling."""


class WeakInNoise(nn.Module):
    """Finds the brightest quadrant of 2 x - 1 while the noise it sees, or half of what it is told, is below a limit."""

    def forward(self, x_noisy, sigma, keys=None):
        seen = 2 * x_noisy - 1
        means = nn.functional.avg_pool2d(seen, 4)
        noise = (seen - means.repeat_interleave(4, 2).repeat_interleave(4, 3)).std(dim=(1, 2, 3))
        is_weak = (noise < 0.34) | torch.tensor(2 * sigma < 0.34)
        return torch.where(is_weak[:, None], means.flatten(1), torch.tensor([1.0, 0, 0, 0]))


def test_training_at_less_noise_is_found_and_nothing_else_blamed_for_it():
    network, scaling = WeakInNoise(), SCALINGS["[-1,1]"]  # under [0,1] it would see half of the noise
    tried = subject(network, classifier=network, is_told_sigma=True, sigma=0.25, scaling=scaling)
    found = verdicts(tried, QUADRANTS)
    assert found["sigma"] == ("looks like", ("sigma 0.12 or less",))
    assert found["labels"] == AS_DECLARED
    assert {found[question][0] for question in ("input", "time")} == {"cannot tell"}


class BestForGaussian(nn.Module):
    """The best prediction of x ~ N(mean, deviation^2) from x_t under a schedule of its own, as a U-Net gives it."""

    def __init__(self, abar, *, mean=0.0, deviation=0.45, predicts="epsilon", time_scale=1.0):
        super().__init__()
        self.abar, self.mean, self.deviation = abar, mean, deviation
        self.predicts, self.time_scale = predicts, time_scale

    def forward(self, x_t, fed):
        abar = self.abar[(fed / self.time_scale).round().long().clamp(0, len(self.abar) - 1)].float()
        abar = abar[:, None, None, None]
        variance = abar * self.deviation**2 + 1 - abar
        x = self.mean + abar.sqrt() * self.deviation**2 / variance * (x_t - abar.sqrt() * self.mean)
        eps = (x_t - abar.sqrt() * x) / (1 - abar).sqrt()
        v = abar.sqrt() * eps - (1 - abar).sqrt() * x
        predicted = {"epsilon": eps, "sample": x, "v_prediction": v}[self.predicts]
        return type("Output", (), {"sample": predicted})


GAUSSIAN = replace(
    IMAGES,
    x=0.5 + 0.225 * torch.randn(64, 1, 24, 24, generator=torch.Generator().manual_seed(0)),
    noise=torch.randn(64, 1, 24, 24, generator=torch.Generator().manual_seed(1)),
)
"""Images of independent pixels, whose errors differ little from image to image."""

COSINE, LINEAR = cosine_alphas_cumprod(4000), linear_alphas_cumprod(4000)


@pytest.mark.parametrize(
    ("network", "question", "name"),
    [
        ({"predicts": "sample"}, "denoiser, prediction", "predicts the clean image"),
        ({"predicts": "v_prediction"}, "denoiser, prediction", "predicts v"),
        ({"abar": LINEAR}, "denoiser, schedule", "linear schedule"),
        ({"mean": 0.5, "deviation": 0.22}, "denoiser, range", "[0,1]"),
        ({"time_scale": 0.25}, "denoiser, scale of time", "time step fed times 0.25"),
    ],
)
def test_wrongly_declared_denoiser_is_found(network, question, name):
    denoiser = DiffusionDenoiser(BestForGaussian(**({"abar": COSINE} | network)), COSINE)
    tried = Subject(metadata=(), scaling=named((2.0,), (-1.0,)), denoiser=Reading(denoiser=denoiser))
    assert verdicts(tried, GAUSSIAN)[question] == ("looks like", (name,))


def test_right_denoiser_is_accused_of_nothing():
    denoiser = DiffusionDenoiser(BestForGaussian(COSINE), COSINE)
    tried = Subject(metadata=(), scaling=named((2.0,), (-1.0,)), denoiser=Reading(denoiser=denoiser))
    assert set(verdicts(tried, GAUSSIAN).values()) == {AS_DECLARED}


class BestMap(nn.Module):
    """F of the consistency map of N(mean, deviation^2), which follows the probability flow."""

    def __init__(self, mean, deviation):
        super().__init__()
        self.mean, self.deviation = mean, deviation

    def forward(self, scaled, fed):
        t = (fed / 250).exp().view(-1, 1, 1, 1)
        c_skip, c_out, c_in = ConsistencyModel(self).scalings(t)
        x_t = scaled / c_in
        flow = self.mean + (x_t - self.mean) * self.deviation / (t.square() + self.deviation**2).sqrt()
        return type("Output", (), {"sample": (flow - c_skip * x_t) / c_out})


@pytest.mark.parametrize(
    ("mean", "deviation", "verdict"),
    [(0.0, 0.45, AS_DECLARED), (0.5, 0.22, ("looks like", ("[0,1]",)))],
)
def test_consistency_model_is_asked_about_its_range_alone(mean, deviation, verdict):
    model = ConsistencyModel(BestMap(mean, deviation))
    tried = Subject(metadata=(), scaling=named((2.0,), (-1.0,)), denoiser=Reading(denoiser=model))
    assert verdicts(tried, GAUSSIAN) == {"denoiser, range": verdict}


def test_images_are_held_out_of_training_and_balanced():
    split = shades()
    images = choose_images(split, seed=0)
    assert np.bincount(images.labels).tolist() == [16] * 4
    assert {np.bincount(half.labels).tolist()[0] for half in images.halves()} == {8}
    assert choose_images(split, seed=1).noise.ne(images.noise).all()
    with pytest.raises(DataError, match="come from the train split"):
        choose_images(shades("test"), seed=0)


def test_images_of_a_trial_are_none_that_a_training_sees():
    split = shades(per_class=5000)
    kept, held_out = training_parts(split, 0)
    assert (len(kept), len(held_out)) == (19_000, 1000)
    split.images.pixels[list(kept)] = 0
    split.images.pixels[list(held_out)] = 255
    assert choose_images(split, seed=0).x.min() == 1


def test_outputs_that_do_not_fit_the_classes_are_refused():
    wide = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
    with pytest.raises(CheckpointError, match=r"shape \(64, 5\), but the data set has 4 classes"):
        verdicts(subject(wide))
    nan = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    nn.init.constant_(nan[1].bias, float("nan"))
    with pytest.raises(NumericalError, match="logits are not finite at noise 0"):
        verdicts(subject(nan))


def test_table_shows_every_trial_and_the_sentence_its_verdict():
    tried = declared(NearestShade(SCALINGS["[0,1]"]), "[-1,1]")
    answer = next(iter(examine(tried, IMAGES, torch.device("cpu"))))
    table = answer_table(answer)
    rows = [[as_cell(cell).text for cell in row] for block in table.blocks for row in block.rows]
    assert [block.title for block in table.blocks] == ["accuracy, clean", "accuracy, noise 0.12"]
    assert ["[0,1]", "100.0%", "[94.4%, 100.0%]", "64"] in rows
    assert sentence(answer) == "looks like [0,1], not as declared ([-1,1]) (by accuracy)"


def test_times_that_the_method_itself_knows_are_tried_too():
    class Told(ToldShade):
        def fed(self):
            return Fed(other_times={"told 3 sigma": lambda sigma: 3 * sigma})

    network = Told(3)
    tried = subject(network, classifier=network, is_told_sigma=True)
    assert verdicts(tried)["time"] == ("looks like", ("told 3 sigma",))
