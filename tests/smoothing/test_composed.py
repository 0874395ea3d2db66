"""Certificates that several bounds make: the smallest radius, alpha shared, noise of their own, checked on the disk."""

import json
import math
from dataclasses import replace

import pytest
import torch
from scipy import stats

from bench import certify, predict
from bench.errors import ModelError, RecordsError, UsageError
from bench.records.file import read_run
from bench.records.recertify import recertify
from bench.report.comparison import compare
from bench.report.equal_accuracy import curves
from bench.report.write import write_tables
from bench.smoothing.noise import noise_block, part_protocol
from bench.types import ABSTAIN, Protocol
from tests.support.dual_smoothing import LEVELS, Brightness, DualSmoothing
from tests.support.tiny import bench, image_tree

METHOD = "tests.support.dual_smoothing:make"

PROTOCOL = Protocol(n0=20, n=400, alpha=0.01)


def image(brightness):
    return torch.full((1, 4, 4), brightness)


def composed(x, method=None, **changes):
    return certify(method or DualSmoothing(0.5), x, sigma=0.5, n0=20, n=400, alpha=0.01, index=3, **changes)


def radius_of(bound, alpha):
    """Return sigma Phi^-1 of the Clopper-Pearson bound of the last class of two, without the certifier's code."""
    k = dict(bound.counts_estimation)[bound.predict]
    return bound.sigma * stats.norm.ppf(stats.beta.ppf(alpha, k, 401 - k))


@pytest.mark.parametrize(("brightness", "level"), [(0.75, 0.5), (0.1, 0.25)])
def test_the_radius_is_the_smallest_of_bounds_that_share_alpha_at_the_sigma_of_the_image(brightness, level):
    found = composed(image(brightness))
    assert [one.name for one in found.bounds] == ["noise level", "class"]
    assert found.certified_sigma == found.bounds[1].sigma == level
    assert found.bounds[0].sigma == 0.5
    for one in found.bounds:
        assert one.radius == pytest.approx(radius_of(one, 0.005), rel=1e-9)
    assert found.radius == min(one.radius for one in found.bounds) > 0
    assert found.predict == found.bounds[1].predict == int(brightness > 0.5)
    assert found.samples == 2 * 420
    assert (found.counts_selection, found.counts_estimation) == (
        found.bounds[1].counts_selection,
        found.bounds[1].counts_estimation,
    )
    assert predict(DualSmoothing(0.5), image(brightness), sigma=0.5, n=400, alpha=0.01) == found.predict


def test_no_radius_exceeds_that_of_the_linear_parts():
    for brightness in (0.0, 0.2, 0.55, 0.9):
        found = composed(image(brightness))
        distances = [4 * abs(brightness - threshold) for threshold in (0.3, 0.5)]  # of 16 pixels' mean
        assert found.radius <= min(distances)


@pytest.mark.parametrize("brightness", [0.3, 0.5])
def test_it_abstains_where_either_part_does(brightness):
    found = composed(image(brightness))
    assert sum(one.predict == ABSTAIN for one in found.bounds) == 1
    assert (found.predict, found.radius) == (ABSTAIN, 0.0)
    assert predict(DualSmoothing(0.5), image(brightness), sigma=0.5, n=400, alpha=0.01) == ABSTAIN


def test_a_single_bound_with_all_of_alpha_is_the_plain_certificate():
    class Single(DualSmoothing):
        def compose_certificate(self, certify):
            certify("class", self.classifier, sigma=0.5, share=1.0, num_classes=2)

    found, plain = composed(image(0.6), Single(0.5)), composed(image(0.6), Brightness(0.5))
    assert replace(found, bounds=(), certified_sigma=None) == plain


def test_what_is_asked_for_next_is_certified_on_noise_that_is_independent_of_the_choice():
    seeds = [part_protocol(PROTOCOL, position, 0.5).seed for position in range(4)]
    assert seeds[0] == PROTOCOL.seed
    assert len(set(seeds)) == 4
    place = (3, "estimation", 0, (64,), torch.device("cpu"))
    first, second = (noise_block(seed, *place).flatten() for seed in seeds[:2])
    correlation = float(torch.corrcoef(torch.stack([first, second]))[0, 1])
    assert abs(correlation) < 5.5 / math.sqrt(len(first))  # false alarm below 1e-7
    twice = DualSmoothing(0.5)
    twice.estimator = twice.classifier
    found = composed(image(0.55), twice)
    assert found.bounds[0].counts_estimation != found.bounds[1].counts_estimation


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"share": 0.6},
            r"shares of alpha are \[0.6, 0.6\], expected numbers above 0 that add up to at most 1",
        ),
        ({"share": 0.0}, r"shares of alpha are \[0.0\]"),
        ({"names": ("class", "class")}, "expected another for each"),
        ({"names": ("", "class")}, "expected another for each"),
    ],
)
def test_bounds_that_cannot_share_alpha_are_refused(changes, message):
    with pytest.raises(ModelError, match=message):
        composed(image(0.6), DualSmoothing(0.5, **changes))


def test_a_method_must_ask_for_a_bound_of_the_tasks_classes():
    method = DualSmoothing(0.5)
    method.compose_certificate = lambda ask: None
    with pytest.raises(
        ModelError, match="the last bound of compose_certificate is missing, expected one of 2"
    ):
        composed(image(0.6), method)
    method.compose_certificate = lambda ask: ask(
        "x", lambda x: torch.zeros(len(x), 3), sigma=1.0, share=1, num_classes=3
    )
    with pytest.raises(ModelError, match="is of 3 classes, expected one of 2"):
        composed(image(0.6), method)


