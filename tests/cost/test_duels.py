"""Methods beside the reference in one call whatever their settings, on a device whose clock only the work moves."""

import pytest

from bench.cost.measure import missing_sizes
from bench.cost.plan import best_pair, common, steps
from bench.cost.records import open_cost_file
from bench.cost.summary import BEST, PUBLISHED, rows
from bench.errors import ProtocolError
from tests.cost.test_measure import Machine
from tests.support.fake_costs import HEADER, architecture, plan


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def virtual(machine):
    """Return a plan of a reference and two methods in two settings, one of the methods to come first."""
    dds = machine.method("dds", 2**-4, batch_size=8)
    return plan(
        dds,
        machine.method("a", 2**-7),
        machine.method("b", 2**-6),
        settings=("float32", "bfloat16"),
        batch_sizes=None,
        repetitions=10,
        reference="dds",
        first=("a",),
    )


def test_what_is_most_wanted_comes_first_and_duels_stand_side_by_side(machine):
    asked = virtual(machine)
    done = machine.measure(asked)
    names = [step.method for step in done]
    assert {step.method for step in done[: names.index("b")]} == {"a", "dds"}
    duels = [step for step in done if step.duel]
    assert all(
        {one.method, other.method} == {one.duel, "dds"}
        for one, other in zip(duels[::2], duels[1::2], strict=True)
    )
    found = rows(machine.run)
    assert {(row.comparison, row.size.method): row.speedup.rounds >= 10 for row in found} == {
        (comparison, name): True for comparison in (PUBLISHED, BEST) for name in ("dds", "a", "b")
    }


def test_calls_that_end_in_time_leave_every_row_paired(machine):
    asked, calls = virtual(machine), 0
    while machine.measure(asked, max_seconds=30.0, created=f"call {calls}"):
        calls += 1
        assert calls < 50
    assert calls > 2
    for row in rows(machine.run):
        assert not any("timed in one call" in reason for reason in row.reasons), (
            row.size.method,
            row.reasons,
        )


def test_only_what_was_made_side_by_side_is_paired(machine):
    """Methods that are swept after the others have rounds of the same numbers, hours later."""
    asked = virtual(machine)
    machine.measure(asked)
    for row in rows(machine.run):
        if row.size.method == "b":
            theirs = best_pair(machine.run, "dds") if row.comparison == BEST else ("dds", "float32", 8)
            turns = common(machine.run, row.pair.pair, theirs)
            assert len(turns) == len(set(turns)) == row.speedup.rounds >= 10
            assert {duel for _, _, duel, _ in turns} == {"b"}
            assert len(row.pair.rates) == len(row.pair.repetitions)


def chained(machine):
    dds = machine.method("dds", 2**-4, batch_size=8)
    chain = machine.method("c", 2**-5, calls=10, batch_size=8)
    return plan(dds, chain, batch_sizes=None, repetitions=10, reference="dds")


def test_duels_of_a_chain_that_were_stopped_are_completed(machine):
    whole = Machine(machine.folder / "whole")
    duels = [step.duel for step in whole.measure(chained(whole))]
    asked = chained(machine)
    machine.measure(asked, stop_after=duels.index("c") + 2)
    machine.measure(asked, created="later")
    [row] = [row for row in rows(machine.run) if (row.comparison, row.size.method) == (PUBLISHED, "c")]
    assert row.speedup.rounds == 3
    assert not any("timed in one call" in reason for reason in row.reasons)


def test_a_complete_measurement_has_nothing_left_and_a_cut_one_counts_its_duels(machine):
    asked = virtual(machine)
    done = machine.measure(asked)
    assert left(machine, asked) == []
    other = Machine(machine.folder / "cut")
    again = virtual(other)
    before = [step.duel != "" for step in done].index(True)
    other.measure(again, stop_after=before + 2)
    assert any(step.duel for step in left(other, again))


def left(machine, asked):
    return list(steps(asked, lambda: machine.run, is_forecast=True))


def test_another_network_of_a_known_method_is_refused(machine):
    machine.measure(plan(machine.method("a", 2**-8), batch_sizes=(8,)))
    other = plan(architecture("a", machine.modules["a"], batch_size=16), batch_sizes=(8,))
    with open_cost_file(machine.folder, HEADER) as file:
        assert missing_sizes(other, file, 0.5) == []
        with pytest.raises(
            ProtocolError, match=r"another network of a \(batch_size 8 then, 16 now\): give another"
        ):
            missing_sizes(other, file, 0.5, is_checked=True)
