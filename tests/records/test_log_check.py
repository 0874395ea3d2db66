"""`bench check-log`: real logs against what is known of them, made ones against how they were made."""

import math
from dataclasses import replace

import numpy as np
import pytest

from bench.errors import RecordsError
from bench.records.log_check import Claim, certified_radii, check_log, inverted_counts, recertified
from bench.records.logs import COLUMNS, read_log
from tests.records.test_logs import SIGMAS, needs_real_logs, real, written
from tests.support.oracles import bisect, clopper_pearson_lower, normal_tail
from tests.support.tiny import bench

CLAIM = Claim(sigma=0.5, n=1000, alpha=0.001)
COUNTS = (*range(560, 1001, 4), 999, 998, 997)
BEYOND = {"0.12": 0, "0.25": 77, "0.50": 9, "1.00": 0}


def made(folder, *, claim=CLAIM, digits=3, rows=None, counts=COUNTS):
    """Return a log of one image per count, its radii rounded to the nearest, with rows changed by `rows`."""
    grid = certified_radii(claim)
    lines = [
        [20 * i, i % 10, i % 10, f"{grid[k - claim.n - 1]:.{digits}g}", 1, 0.5] for i, k in enumerate(counts)
    ]
    lines = lines if rows is None else rows(lines)
    text = "\n".join("\t".join(map(str, line)) for line in [COLUMNS, *lines]) + "\n"
    return read_log(written(folder, text), allows_repeats=True)


def finding(check, start):
    return next(one for one in check.findings if one.check.startswith(start))


@needs_real_logs
@pytest.mark.parametrize("name", SIGMAS)
def test_real_logs_are_found_to_be_what_they_are(name):
    claim = Claim(sigma=SIGMAS[name], n=100_000, alpha=0.001)
    check = check_log(read_log(real(name)), claim, "cifar10")
    assert check.claimed.is_fit == (name == "0.12")
    assert check.claimed.above == BEYOND[name]
    named = None if check.named is None else check.named.claim.alpha
    assert named == {"0.12": 0.001, "0.25": 0.01, "0.50": 0.01, "1.00": None}[name]
    assert ("impossible" in finding(check, "radii fit").seen) == (name in ("0.25", "0.50"))
    assert ("too few large radii" in finding(check, "radii name").seen) == (name == "1.00")
    assert finding(check, "no image is missing").seen == "500 images, every 20th from 0 to 9980"
    assert all(one.holds for one in check.findings[3:])


def test_the_grid_holds_the_radii_of_the_clopper_pearson_bounds():
    claim = Claim(sigma=0.5, n=30, alpha=0.01)
    bounds = [clopper_pearson_lower(k, 30, 0.01) for k in range(31)]
    expected = [
        0.5 * bisect(lambda z, p=p: p - normal_tail(z), 0.0, 9.0)  # z with P(Z > z) = 1 - p
        for p in (1 - bound for bound in bounds if bound > 0.5)
    ]
    # bisect wants a rising function: p - P(Z > z) rises with z.
    assert certified_radii(claim) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("digits", [3, 4, 17])
def test_counts_are_found_again_where_the_digits_tell_them_apart(tmp_path, digits):
    log = made(tmp_path, digits=digits)
    check = check_log(log, CLAIM)
    assert check.claimed.is_fit
    found = inverted_counts(log, check.claimed)
    assert all(k <= true for k, true in zip(found, COUNTS, strict=True))
    if digits == 17:
        assert tuple(found) == COUNTS
    assert found[-4:] == [1000, 999, 998, 997]


@pytest.mark.parametrize("alpha", [0.001, 0.01, 0.05])
def test_the_level_that_made_a_log_is_named_and_another_claim_is_refused(tmp_path, alpha):
    log = made(tmp_path, claim=replace(CLAIM, alpha=alpha))
    check = check_log(log, CLAIM)
    assert check.named.claim == replace(CLAIM, alpha=alpha)
    assert check.claimed.is_fit == (alpha == 0.001)
    assert (check.claimed.above > 0) == (alpha > 0.001)


@needs_real_logs
def test_a_level_is_not_named_where_fewer_draws_fit_as_well():
    claim = Claim(sigma=0.12, n=100_010, alpha=0.001)
    check = check_log(read_log(real("0.12")), claim, "cifar10")
    assert [one.claim for one in check.fits] == [claim, replace(claim, n=100_000)]
    assert check.named is None


def test_radii_rounded_down_fit_only_when_said_to_be(tmp_path):
    log = made(
        tmp_path, rows=lambda lines: [[*row[:3], rounded_down(row[3]), *row[4:]] for row in lines], digits=17
    )
    seen = finding(check_log(log, CLAIM), "radii fit").seen
    assert "all would belong to one if they were rounded down" in seen
    check = check_log(log, replace(CLAIM, rounding="down"))
    assert check.claimed.is_fit
    assert finding(check, "no radius is written above").holds


def rounded_down(text):
    return f"{math.floor(float(text) * 1000) / 1000:.3f}"


def test_radii_rounded_up_are_counted(tmp_path):
    log = made(tmp_path, counts=[1000] * 3 + [999] * 2)
    exact = certified_radii(CLAIM)[[-1, -1, -1, -2, -2]]
    above = sum(row.radius > radius for row, radius in zip(log.rows, exact, strict=True))
    assert finding(check_log(log, CLAIM), "no radius is written above").seen.startswith(f"{above} of 5 are")
    assert 0 < above < 5


