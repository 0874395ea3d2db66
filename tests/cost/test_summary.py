"""Verdicts, comparisons and ratios of bench cost from records of known values."""

import pytest

from bench.cost.records import EnergyUse, Failure, WholeImage
from bench.cost.summary import BEST, PUBLISHED, UNSEEN, Speedup, pairs, reasons, rows
from bench.report.rates import Quartiles
from tests.support.fake_costs import cost_run, repetitions, size

STEADY = [0.4] * 10


def run_of(tmp_path, *timed, sizes=("a",), **changes):
    known = [one if not isinstance(one, str) else size(one) for one in sizes]
    return cost_run(tmp_path, sizes=known, timed=[one for group in timed for one in group], **changes)


def only(tmp_path, *timed, comparison=None, **changes):
    run = run_of(tmp_path, *timed, **changes)
    found = pairs(run)
    return reasons(run, found, found[-1], comparison)


def row(run, comparison, method="a"):
    return next(row for row in rows(run) if (row.comparison, row.size.method) == (comparison, method))


def test_ten_steady_repetitions_are_valid(tmp_path):
    assert only(tmp_path, repetitions("a", STEADY), comparison=PUBLISHED) == ()


@pytest.mark.parametrize(
    ("timed", "expected"),
    [
        (repetitions("a", [0.4] * 9), "9 repetitions, not 10"),
        (repetitions("a", [0.4] * 5 + [0.44] * 5), "spread 10%, above 5%"),
        (repetitions("a", [*[0.4] * 9, 0.1]), "a repetition of 0.1 s, below 0.2 s"),
        (
            repetitions("a", STEADY, throttling=("hardware slowdown",)),
            "throttled (hardware slowdown)",
        ),
        (repetitions("a", STEADY, other_processes=1), "another process on the device"),
    ],
)
def test_each_fault_of_the_repetitions_is_named(tmp_path, timed, expected):
    assert only(tmp_path, timed) == (expected,)


def test_a_board_at_its_power_cap_is_not_throttled(tmp_path):
    assert only(tmp_path, repetitions("a", STEADY, throttling=("software power cap",))) == ()


def test_chains_need_three_repetitions(tmp_path):
    timed = repetitions("c", [2.0] * 3)
    assert only(tmp_path, timed, sizes=[size("c", calls=10)]) == ()
    assert only(tmp_path, timed[:2], sizes=[size("c", calls=10)]) == ("2 repetitions, not 3",)


def test_published_wants_the_programs_batch_size(tmp_path):
    found = only(tmp_path, repetitions("a", STEADY, batch_size=4), comparison=PUBLISHED)
    assert found == ("batch size 4 is not the program's 8",)


@pytest.mark.parametrize(
    ("seconds", "failed", "expected"),
    [
        ([0.4, 0.395], False, ()),  # 1% faster: the knee is passed
        ([0.4, 0.3], True, ()),  # no larger batch fits
        ([0.4, 0.3], False, ("batch size not at the knee: 16 is the largest that was timed",)),
        ([0.4], False, ("batch size not at the knee: no other was timed",)),
    ],
)
def test_the_best_batch_size_must_be_at_the_knee(tmp_path, seconds, failed, expected):
    timed = [repetitions("a", [value] * 10, batch_size=8 * 2**k) for k, value in enumerate(seconds)]
    failure = Failure(method="a", setting="float32", batch_size=32, reason="out of memory")
    changes = {"failures": (failure,) if failed else ()}
    assert only(tmp_path, *timed, comparison=BEST, **changes) == expected


def test_a_smaller_batch_that_is_fastest_is_past_the_knee(tmp_path):
    timed = [repetitions("a", [value] * 10, batch_size=8 * 2**k) for k, value in enumerate((0.3, 0.9, 0.6))]
    best = row(run_of(tmp_path, *timed), BEST)
    assert (best.pair.batch_size, best.reasons) == (8, ())


def test_compiled_networks_take_the_batch_size_of_a_sweep_without_compiling(tmp_path):
    sweep = [repetitions("a", [value] * 10, batch_size=8 * 2**k) for k, value in enumerate((0.4, 0.3, 0.3))]
    compiled = repetitions("a", [0.2] * 10, setting="float32-compiled", batch_size=16)
    run = run_of(tmp_path, *sweep, compiled)
    assert (row(run, BEST).pair.setting, row(run, BEST).reasons) == ("float32-compiled", ())


