"""Published numbers: what every committed file holds, how rows are read, and how they stand beside measured ones."""

import csv
import itertools
import math
from collections import Counter
from dataclasses import replace

import matplotlib.style
import pandas as pd
import pytest

from bench.config.names import DATASETS
from bench.errors import RecordsError
from bench.report.comparison import compare
from bench.report.figures import style
from bench.report.figures.accuracy import certified_accuracy_figure, envelope_figure
from bench.report.metrics import certified_accuracy, group
from bench.report.published import CLAIMS, NOT_AVAILABLE, Claim, claims, default_folder, published_numbers
from bench.report.tables.published import published_frame, published_sentence, published_table
from bench.report.write import write_published
from bench.smoothing.stats import largest_radius
from tests.support.fake_runs import make_run

DATASETS_HELD = sorted(path.stem for path in default_folder().glob("*.csv") if path.stem != CLAIMS)
NUMBERS = [number for dataset in DATASETS_HELD for number in published_numbers(dataset)]


def curves():
    found = {}
    for number in NUMBERS:
        found.setdefault((number.dataset, *number.series), []).append(number)
    return found


def number(**changes):
    """Return a published number of `gaussian` that has the fake run's protocol."""
    first = next(one for one in NUMBERS if one.method == "gaussian" and one.sigma == 0.5)
    same = {"images": 40, "subset": "balanced", "n": 1000, "alpha": 0.001, "radius": 0.5, "variant": ""}
    return replace(first, **(same | changes))


def frame(numbers, run=None):
    runs = [run or make_run()]
    return published_frame(compare(runs), numbers)


def test_every_number_has_a_source_and_says_how_it_was_obtained():
    kinds = {
        "read in the source",
        "read in a leaderboard",
        "recomputed from the per-image log",
        "recomputed from the per-image logs",
        "recomputed from the per-image logs, mean of 5 seeds",
        "claimed in the abstract",
        NOT_AVAILABLE,
    }
    rows = [*NUMBERS, *(claim for dataset in DATASETS for claim in claims(dataset))]
    assert len(rows) > 600
    assert {row.kind for row in rows} <= kinds
    assert all(row.source and row.method and row.paper[-4:].isdecimal() for row in rows)


def test_every_file_is_named_after_the_data_set_of_its_rows():
    assert set(DATASETS_HELD) <= set(DATASETS)
    for dataset in DATASETS_HELD:
        assert {number.dataset for number in published_numbers(dataset)} == {dataset}


def test_no_claim_is_lost_with_a_data_set_of_another_name():
    rows = list(csv.DictReader((default_folder() / f"{CLAIMS}.csv").read_text("utf-8").splitlines()))
    assert len(rows) == sum(len(claims(dataset)) for dataset in DATASETS)


def test_values_are_in_range():
    for one in NUMBERS:
        assert 0.0 <= one.certified_accuracy <= 1.0
        assert 0.0 <= one.radius <= 4.0
        assert one.sigma is None or one.sigma in (0.12, 0.25, 0.5, 1.0)
        assert one.abstention is None or 0.0 <= one.abstention <= 1.0
        assert one.n in (None, 10_000, 100_000)
        assert one.alpha in (None, 0.001, 0.01)
        assert one.images in (None, 427, 500, 10_000)
        assert one.subset in ("", "standard", "all")
        assert one.seconds_per_image is None or one.seconds_per_image > 0


def test_no_number_stands_twice():
    keys = Counter((one.dataset, *one.series, one.radius) for one in NUMBERS)
    assert [key for key, count in keys.items() if count > 1] == []


def test_certified_accuracy_falls_with_the_radius_of_a_curve():
    for members in curves().values():
        accuracies = [one.certified_accuracy for one in sorted(members, key=lambda one: one.radius)]
        assert accuracies == sorted(accuracies, reverse=True)


def test_nothing_is_certified_beyond_what_n_and_alpha_allow():
    for one in NUMBERS:
        if one.sigma is not None and one.certified_accuracy > 0:
            assert one.radius <= largest_radius(one.n, one.alpha, one.sigma), one


