"""What is compared: the same images for every method, and no sigma that one of them lacks."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from bench.errors import ProtocolError, RecordsError
from bench.records.file import check_comparable
from bench.report import comparison as comparing
from bench.report.comparison import compare, run_names
from bench.report.figures.accuracy import certified_accuracy_figure, envelope_figure
from bench.report.metrics import certified_accuracy
from bench.report.tables.accuracy import acr_frame, acr_table
from tests.support.fake_runs import LABELS, METHODS, SIGMAS, make_header, make_run


def without(run, is_dropped):
    return replace(run, records=tuple(record for record in run.records if not is_dropped(record)))


def test_a_complete_run_is_compared_whole_in_header_order_without_notes():
    comparison = compare([make_run(methods=["dds", "rrcm"], sigmas=[1.0, 0.25])])
    assert comparison.labels == ("DDS", "rRCM")
    assert [(entry.sigma, entry.label) for entry in comparison.entries] == [
        (0.25, "DDS"),
        (0.25, "rRCM"),
        (1.0, "DDS"),
        (1.0, "rRCM"),
    ]
    assert comparison.notes == ()


def test_methods_at_one_sigma_are_compared_on_the_images_that_all_have():
    run = make_run()
    kept = run.header.indices[:11]
    run = without(
        run, lambda record: (record.method, record.sigma) == ("dds", 0.5) and record.index not in kept
    )
    comparison = compare([run])
    assert {entry.indices for entry in comparison.at_sigma(0.5)} == {frozenset(kept)}
    assert {len(entry.records) for entry in comparison.at_sigma(0.25)} == {40}
    assert {entry.indices for entry in comparison.best} == {frozenset(kept)}
    assert comparison.notes == (
        "Unfinished: DDS at sigma 0.5 (11 of 40 images).",
        "Sigma 0.5: only the 11 images that all rows have are compared, of up to 40.",
        "Best over sigma: only the 11 images that all rows have are compared, of up to 40.",
    )


def test_a_run_reached_by_another_path_is_one_run_and_folders_of_one_name_stay_of_one_variant(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "plain-0")
    with pytest.raises(ProtocolError, match="is given twice"):
        compare([make_run(tmp_path / "plain-0"), make_run(tmp_path / "link")])
    folders = [tmp_path / place for place in ("a/plain-0", "a/plain-1", "b/plain-0", "b/other-0")]
    names = run_names([make_run(folder) for folder in folders])
    assert names == (*map(str, folders[:3]), "other-0")


def test_images_that_not_all_rows_have_are_told_once_where_there_is_one_sigma():
    run = make_run(sigmas=[0.5])
    run = without(run, lambda record: record.method == "dds" and record.index not in run.header.indices[:2])
    assert [note for note in compare([run]).notes if "all rows have" in note] == [
        "Sigma 0.5: only the 2 images that all rows have are compared, of up to 40."
    ]


def test_the_best_sigma_is_chosen_among_sigmas_that_all_rows_have():
    run = without(make_run(), lambda record: (record.method, record.sigma) == ("dds", 1.0))
    comparison = compare([run])
    assert {entry.sigma for entry in comparison.best} == {0.25, 0.5}
    assert "The best over sigma is chosen among 0.25, 0.5, the sigmas that all rows have." in comparison.notes


def test_the_best_sigma_has_the_highest_certified_accuracy_and_is_the_smallest_on_a_tie():
    comparison = compare([make_run(methods=["rrcm"])])
    for radius in (0.0, 0.25, 0.5, 1.0, 5.0):
        counts = {
            entry.sigma: certified_accuracy(entry.records, radius).count for entry in comparison.entries
        }
        best = comparison.best_at("rRCM", radius)
        assert counts[best.sigma] == max(counts.values())
        assert best.sigma == min(sigma for sigma in counts if counts[sigma] == counts[best.sigma])


def test_rows_without_a_common_sigma_have_no_best():
    run = without(make_run(), lambda record: (record.sigma == 0.25) == (record.method == "dds"))
    comparison = compare([run])
    assert comparison.best == ()
    assert comparison.best_at("DDS", 0.0) is None
    assert "No best over sigma: the rows have no sigma in common." in comparison.notes


def test_methods_without_a_common_image_are_refused():
    run = make_run(methods=["rrcm", "dds"], sigmas=[0.5])
    half = run.header.indices[20]
    run = without(run, lambda record: (record.index < half) == (record.method == "dds"))
    with pytest.raises(
        ProtocolError, match=r"sigma 0\.5: no image was certified by all of rRCM, DDS; compare runs"
    ):
        compare([run])


def test_runs_without_certificates_are_refused():
    with pytest.raises(
        RecordsError, match="nothing to compare: the runs hold no certified image; continue one"
    ):
        compare([replace(make_run(), records=())])


def test_a_run_given_twice_is_refused():
    with pytest.raises(ProtocolError, match=r"run .*/same is given twice; name each run once"):
        compare([make_run(Path("same")), make_run(Path("same"))])


def test_labels_name_the_run_only_where_there_are_several():
    assert compare([make_run(Path("a"))]).labels == LABELS
    labels = compare([make_run(Path("a"), methods=["dds"]), make_run(Path("b"), methods=["dds"])]).labels
    assert labels == ("DDS (a)", "DDS (b)")


def test_folders_of_equal_names_are_told_apart_by_their_paths():
    runs = [make_run(Path("/x/run"), methods=["dds"]), make_run(Path("/y/run"), methods=["dds"])]
    assert compare(runs).labels == ("DDS (/x/run)", "DDS (/y/run)")


def test_speedups_are_relative_to_dds_at_the_same_sigma():
    costs = compare([make_run()]).costs
    assert len(costs) == len(METHODS) * len(SIGMAS)
    assert all(one.speedup.median == pytest.approx(1) for one in costs if one.method == "dds")
    assert all(one.speedup.median > 10 for one in costs if one.method != "dds")


def test_without_dds_at_a_sigma_there_is_no_speedup_at_it():
    run = make_run()
    kept = tuple(cost for cost in run.costs if (cost.method, cost.sigma) != ("dds", 0.5))
    costs = compare([replace(run, costs=kept)]).costs
    assert {one.sigma for one in costs if one.speedup is None} == {0.5}


def test_lines_of_a_sequential_run_end_at_the_last_radius_that_it_decides():
    made = make_run(methods=["rrcm"], sigmas=[0.25, 1.0], images=3)
    early = replace(
        made, header=replace(made.header, estimation="sequential", radii=(0.0, 0.5, 1.0, 2.0, 3.0))
    )
    records = tuple(replace(one, radius=0.0) for one in early.records)
    ends = [entry.reach for entry in compare([replace(early, records=records)]).entries]
    assert ends == [0.5, 2.0]  # R_max is 0.61 and 2.46


def test_numbers_of_an_entry_are_computed_once_for_all_tables(monkeypatch):
    asked, whole = [], comparing.noisy_accuracy
    monkeypatch.setattr(comparing, "noisy_accuracy", lambda records: asked.append(1) or whole(records))
    compared = compare([make_run()])
    acr_frame(compared)
    acr_frame(compared)
    assert len(asked) == len(compared.entries)


def test_runs_that_number_their_classes_otherwise_are_refused():
    run = make_run()
    other = replace(
        run,
        folder=Path("other"),
        records=tuple(replace(one, label=(one.label + 1) % 3) for one in run.records),
    )
    with pytest.raises(
        ProtocolError, match=r"image \d+ has label \d in .* and \d in .*classes have one order"
    ):
        compare([run, other])


def test_radii_that_a_sequential_run_did_not_decide_are_left_out():
    run = make_run()
    stops = replace(
        run,
        folder=Path("stops"),
        header=replace(run.header, estimation="confidence-sequence", radii=(0.5, 0.6)),
    )
    comparison = compare([run, stops])
    assert comparison.radii == (0.0, 0.5, 0.6)  # a fixed run decides every radius
    assert comparison.notes[-1].startswith("Left out: radius 0.25, 0.75, ")
    assert compare([run]).notes == ()


def test_images_are_compared_whatever_the_order_of_a_run_that_knows_none():
    log, one, other = (
        replace(make_run(Path(name)), header=make_header(image_digest=digest))
        for name, digest in (("log", ""), ("one", "1" * 64), ("other", "2" * 64))
    )
    check_comparable([log, one])
    for runs in itertools.permutations([log, one, other]):
        with pytest.raises(ProtocolError, match="differ in image_digest"):
            check_comparable(runs)


def test_accuracy_under_noise_says_what_it_is_counted_on():
    run = make_run(methods=["rrcm"], sigmas=[0.5])
    first = run.records[0]
    stopped = replace(first, counts_estimation=((first.predict, 128),), samples=228)
    fewer = replace(run, records=(stopped, *run.records[1:]), folder=Path("fewer"))
    for runs, told in (
        ([run], "the n samples of estimation of each image."),
        ([fewer], "the n0 samples of selection of each image."),
        (
            [run, fewer],
            "the n samples of estimation of each image, the n0 of selection for rRCM (fewer) at σ = 0.5.",
        ),
    ):
        comparison = compare(runs)
        notes = acr_table(acr_frame(comparison), comparison).notes
        assert next(note for note in notes if note.startswith("Accuracy under noise")).endswith(told)


def test_each_line_ends_at_the_largest_radius_of_its_own_run():
    run = make_run(methods=["rrcm"], sigmas=[0.5, 1.0])
    more = replace(run, folder=Path("more"), header=replace(run.header, n=100_000))
    comparison = compare([run, more])
    own = [entry.reach for entry in comparison.at_sigma(0.5)]
    assert own[0] < own[1]
    panel = certified_accuracy_figure(comparison).axes[0]
    assert [line.get_xdata()[-1] for line in steps_of(panel)] == pytest.approx(own)
    ends = [line.get_xdata()[-1] for line in steps_of(envelope_figure(comparison).axes[0])]
    assert ends == pytest.approx([entry.reach for entry in comparison.at_sigma(1.0)])


def steps_of(panel):
    return [line for line in panel.get_lines() if line.get_drawstyle().startswith("steps")]