def test_a_whole_image_must_take_what_throughput_says(tmp_path):
    def images(seconds):
        return {
            "images": (
                WholeImage(method="a", setting="float32", batch_size=8, samples=1000, seconds=seconds),
            )
        }

    run = run_of(tmp_path, repetitions("a", STEADY), **images(5.2))
    assert row(run, PUBLISHED).image_ratio == pytest.approx(1.04)
    assert row(run, PUBLISHED).reasons == ()
    for seconds, ratio in ((5.3, "1.06"), (4.7, "0.94")):
        run = run_of(tmp_path, repetitions("a", STEADY), **images(seconds))
        expected = f"a whole image took {ratio} times as long as throughput says"
        assert row(run, PUBLISHED).reasons == (expected,)


def test_published_is_float32_and_best_is_the_fastest_of_all(tmp_path):
    run = run_of(
        tmp_path,
        repetitions("a", STEADY),
        repetitions("a", [0.1] * 10, batch_size=16),
        repetitions("a", [0.05] * 10, setting="bfloat16-compiled", batch_size=16),
    )
    published, best = row(run, PUBLISHED), row(run, BEST)
    assert (published.pair.setting, published.pair.batch_size) == ("float32", 8)
    assert (best.pair.setting, best.pair.batch_size) == ("bfloat16-compiled", 16)


def test_drift_cancels_in_speedups_paired_by_round(tmp_path):
    drift = [1.0, 2.0, 4.0]
    run = run_of(
        tmp_path,
        repetitions("a", drift),
        repetitions("dds", [8 * value for value in drift]),
        sizes=("a", "dds"),
    )
    assert row(run, PUBLISHED).speedup == Speedup(
        ratio=Quartiles(first=8.0, median=8.0, third=8.0), rounds=3, together=3
    )
    assert row(run, PUBLISHED, "dds").speedup.ratio == Quartiles(first=1.0, median=1.0, third=1.0)


def test_a_chain_is_paired_over_the_rounds_that_it_has(tmp_path):
    chain = size("c", calls=10)
    timed = repetitions("dds", [1.0, 1.0, 1.0, 9.0, 9.0]), repetitions("c", [10.0] * 3)
    run = run_of(tmp_path, *timed, sizes=("dds", chain))
    assert row(run, PUBLISHED, "c").speedup.ratio.median == pytest.approx(0.1)
    assert row(run, PUBLISHED, "c").reasons == ()


def in_two_sessions(method, seconds, first):
    """Return ten repetitions, the first ones of them in Monday's session."""
    timed = repetitions(method, seconds, session="Monday")
    return timed[:first] + repetitions(method, seconds, session="Sunday")[first:]


def test_rounds_of_two_sessions_are_not_paired(tmp_path):
    timed = in_two_sessions("a", [0.4] * 5 + [0.3] * 5, 5), in_two_sessions("dds", [4.0] * 10, 6)
    found = row(run_of(tmp_path, *timed, sizes=("a", "dds")), PUBLISHED)
    assert (found.speedup.rounds, found.speedup.together) == (9, 9)
    assert found.speedup.ratio.median == pytest.approx(10.0)  # with round 5: (10 + 13.3) / 2


@pytest.mark.parametrize(("first", "is_valid"), [(5, True), (4, False)])
def test_most_rounds_in_other_sessions_than_those_of_dds_are_invalid(tmp_path, first, is_valid):
    timed = in_two_sessions("a", STEADY, first), repetitions("dds", [4.0] * 10, session="Monday")
    found = row(run_of(tmp_path, *timed, sizes=("a", "dds")), PUBLISHED)
    expected = (
        f"{first} of 10 repetitions were timed in one call and round with dds: measure both in one new --out"
    )
    assert found.reasons == (() if is_valid else (expected,))