def test_the_acr_of_a_curve_lies_between_its_lower_and_upper_sums():
    for key, members in curves().items():
        ordered = sorted(members, key=lambda one: one.radius)
        if ordered[0].acr is None:
            continue
        assert len({one.acr for one in ordered}) == 1, key
        steps = [(b.radius - a.radius, a, b) for a, b in itertools.pairwise(ordered)]
        low = sum(width * b.certified_accuracy for width, _, b in steps)
        high = sum(width * a.certified_accuracy for width, a, _ in steps)
        last = ordered[-1]
        farthest = max(last.radius, largest_radius(last.n, last.alpha, last.sigma))
        high += last.certified_accuracy * (farthest - last.radius)
        assert low - 1e-3 <= last.acr <= high + 1e-3, key


def test_a_data_set_without_a_file_has_no_numbers():
    assert published_numbers("mnist5k") == ()
    assert claims("mnist5k") == ()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("method,", "name,", r"line 1 must be method,paper,.*: restore the file"),
        ("rrcm,", "rrcm,one more,", r"line 2 has another number of columns than line 1: restore the file"),
    ],
)
def test_a_changed_file_is_refused(tmp_path, old, new, message):
    text = (default_folder() / f"{CLAIMS}.csv").read_text("utf-8")
    (tmp_path / f"{CLAIMS}.csv").write_text(text.replace(old, new, 1))
    with pytest.raises(RecordsError, match=message):
        claims("imagenet", tmp_path)


def test_a_value_of_another_type_is_refused_with_its_place(tmp_path):
    text = (default_folder() / "cifar10.csv").read_text("utf-8")
    (tmp_path / "cifar10.csv").write_text(text.replace(",100000,", ",many,", 1))
    with pytest.raises(RecordsError, match=r"line 2, column n is 'many', expected int: restore the file"):
        published_numbers("cifar10", tmp_path)


def test_a_row_pairs_the_number_with_the_certified_accuracy_of_its_method_sigma_and_radius():
    (row,) = frame([number(certified_accuracy=0.4)]).to_dict("records")
    share = certified_accuracy(group(make_run().records)["gaussian", 0.5], 0.5)
    assert (row["method"], row["sigma"], row["radius"], row["selection"]) == ("gaussian", 0.5, 0.5, "fixed")
    assert (row["measured"], (row["low"], row["high"])) == (share.value, share.interval())
    assert (row["reported"], row["differences"]) == (0.4, "")


@pytest.mark.parametrize(
    "changes", [{"method": "macer"}, {"sigma": 0.12}, {"radius": 0.3}], ids=["method", "sigma", "radius"]
)
def test_a_number_of_what_was_not_measured_has_no_row(changes):
    assert frame([number(**changes)]).empty


def test_reported_against_measured_has_the_intervals_ends_inside():
    low, high = certified_accuracy(group(make_run().records)["gaussian", 0.5], 0.5).interval()
    values = [low, high, math.nextafter(low, 0), math.nextafter(high, 1)]
    rows = frame([number(certified_accuracy=value) for value in values])
    assert rows["reported_against_measured"].tolist() == ["inside", "inside", "below", "above"]


def imported():
    """Return the fake run as if it had been imported from a log."""
    run = make_run()
    bare = tuple(replace(one, counts_selection=(), counts_estimation=()) for one in run.records)
    log = {"file": "log.tsv", "notes": []}
    return replace(run, header=replace(run.header, logs={"gaussian/0.5": log}), records=bare)


def recomputed(run, shift=0.0):
    """Return what the log of the run gives, as published numbers at three radii, the last one off by `shift`."""
    records = group(run.records)["gaussian", 0.5]
    values = {radius: certified_accuracy(records, radius).value for radius in (0.0, 0.5, 0.75)}
    values[0.75] += shift
    return [
        number(radius=radius, certified_accuracy=value, kind="recomputed from the per-image log")
        for radius, value in values.items()
    ]


def test_a_log_beside_numbers_that_were_recomputed_from_it_is_said_to_be_compared_with_itself():
    run = imported()
    rows = frame(recomputed(run), run)
    assert set(rows["reported_against_measured"]) == {"same log"}
    sentence = published_sentence(rows, "cifar10", NUMBERS)
    assert "3 numbers beside ours, 0 inside, 0 above, 0 below our 95% interval; 3 from the log" in sentence
    assert "compared with itself, which confirms nothing" in " ".join(
        published_table(rows, compare([run]), []).notes
    )