def test_a_hook_of_a_method_of_pixels_alone_is_not_passed_over():
    class Alone(Brightness):
        def compose_certificate(self, certify):
            raise AssertionError

    with pytest.raises(UsageError, match="has compose_certificate and takes pixels alone"):
        composed(image(0.6), Alone(0.5))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of the method and of a plain classifier, by the command."""
    where = tmp_path_factory.mktemp("composed")
    image_tree(where / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(where)
        words = ["--dataset", "folder", "--data-dir", "data", "--image-size", 8, "--device", "cpu"]
        words += ["--sigmas", "0.5", "--n", 400, "--n0", 20, "--limit", 4, "--methods", METHOD]
        assert bench(patch, "run", *words, "--out", "run", "--cost-repetitions", 1) == 0
    return where / "run"


def test_a_run_records_the_bounds_and_they_are_read_back(folder):
    run = read_run(folder)
    assert {record.certified_sigma for record in run.records} == {*LEVELS}
    for record in run.records:
        assert [one.share for one in record.bounds] == [0.5, 0.5]
        assert record.radius == min(one.radius for one in record.bounds)
        assert record.samples == record.samples_asked == 840
    assert "bounds" not in json.loads((folder / "records.jsonl").read_text().splitlines()[-1])  # a cost


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r["bounds"][0].update(radius=9.0), "bound noise level: radius is 9.0, but its counts certify"),
        (lambda r: r["bounds"][1].update(share=0.6), "shares of alpha are .* add up to at most 1"),
        (lambda r: r["bounds"][0].update(share=0.4), "bound noise level: radius is .*, but its counts certify"),
        (lambda r: r["bounds"][0].update(sigma=1.0), "bound noise level: radius is .*, but its counts certify"),
        (lambda r: r["bounds"][0].update(sigma=-1.0), "sigma and num_classes are -1.0 and 2"),
        (lambda r: r["bounds"][0].update(counts_estimation=[[0, 1]]), "counts_estimation adds up to 1, expected n"),
        (lambda r: r["bounds"][0].update(counts_selection=[[7, 20]]), "its counts add up to None"),
        (lambda r: r["bounds"][0].update(predict=-1), "bound noise level: predict is -1, but its counts certify"),
        (lambda r: r["bounds"].pop(0), "samples is 840, but the counts of its bounds add up to 420"),
        (lambda r: r["bounds"].reverse(), "certified_sigma is 0.25, expected that of the last"),
        (lambda r: r.update(bounds=[]), "certified_sigma is 0.25, expected that of the last"),
        (lambda r: r.update(certified_sigma=0.5), "certified_sigma is 0.5, expected that of the last"),
        (lambda r: r.update(radius=9.0), "predict and radius are 0 and 9.0, but its bounds make"),
        (lambda r: r.update(predict=-1), "predict and radius are -1"),
        (lambda r: r.update(counts_estimation=[[0, 399], [1, 1]]), "counts are not those of the last of the bounds"),
        (lambda r: r.update(samples=420), "samples is 420, but the counts of its bounds add up to 840"),
    ],
)  # fmt: skip
def test_a_composed_record_that_cannot_be_true_is_refused(folder, tmp_path, change, message):
    lines = (folder / "records.jsonl").read_text().splitlines()
    place = next(i for i, line in enumerate(lines) if json.loads(line).get("certified_sigma") == 0.25)
    values = json.loads(lines[place])
    change(values)
    lines[place] = json.dumps(values)
    (tmp_path / "records.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(RecordsError, match=message):
        read_run(tmp_path)


@pytest.mark.parametrize("bound", ["clopper-pearson", "randomised"])
def test_recertifying_computes_every_bound_anew_at_its_share(folder, bound):
    run = read_run(folder)
    same = recertify(run, run.header.protocol, "bench recertify")
    assert same.records == run.records
    stricter = recertify(run, replace(run.header.protocol, alpha=1e-4, n=300, bound=bound), "bench recertify")
    for old, new in zip(run.records, stricter.records, strict=True):
        assert new.radius == min(one.radius for one in new.bounds) < old.radius
        assert new.samples == 2 * 320
        assert new.counts_estimation == new.bounds[-1].counts_estimation


def test_tables_name_the_sigma_of_each_image_and_bounds_of_one_p_a_are_not_claimed(folder, tmp_path):
    comparison = compare([read_run(folder)])
    write_tables(comparison, tmp_path)
    text = (tmp_path / "certified_accuracy.md").read_text().replace("\\", "")
    assert "each certificate is composed of bounds that share α (noise level, class)" in text
    assert "Certified at sigma (images): 0.25 (2), 0.5 (2)." in text
    assert "no one p_A makes them" in (tmp_path / "p_lower.md").read_text().replace("\\", "")
    with pytest.raises(Exception, match="composed of several bounds: equal accuracy needs one"):
        curves(comparison, 0.25)


def test_replay_finds_a_composed_certificate_again(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder.parent)
    index = read_run(folder).records[0].index
    assert bench(monkeypatch, "replay", "run", "--index", index, "--methods", METHOD) == 0
    assert capsys.readouterr().out == f"image {index}, {METHOD} at sigma 0.5: equal\n"