@pytest.mark.parametrize("session", ["Monday", "Sunday"])
def test_settings_are_not_paired_but_must_be_of_one_session(tmp_path, session):
    fast = repetitions("a", [0.1, 0.2] * 5, setting="bfloat16", session="Monday")
    slow = repetitions("dds", [1.0, 2.0] * 5, session=session)
    found = row(run_of(tmp_path, fast, slow, sizes=("a", "dds")), BEST)
    assert found.speedup.rounds == 0
    assert found.speedup.ratio.median == pytest.approx(10.0)
    assert found.speedup.ratio.first == pytest.approx(10.0 / 2)  # its slow quartile over the fast one of dds
    assert found.speedup.ratio.third == pytest.approx(10.0 * 2)
    reason = "0 of 10 repetitions were timed in one call and round with dds: measure both in one new --out"
    assert (reason in found.reasons) == (session == "Sunday")


@pytest.mark.parametrize(
    ("single", "expected"),
    [
        (size("b", parameters=5), ()),
        (
            size("b", parameters=6),
            ("batch size not at the knee: no other was timed, and no sweep of one call found it",),
        ),
    ],
)
def test_a_chain_takes_the_knee_of_the_method_that_calls_its_networks_once(tmp_path, single, expected):
    sweep = [repetitions("b", [value] * 10, batch_size=8 * 2**k) for k, value in enumerate((0.4, 0.395))]
    chain = repetitions("c", [2.0] * 3)
    sizes = [single, size("c", calls=10, parameters=5)]
    assert only(tmp_path, *sweep, chain, sizes=sizes, comparison=BEST) == expected


def test_a_chain_is_not_at_the_knee_where_nothing_was_swept(tmp_path):
    timed = repetitions("b", STEADY), repetitions("c", [2.0] * 3)
    found = only(tmp_path, *timed, sizes=[size("b"), size("c", calls=10)], comparison=BEST)
    assert found == ("batch size not at the knee: no other was timed, and no sweep of one call found it",)


def test_latency_is_a_sample_at_batch_size_one(tmp_path):
    run = run_of(tmp_path, repetitions("a", [0.5] * 10, batch_size=1, samples=10), repetitions("a", STEADY))
    assert row(run, PUBLISHED).latency.median == pytest.approx(0.05)
    assert row(run_of(tmp_path, repetitions("a", STEADY)), PUBLISHED).latency is None


def test_share_of_peak_is_operations_over_what_the_board_can_do(tmp_path):
    run = run_of(tmp_path, repetitions("a", [1.0] * 10, samples=10_000), sizes=[size("a", flops=10**9)])
    assert row(run, PUBLISHED).share_of_peak == pytest.approx(1e13 / 66.9e12)


def test_joules_of_a_sample_are_those_of_the_same_pair(tmp_path):
    energy = EnergyUse(method="a", setting="float32", batch_size=8, samples=50, seconds=1.0, joules=25.0)
    assert (
        row(run_of(tmp_path, repetitions("a", STEADY), energies=(energy,)), PUBLISHED).joules_per_sample
        == 0.5
    )
    other = repetitions("a", STEADY, batch_size=16)
    assert row(run_of(tmp_path, other, energies=(energy,)), PUBLISHED).joules_per_sample is None


def test_a_gpu_whose_load_nobody_read_is_never_valid(tmp_path):
    unseen = repetitions("a", STEADY, other_processes=None)
    assert only(tmp_path, unseen) == (UNSEEN,)


def test_duels_pair_methods_of_different_settings(tmp_path):
    sweep = repetitions("a", [0.1] * 3, setting="bfloat16"), repetitions("dds", [1.0] * 3)
    drift = [1.0, 2.0, 4.0] * 4
    fought = (
        repetitions("a", [0.1 * value for value in drift], setting="bfloat16", duel="a"),
        repetitions("dds", drift, duel="a"),
    )
    found = row(run_of(tmp_path, *sweep, *fought, sizes=("a", "dds")), BEST)
    assert (found.speedup.rounds, found.speedup.ratio) == (12, Quartiles(first=10.0, median=10.0, third=10.0))
    assert not any("in one call" in reason for reason in found.reasons)


def test_nothing_is_compared_as_published_with_a_reference_at_another_batch_size_than_its_own(tmp_path):
    """Where the reference's own batch does not fit, one sample at a time would make every method look fast."""
    sizes = [size("a", batch_size=1000), size("dds", batch_size=128)]
    timed = repetitions("a", STEADY, batch_size=1000), repetitions("dds", STEADY, batch_size=1)
    run = run_of(tmp_path, *timed, sizes=sizes)
    assert row(run, PUBLISHED).speedup is None
    assert row(run, PUBLISHED, "dds").speedup is not None