def test_numbers_of_another_log_and_runs_of_ones_own_are_compared():
    run = imported()
    assert "same log" not in set(frame(recomputed(run, 1 / 40), run)["reported_against_measured"])
    assert "same log" not in set(frame(recomputed(make_run()))["reported_against_measured"])


@pytest.mark.parametrize(
    ("changes", "differences"),
    [
        ({"images": 500}, "subset"),
        ({"subset": "standard"}, "subset"),
        ({"subset": "all"}, ""),
        ({"subset": ""}, "subset not stated"),
        ({"subset": "", "images": 500}, "subset"),
        ({"images": None, "subset": ""}, "subset not stated"),
        ({"n": 100_000}, "n"),
        ({"alpha": 0.01}, "alpha"),
        ({"n": None, "alpha": None}, "n not stated, alpha not stated"),
        ({"images": 10_000, "subset": "all", "n": 10_000, "alpha": 0.01}, "subset, n, alpha"),
    ],
)
def test_differences_in_the_protocol_are_named(changes, differences):
    assert frame([number(**changes)])["differences"].tolist() == [differences]


def test_a_number_at_the_best_sigma_stands_beside_our_best_over_sigma():
    (row,) = frame([number(sigma=None)]).to_dict("records")
    groups = group(make_run().records)
    shares = {sigma: certified_accuracy(groups["gaussian", sigma], 0.5).value for sigma in (0.25, 0.5, 1.0)}
    assert row["selection"] == "best"
    assert row["measured"] == max(shares.values()) == shares[row["sigma"]]


def test_the_tables_hold_every_row_and_rank_nothing(tmp_path):
    numbers = [number(), number(sigma=None), number(sigma=1.0, variant="a & b")]
    claim = Claim(
        method="rrcm",
        paper="A 2025",
        dataset="d",
        quantity="gain",
        value="5",
        unit="points",
        kind="read",
        source="S",
    )
    paths, sentence = write_published(compare([make_run()]), numbers, [claim], tmp_path / "made")
    assert [path.name for path in paths] == ["published.csv", "published.md", "published.tex"]
    texts = [path.read_text("utf-8") for path in paths]
    assert len(pd.read_csv(paths[0])) == 3
    assert [text.count("Cohen et al. 2019") for text in texts] == [3, 4, 4]  # with the note on the source
    assert r"(a \& b)" in texts[2]
    assert "**" not in texts[1].split("\n", 1)[1]
    assert "mathbf" not in texts[2]
    assert all("Also published, and not compared: rrcm, gain, 5 points" in text for text in texts[1:])
    assert sentence.startswith("Published: 3 numbers beside ours, ")


@pytest.mark.parametrize("methods", [["rrcm"], ["rrcm", "gaussian"]])
def test_claims_of_the_abstract_are_shown_as_claims_and_missing_cells_as_missing(tmp_path, methods):
    run = make_run(methods=methods)
    run = replace(run, header=replace(run.header, dataset="imagenet"))
    stated = claims("imagenet")
    assert not [one for one in published_numbers("imagenet") if one.method == "rrcm"]
    _, sentence = write_published(compare([run]), published_numbers("imagenet"), stated, tmp_path)
    lines = sentence.splitlines()[1:]
    assert [line.split(", ")[0] for line in lines] == ["Claimed"] * 3 + ["Not available: rrcm"]
    for value in ("5.3 points", "11.6 points", "85 times"):
        assert sum(value in line and "arXiv 2501.13094, abstract" in line for line in lines) == 1
    assert "could not be obtained as text" in lines[3]
    if (tmp_path / "published.md").exists():
        assert (tmp_path / "published.md").read_text().count("Claimed, as no cell of a table") == 3


def test_without_published_numbers_one_line_says_so_and_no_file_stays(tmp_path):
    write_published(compare([make_run()]), [number()], [], tmp_path)
    assert write_published(compare([make_run()]), [], [], tmp_path) == (
        [],
        "Published: no number is known for mnist5k.",
    )
    assert list(tmp_path.iterdir()) == []
    _, sentence = write_published(compare([make_run()]), [number(method="macer")], [], tmp_path)
    assert (
        "none of the 1 numbers for mnist5k (macer) has a method, sigma and radius of these runs" in sentence
    )