@pytest.mark.parametrize(
    ("change", "start", "seen"),
    [
        (lambda rows: rows[:7] + rows[8:], "no image is missing", "1 missing, the first is 140"),
        (
            lambda rows: [*rows, [30, *rows[3][1:]]],
            "no image is missing",
            "1 outside this pattern, the first is 30",
        ),
        (lambda rows: [*rows, rows[5]], "no image stands in it twice", "1 repeated, the first is 100"),
        (lambda rows: [row for row in rows if row[1] != 3], "every class", "9 of 10 classes"),
        (
            lambda rows: [[*row[:4], i + 1, row[5]] for i, row in enumerate(rows)],
            "column correct",
            "running total",
        ),
        (lambda rows: [[*row[:3], 0.0, *row[4:]] for row in rows], "a class has", "114 rows name a class"),
    ],
    ids=["missing", "extra", "repeated", "class", "correct", "zero"],
)
def test_damage_is_found_and_makes_the_log_unsound(tmp_path, change, start, seen):
    check = check_log(made(tmp_path, rows=change), CLAIM)
    found = finding(check, start)
    assert found.holds is False
    assert seen in found.seen
    assert not check.is_sound


def test_the_published_subset_must_be_whole(tmp_path):
    check = check_log(made(tmp_path), CLAIM, "cifar10")
    assert "386 missing, the first is 2280" in finding(check, "no image is missing").seen


def test_a_class_sorted_beginning_of_imagenet_is_found(tmp_path):
    log = made(tmp_path, rows=lambda rows: [[i, i // 50, i // 50, *row[3:]] for i, row in enumerate(rows)])
    found = finding(check_log(log, CLAIM, "imagenet"), "every class")
    assert found.holds is False
    assert "3 of 1000 classes, 14 to 50 images each" in found.seen


@pytest.mark.parametrize(
    ("row", "seen"),
    [
        ([40, 12, 37], "holds class 37, but cifar10"),
        ([0, 4, 4], "says class 4 of image 0"),
        ([10_000, 3, 3], "10000"),
    ],
)
def test_what_no_log_of_the_data_set_can_hold_is_found(tmp_path, row, seen):
    check = check_log(made(tmp_path, rows=lambda rows: [[*row, *rows[0][3:]], *rows[20:]]), CLAIM, "cifar10")
    found = finding(check, "it may be of cifar10")
    assert (found.holds, seen in found.seen) == (False, True)
    assert "of 10 classes" in finding(check, "every class").seen


def test_a_log_in_order_is_sound(tmp_path):
    down = [[20 * i, i % 10, i % 10, 0.3, 1, 0.5] for i in range(20)]
    assert check_log(made(tmp_path, rows=lambda _: down), CLAIM).is_sound


@pytest.mark.parametrize("alpha", [0.001, 0.0001])
def test_recertified_radii_are_those_of_the_counts_at_the_new_level(tmp_path, alpha):
    counts = (540, *COUNTS)  # 540 certify nothing at the new levels
    log = made(tmp_path, claim=replace(CLAIM, alpha=0.01), digits=17, counts=counts)
    again, source = recertified(log, check_log(log, CLAIM), alpha)
    assert source.claim.alpha == 0.01
    grid = certified_radii(replace(CLAIM, alpha=alpha))
    expected = [grid[k - CLAIM.n - 1] if k > 1000 - len(grid) else 0.0 for k in counts]
    assert [row.radius for row in again.rows] == pytest.approx(expected, rel=1e-9)
    assert again.rows[0].predict == -1
    assert all((row.predict == -1) == (row.radius == 0.0) for row in again.rows)


def test_recertified_radii_never_exceed_those_of_the_true_counts(tmp_path):
    log = made(tmp_path, claim=replace(CLAIM, alpha=0.01))
    again, _ = recertified(log, check_log(log, CLAIM), 0.001)
    grid = certified_radii(CLAIM)
    true = [grid[k - CLAIM.n - 1] if k > 1000 - len(grid) else 0.0 for k in COUNTS]
    assert np.all(np.array([row.radius for row in again.rows]) <= np.array(true) * (1 + 1e-9))


def test_recertifying_needs_radii_that_fit_something(tmp_path):
    log = made(tmp_path)
    check = check_log(log, CLAIM)
    with pytest.raises(RecordsError, match="fits no n and alpha that were tried"):
        recertified(log, replace(check, fits=()), 0.001)


@needs_real_logs
def test_the_command_prints_findings_and_the_table_and_exits_with_one(monkeypatch, capsys):
    options = ("--sigma", "0.5", "--n", "100000", "--alpha", "0.001", "--dataset", "cifar10")
    assert bench(monkeypatch, "check-log", real("0.50"), *options, "--recertify", "0.001") == 1
    shown = capsys.readouterr().out
    assert "impossible: 9 of 417 radii are larger, the largest possible is 1.906" in shown
    assert "of all tried, only n = 100000, alpha = 0.01 fits" in shown
    assert "at alpha = 0.001  65.0  54.6  41.4  32.0  23.2" in shown
