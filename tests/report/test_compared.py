"""`bench compare`: which pairs are compared at which radii, and what is refused."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from bench.records.file import write_run
from bench.report.compared import compare_runs, restricted
from bench.report.comparison import compare
from bench.report.tables.accuracy import accuracy_frame
from bench.report.tables.paired import (
    assured_frame,
    assured_table,
    format_p,
    gap_frame,
    gap_table,
    paired_frame,
    paired_table,
    pairs_of,
)
from bench.report.tables.protocol import protocol_notes
from bench.smoothing.stats import most_failures
from tests.support.fake_runs import METHODS, SIGMAS, make_record, make_run
from tests.support.tiny import bench

pytestmark = pytest.mark.usefixtures("undrawn")


def trained(name, seed, **changes):
    """Return a run whose checkpoints are those of one training."""
    run = make_run(Path(name), seed=seed, **changes)
    names = [f"{method}/{sigma:g}" for method in run.header.methods for sigma in run.header.sigmas]
    return replace(run, header=replace(run.header, checkpoints=dict.fromkeys(names, f"sha-{seed}")))


def labels(pairs):
    return [(first.label, second.label) for first, second in pairs]


def test_all_pairs_of_one_runs_methods_are_compared_at_each_sigma():
    pairs = pairs_of(compare([make_run()]))
    assert len(pairs) == len(SIGMAS) * len(METHODS) * (len(METHODS) - 1) // 2
    assert all(first.sigma == second.sigma for first, second in pairs)


def test_of_two_runs_each_method_is_compared_with_itself_and_others_only_where_asked():
    runs = [make_run(Path(name), methods=["rrcm", "dds"], sigmas=[0.5]) for name in "ab"]
    assert labels(pairs_of(compare(runs))) == [("rRCM (a)", "rRCM (b)"), ("DDS (a)", "DDS (b)")]
    assert len(pairs_of(compare(runs), has_all=True)) == 6


def test_of_two_runs_without_a_common_method_all_are_compared_across():
    runs = [
        make_run(Path("a"), methods=["rrcm", "gaussian"], sigmas=[0.5]),
        make_run(Path("b"), methods=["dds"], sigmas=[0.5]),
    ]
    assert labels(pairs_of(compare(runs))) == [("rRCM (a)", "DDS (b)"), ("Gaussian (a)", "DDS (b)")]


def test_the_correction_counts_every_pair_sigma_and_radius_that_n_draws_can_certify():
    # 1000 draws reach 0.615 at sigma 0.25 and 2.46 at sigma 1; the table's radii are 0 to 1.5 in steps of 0.25.
    runs = [make_run(methods=["rrcm", "dds"], sigmas=[0.25, 1.0])]
    comparison = compare(runs)
    frame = paired_frame(comparison, pairs_of(comparison))
    tested = {sigma: sorted(part["radius"]) for sigma, part in frame.groupby("sigma")}
    assert tested == {0.25: [0.0, 0.25, 0.5], 1.0: [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5]}
    assert set(frame["tests"]) == {10}
    smallest = frame.loc[frame["p"].idxmin()]
    assert smallest["p_holm"] == pytest.approx(min(1.0, 10 * smallest["p"]))


def one_sided(method, certified, sigma):
    """Return records of 20 images at a sigma, the first `certified` of them with radius 0.1, the others with none."""
    return [
        make_record(
            method=method, sigma=sigma, index=20 * place, radius=0.1, predict=0 if place < certified else 1
        )
        for place in range(20)
    ]


def test_holm_by_hand_over_two_blocks():
    # At sigma 0.25 eight images are certified by rrcm alone, at sigma 0.5 ten: p is 2/2^8 and 2/2^10. Of the two
    # tests of the comparison the smaller p is doubled and the larger one is not; each by itself would stay.
    records = [*one_sided("rrcm", 8, 0.25), *one_sided("dds", 0, 0.25)]
    records += [*one_sided("rrcm", 10, 0.5), *one_sided("dds", 0, 0.5)]
    run = make_run(methods=["rrcm", "dds"], sigmas=[0.25, 0.5], images=20)
    run = replace(run, header=replace(run.header, radii=(0.1,)), records=tuple(records))
    comparison = compare([run])
    frame = paired_frame(comparison, pairs_of(comparison))
    assert list(frame["p"]) == pytest.approx([2 / 2**8, 2 / 2**10])
    assert list(frame["p_holm"]) == pytest.approx([2 / 2**8, 4 / 2**10])
    table = paired_table(frame)
    assert "corrected for all 2 tests of this comparison" in " ".join(table.notes)
    assert "do not cover the variation between training runs" in " ".join(table.notes)


@pytest.mark.parametrize(
    ("changes", "options", "said"),
    [
        (
            {"methods": ["rrcm"]},
            (),
            "Nothing was compared: no sigma has two rows (rRCM); give several methods",
        ),
        ({"methods": ["rrcm", "dds"]}, ("--methods", "dds"), "no sigma has two rows (DDS)"),
        ({"methods": ["rrcm"]}, ("--against", "run"), "Nothing was compared: 'run' is the only variant"),
        ({"methods": ["rrcm", "dds"]}, (), None),
    ],
)
def test_a_comparison_of_one_row_says_that_nothing_was_compared(
    tmp_path, monkeypatch, capsys, changes, options, said
):
    write_run(tmp_path / "run", make_run(sigmas=[0.5], **changes))
    assert bench(monkeypatch, "compare", tmp_path / "run", *options) == 0
    shown = capsys.readouterr().out
    assert ("Nothing was compared" in shown) == (said is not None)
    assert (said or "Paired comparison") in shown


def test_files_hold_the_accuracies_of_the_main_table_and_what_is_assured_of_them(tmp_path):
    run = make_run()
    compare_runs([run], methods=None, sigmas="0.5", has_all=False, out=tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        f"{name}.{kind}" for name in ("assured", "paired") for kind in ("csv", "md", "tex")
    }
    main = accuracy_frame(compare([run]))
    main = main[(main["selection"] == "fixed") & (main["sigma"] == 0.5)]
    expected = {(row.method, row.radius): row.accuracy for row in main.itertuples()}
    assured = pd.read_csv(tmp_path / "assured.csv")
    assert {(row.method, row.radius): row.accuracy for row in assured.itertuples()} == expected
    wrong = most_failures(40, 0.001, 0.99)
    assert (assured["certified"] - assured["assured"]).max() == wrong == 1
    paired = pd.read_csv(tmp_path / "paired.csv")
    assert all(row.first_accuracy == expected[row.first, row.radius] for row in paired.itertuples())


def test_trainings_are_runs_whose_checkpoints_differ():
    first, second, same = trained("a", 0), trained("b", 1), replace(trained("c", 1), folder=Path("c"))
    runs = [first, second, same]
    frame = gap_frame(compare(runs))
    assert set(frame["trainings"]) == {2}
    assert (frame["gap"] == frame["highest"] - frame["lowest"]).all()
    assert len(frame) == len(SIGMAS) * len(METHODS) * (len(first.header.radii) + 1)
    assert gap_frame(compare([first])).empty


def test_radii_beyond_the_reach_of_all_draws_leave_no_paired_table():
    run = make_run()
    run = replace(run, header=replace(run.header, radii=(30.0,)))
    tables, _, nothing = compare_runs([run], methods=None, sigmas=None, has_all=False, out=None)
    assert nothing == "Nothing was compared: every radius of the table is beyond what n samples can certify."
    assert not any("Paired comparison" in table.caption for table in tables)


def test_the_command_prints_the_comparison(tmp_path, monkeypatch, capsys):
    one, two = trained("a", 0), trained("b", 1)
    for name, run in (("one", one), ("two", two)):
        write_run(tmp_path / name, run)
    assert bench(monkeypatch, "compare", tmp_path / "one", tmp_path / "two", "--sigma", "0.5") == 0
    shown = capsys.readouterr().out
    for title in (
        "Certified accuracy",
        "ACR",
        "High-probability",
        "Paired comparison",
        "Between training runs",
    ):
        assert title in shown
    assert "σ = 0.5: rRCM (one) against rRCM (two) (40 images)" in shown
    assert "…" not in shown


@pytest.mark.parametrize(
    ("p", "text"), [(1.0, "1.000"), (0.0123, "0.012"), (0.001, "0.001"), (0.00099, "<0.001")]
)
def test_p_values_are_written_for_reading(p, text):
    assert format_p(p) == text


def test_radii_that_two_decimals_do_not_tell_apart_head_columns_and_rows_of_their_own():
    radii = (0.001, 0.004, 0.005)
    run = make_run()
    comparison = compare([replace(run, header=replace(run.header, radii=radii))])
    frame = paired_frame(comparison, pairs_of(comparison))
    rows = paired_table(frame).blocks[0].rows
    assert list(dict.fromkeys(str(row[0]) for row in rows)) == ["0.001", "0.004", "0.005"]
    assert assured_table(assured_frame(comparison)).headers[1:] == ("0.001", "0.004", "0.005")


def test_written_tables_name_protocol_and_warnings(tmp_path):
    compare_runs([make_run()], methods=None, sigmas=None, out=tmp_path)
    for name in ("paired", "assured"):
        for suffix in ("md", "tex"):
            text = (tmp_path / f"{name}.{suffix}").read_text("utf-8")
            assert "subset balanced of 40 images; n0 = 100, n = 1,000" in text


def test_the_gap_table_has_dashes_beyond_reach_and_the_names_of_the_tables():
    runs = [trained(str(seed), seed, methods=["rrcm"], sigmas=[0.25]) for seed in range(2)]
    [row] = gap_table(gap_frame(compare(runs))).blocks[0].rows
    assert row[0] == "rRCM"
    reach = compare(runs).entries[0].reach
    assert [cell == "–" for cell in row[2:-1]] == [radius > reach for radius in runs[0].header.radii]


def test_what_is_left_out_leaves_no_note():
    run = make_run()
    header = replace(
        run.header, unfinished={"dds/0.25": "step 3 of 9"}, weights={"dds/0.25": "unseen", "rrcm/1": "unseen"}
    )
    [kept] = restricted([replace(run, header=header)], "rrcm", "0.5,1")
    assert (kept.header.unfinished, kept.header.weights) == ({}, {"rrcm/1": "unseen"})
    [both] = restricted([replace(run, header=header)], None, None)
    assert (both.header.unfinished, both.header.weights) == (header.unfinished, header.weights)


def test_of_several_protocols_each_is_named_by_its_run_and_what_else_differs_is_said():
    run = make_run(Path("one"))
    again = replace(run, folder=Path("again"))
    other = replace(run, folder=Path("other"), header=replace(run.header, n=2000, noise_block=64))
    assert not any(note.startswith("one") for note in protocol_notes(compare([run, again])))
    notes = protocol_notes(compare([run, again, other]))
    assert [note.split(":")[0] for note in notes[:4]] == ["one, again", "one, again", "other", "other"]
    assert notes[-1] == "The runs differ in noise block."
    log = replace(other, header=replace(other.header, logs={"rrcm/0.5": {"notes": []}}))
    assert not protocol_notes(compare([run, log]))[-1].startswith("The runs differ")
    other = replace(run, folder=Path("other"), header=replace(run.header, image_geometry="short-side"))
    assert protocol_notes(compare([run, other]))[-1] == "The runs differ in image geometry."


def test_two_trainings_of_a_part_are_two_trainings():
    runs = [trained(str(seed), 0, methods=["dds"], sigmas=[0.5]) for seed in range(2)]
    assert gap_frame(compare(runs)).empty  # one checkpoint
    parts = [
        replace(
            run,
            header=replace(
                run.header, checkpoints=run.header.checkpoints | {"dds/0.5/classifier": str(number)}
            ),
        )
        for number, run in enumerate(runs)
    ]
    assert set(gap_frame(compare(parts))["trainings"]) == {2}
    known = [
        replace(run, header=replace(run.header, checkpoints={}, weights={"dds/0.5": f"{number}" * 64}))
        for number, run in enumerate(runs)
    ]
    assert set(gap_frame(compare(known))["trainings"]) == {2}
    older = [runs[0], replace(runs[1], header=replace(runs[1].header, weights={"dds/0.5": "1" * 64}))]
    assert gap_frame(compare(older)).empty