@pytest.fixture
def figure():
    with matplotlib.style.context(["default", style.SETTINGS]):
        yield certified_accuracy_figure(
            compare([make_run()]),
            [number(radius=radius, certified_accuracy=share) for radius, share in ((0.0, 0.9), (9.0, 0.5))]
            + [number(method="macer"), number(sigma=None), number(radius=9.5, certified_accuracy=0.0)],
        )


def published_lines(axes):
    return [line for line in axes.get_lines() if line.get_markerfacecolor() == "none"]


def test_published_curves_are_dotted_hollow_bandless_and_in_their_methods_colour(figure):
    (line,) = [line for axes in figure.axes for line in published_lines(axes)]
    assert line.axes is figure.axes[1]
    assert line.get_drawstyle() == "default"
    assert line.is_dashed()
    assert line.get_color() == "#b86e00"
    assert [list(values) for values in line.get_data()] == [[0.0, 9.0], [90.0, 50.0]]
    assert len(figure.axes[1].collections) == 4  # a band per measured method
    assert figure.axes[1].get_xlim()[1] > 9.0


def test_the_legend_names_paper_and_year_behind_the_measured_methods(figure):
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["rRCM", "Gaussian", "Consistency", "DDS", "published: Gaussian, Cohen et al. 2019"]


def test_variants_at_one_sigma_are_told_apart_in_the_legend():
    with matplotlib.style.context(["default", style.SETTINGS]):
        drawn = certified_accuracy_figure(compare([make_run()]), [number(), number(variant="eps 1")])
    labels = [text.get_text() for text in drawn.legends[0].get_texts()]
    assert labels[-2:] == [
        "published: Gaussian, Cohen et al. 2019, main",
        "published: Gaussian, Cohen et al. 2019, eps 1",
    ]


def test_numbers_at_the_best_sigma_are_drawn_on_the_envelope():
    with matplotlib.style.context(["default", style.SETTINGS]):
        (axes,) = envelope_figure(compare([make_run()]), [number(), number(sigma=None, radius=1.0)]).axes
    assert [list(line.get_xdata()) for line in published_lines(axes)] == [[1.0]]


def test_a_number_beyond_what_our_samples_can_certify_is_not_judged():
    rows = frame([number(sigma=0.25, radius=0.75, certified_accuracy=0.3), number()])
    assert rows["reported_against_measured"].tolist()[0] == "out of reach"
    assert rows[["measured", "low", "high"]].iloc[0].isna().all()
    table = published_table(rows, compare([make_run()]), [])
    assert table.blocks[0].rows[0][4:6] == ("–", "out of reach")
    assert "; 1 beyond the radii that n samples can certify" in published_sentence(rows, "cifar10", NUMBERS)


@pytest.mark.parametrize(
    ("column", "text", "message"),
    [
        ("certified_accuracy", "85.2", "certified_accuracy is 85.2, expected a share from 0 to 1"),
        ("certified_accuracy", "nan", "certified_accuracy is 'nan', expected float"),
        ("certified_accuracy", "0.5_0", "expected float"),
        ("radius", "-1", "radius is -1.0, expected 0 or more"),
        ("sigma", "-0.5", "sigma is -0.5, expected a number above 0"),
        ("alpha", "7", "alpha is 7.0, expected a number between 0 and 1"),
        ("images", "0", "images is 0, expected 1 or more"),
        ("dataset", "imagenet", "holds a row of 'imagenet': move it"),
        ("source", "\xff", "cannot be read"),
    ],
)
def test_a_published_number_that_cannot_be_is_refused(tmp_path, column, text, message):
    rows = list(csv.DictReader((default_folder() / "cifar10.csv").read_text().splitlines()))
    with (tmp_path / "cifar10.csv").open("w", newline="", encoding="latin-1") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows([rows[0] | {column: text}])
    with pytest.raises(RecordsError, match=message):
        published_numbers("cifar10", tmp_path)
