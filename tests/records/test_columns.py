"""Records in columns: they give back the very records, and are checked as one by one."""

import dataclasses
import itertools
import operator
import random

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from bench.errors import RecordsError
from bench.records import lines
from bench.records.codec import RUN, Codec
from bench.records.columns import columns_of
from bench.records.file import FILE_NAME, read_run
from bench.records.meaning import cost_fault, record_fault
from bench.records.screening import proven, strangers
from bench.smoothing.estimation import certified_radius
from bench.types import ABSTAIN, CostRecord, PartBound, Record
from tests.records.test_file import COST, HEADER, UNSURE, record, write

SMALL = st.integers(-3, 12)
ANY = SMALL | st.integers(-(2**63), 2**63 - 1)
REAL = st.floats(allow_nan=False)
COUNTS = st.lists(st.tuples(SMALL, SMALL | st.integers(0, 2**53)), max_size=4).map(tuple)
PARTS = st.builds(
    PartBound,
    name=st.sampled_from(("", "level", "class")),
    sigma=REAL,
    share=REAL,
    num_classes=SMALL,
    predict=SMALL,
    radius=REAL,
    counts_selection=COUNTS,
    counts_estimation=COUNTS,
)
RECORDS = st.builds(
    Record,
    method=st.sampled_from(("rrcm", "dds", "ß")),
    sigma=st.sampled_from((0.25, 0.5)) | REAL,
    index=ANY,
    label=SMALL,
    predict=SMALL,
    radius=REAL,
    counts_selection=COUNTS,
    counts_estimation=COUNTS,
    n0=ANY,
    n=ANY,
    samples=ANY,
    seconds=REAL,
    uniform=st.none() | REAL,
    clean=st.none() | ANY,
    certified_sigma=st.none() | REAL,
    bounds=st.just(()) | st.lists(PARTS, max_size=2).map(tuple),
)
"""Records of every kind, whether they can be true or not."""

SKIPPED = {"counts_estimation": (), "samples": 100, "label": 0, "predict": -1, "radius": 0.0}

EDITS = [
    {name: value}
    for name, values in {
        "method": ("dds", "other"),
        "sigma": (0.25, 0.75),
        "index": (0, 20, 7),
        "label": (0, -1, 2),
        "predict": (0, -1, 2),
        "radius": (0.0, 0.5, -0.1),
        "counts_selection": ((), ((0, 100),), ((0, 50), (1, 50)), ((1, 60), (0, 40)), ((1, -1), (2, 101))),
        "counts_estimation": ((), ((1, 1000),), ((0, 1000),), ((1, 2**62), (2, 2**62)), ((-1, 3), (1, 997))),
        "n0": (99,),
        "n": (1,),
        "samples": (100, 1101),
        "seconds": (-1.0, 1e308),
        "uniform": (0.5,),
        "clean": (0, 2, -1),
        "certified_sigma": (0.5,),
    }.items()
    for value in values
]


@settings(max_examples=50, deadline=None)
@given(st.lists(RECORDS, max_size=6), st.lists(st.integers(0, 5), max_size=8))
def test_columns_give_back_the_very_records(records, rows):
    columns = columns_of(records)
    assert tuple(columns) == tuple(records)
    assert columns == tuple(records) == columns_of(iter(records))
    assert [columns[place] for place in range(len(records))] == records
    assert list(columns[1:4]) == records[1:4]
    assert list(columns[::-2]) == records[::-2]
    taken = [row for row in rows if row < len(records)]
    assert list(columns.take(np.array(taken, np.int64))) == [records[row] for row in taken]


@settings(max_examples=50, deadline=None)
@given(st.lists(RECORDS, max_size=6))
def test_columns_know_what_a_record_knows_of_itself(records):
    columns = columns_of(records)
    for name in ("is_correct", "is_skipped", "has_counts"):
        assert getattr(columns, name).tolist() == [getattr(one, name) for one in records]
    assert columns.is_composed.tolist() == [bool(one.bounds) for one in records]
    expected = [one.selected if one.counts_selection else ABSTAIN for one in records]
    assert columns.selected.tolist() == expected
    assert columns.hits.tolist() == [dict(one.counts_estimation).get(one.label, 0) for one in records]
    assert columns.estimation.sums.tolist() == [sum(n for _, n in one.counts_estimation) for one in records]
    assert list(columns.identities()) == [(one.method, one.sigma, one.index) for one in records]


def test_records_are_grouped_in_the_order_in_which_methods_and_sigmas_first_come():
    keys = [("b", 0.5), ("a", 1.0), ("b", 0.5), ("b", 0.25), ("a", 1.0)]
    records = [record(place, method=method, sigma=sigma) for place, (method, sigma) in enumerate(keys)]
    found = {key: rows.tolist() for key, rows in columns_of(records).groups.items()}
    assert list(found.items()) == [(("b", 0.5), [0, 2]), (("a", 1.0), [1, 4]), (("b", 0.25), [3])]


def test_equal_counts_have_equal_content_and_others_have_not():
    counts = [((0, 1), (1, 2)), ((0, 1),), ((1, 2),), (), ((0, 2), (1, 1))]
    several = [columns_of([record(0, counts_selection=one) for one in pair]).selection
               for pair in itertools.product(counts, repeat=2)]  # fmt: skip
    assert len({one.content for one in several}) == len(several)
    first = columns_of([record(place, counts_selection=one) for place, one in enumerate(counts)])
    assert first[3:].selection.content == several[3 * len(counts) + 4].content


def one_by_one(content, path):
    """Return what is wrong with a file, found by looking at one line after another; None where nothing is."""
    first, *others = content.splitlines(keepends=True)
    header = RUN.decode_header(first, path)
    fault_of, seen = record_fault(header), set()
    items = Codec.decode_all(RUN, [others], path)
    composed = {item.method for item in items if not isinstance(item, CostRecord) and item.bounds}
    for number, item in enumerate(items, 2):
        if isinstance(item, CostRecord):
            if (fault := cost_fault(item, header, is_composed=item.method in composed)) is not None:
                return f"line {number}: {fault}"
            continue
        key = item.method, item.sigma, item.index
        is_known = item.method in header.methods and item.sigma in header.sigmas
        if not is_known or item.index not in header.indices or (item.n, item.n0) != (header.n, header.n0):
            return f"line {number}: image {item.index} of"
        if key in seen:
            return f"image {item.index} of"
        seen.add(key)
        if (fault := fault_of(item)) is not None:
            return f"line {number}: {fault} (image {item.index}"
    return None


@pytest.mark.parametrize("estimation", ["fixed", "skip-wrong", "sequential"])
def test_faults_are_told_as_by_looking_at_one_line_after_another(tmp_path, estimation):
    """One of the records is changed in every way, or two are; what is told is the first that is wrong."""
    header = dataclasses.replace(HEADER, estimation=estimation, radii=(0.0, 0.25, 0.5))
    sound = [record(0), record(20), record(40, **UNSURE), record(60, clean=1), record(80), record(100)]
    if estimation != "fixed":
        sound[2] = record(40, **SKIPPED)
    if estimation == "sequential":
        sound = [one if one.predict == ABSTAIN else dataclasses.replace(one, radius=0.5) for one in sound]
    path, told = tmp_path / FILE_NAME, set()
    generator = random.Random(0)
    pairs = [(one, {}) for one in EDITS] + [tuple(generator.choices(EDITS, k=2)) for _ in range(60)]
    for first, second in pairs:
        items = [*sound[:3], COST, *sound[3:]]
        for place, changes in zip(generator.sample((0, 1, 2, 4, 5, 6), 2), (first, second), strict=True):
            items[place] = dataclasses.replace(items[place], **changes)
        content = b"".join(map(RUN.encode, (header, *items)))
        path.write_bytes(content)
        expected = one_by_one(content, path)
        told.add(expected)
        if expected is None:
            assert read_run(tmp_path).records == (*items[:3], *items[4:])
            continue
        with pytest.raises(RecordsError) as error:
            read_run(tmp_path)
        assert expected in str(error.value)
    assert None in told
    assert len(told) > 20


@settings(max_examples=50, deadline=None)
@given(st.lists(RECORDS, min_size=1, max_size=6), st.sampled_from(["fixed", "skip-wrong", "sequential"]))
def test_what_is_proven_has_no_fault(records, estimation):
    header = dataclasses.replace(HEADER, estimation=estimation)
    columns, fault_of = columns_of(records), record_fault(header)
    is_fine = proven(columns, header) & ~strangers(columns, header)
    assert all(fault_of(one) is None for one, is_one in zip(records, is_fine, strict=True) if is_one)


def test_counts_whose_sum_exceeds_64_bits_are_not_proven():
    """2**64 + 1000 samples: their sum is 1000 in arithmetic that wraps."""
    counts = (*tuple((label, 2**53) for label in range(2**11)), (2**11, 1000))
    header = dataclasses.replace(HEADER, class_names=tuple(map(str, range(2**12))))
    assert not proven(columns_of([record(0, radius=0.0, predict=-1, counts_estimation=counts)]), header).any()


def test_what_is_true_is_proven_without_a_look_at_each():
    sound = [record(0, clean=1), record(20, **UNSURE), record(40, counts_estimation=((1, 1000),))]
    assert proven(columns_of(sound), HEADER).all()
    stops = dataclasses.replace(HEADER, estimation="sequential", radii=(0.0, 0.25, 0.5))
    drawn = {"counts_estimation": ((0, 2), (1, 382)), "samples": 484}
    early = [record(0, **drawn, radius=certified_radius(382, 384, stops, 0.5)), record(20, **SKIPPED)]
    assert early[0].radius > 0
    assert proven(columns_of(early), stops).all()
    skips = dataclasses.replace(HEADER, estimation="skip-wrong")
    assert proven(columns_of([record(0), record(20, **SKIPPED)]), skips).all()


@pytest.mark.parametrize("block", [1, 7, 300, 2**20])
def test_lines_are_the_same_in_whatever_blocks_they_come(tmp_path, monkeypatch, block):
    monkeypatch.setattr(lines, "BLOCK", block)
    whole = write(tmp_path, record(0), COST, record(20), record(40, **UNSURE))
    path, ends = tmp_path / FILE_NAME, [place + 1 for place, byte in enumerate(whole) if byte == ord("\n")]
    for end in (*range(ends[-2], len(whole) - 1), len(whole)):
        path.write_bytes(whole[:end])
        found = lines.read_lines(path, RUN)
        assert found.size == (ends[-1] if end == len(whole) else ends[-2])
        assert len(found.items) == 3 + (end == len(whole))
    path.write_bytes(whole + b"{,}\n")
    assert lines.read_lines(path, RUN).size == len(whole)
    path.write_bytes(whole + b"{,}\n{")
    with pytest.raises(RecordsError, match="line 6 cannot be read"):
        read_run(tmp_path)
    for number in range(2, 5):
        broken = whole.splitlines(keepends=True)
        broken[number - 1] = b'{"kind":"certificate\n'
        path.write_bytes(b"".join(broken))
        with pytest.raises(RecordsError, match=f"line {number} cannot be read"):
            read_run(tmp_path)


@pytest.mark.parametrize("end", [b"", b"\n", b"\n\n"])
def test_a_line_without_an_end_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch, end):
    whole = write(tmp_path, record(0))
    monkeypatch.setattr(lines, "BLOCK", 16)
    monkeypatch.setattr(lines, "LONGEST", len(whole))
    assert len(read_run(tmp_path).records) == 1
    (tmp_path / FILE_NAME).write_bytes(whole + len(whole) * b" " + end)
    with pytest.raises(RecordsError, match=f"a line is longer than {len(whole):,} bytes"):
        read_run(tmp_path)


@pytest.mark.parametrize("block", [2**9, 2**20])
def test_costs_keep_their_places_among_the_records(tmp_path, monkeypatch, block):
    monkeypatch.setattr(lines, "BLOCK", block)
    items = [COST, record(0), dataclasses.replace(COST, method="dds"), record(20), record(40), COST]
    write(tmp_path, *items)
    found = lines.read_lines(tmp_path / FILE_NAME, RUN).items
    assert len(found) == len(items)
    assert all(map(operator.eq, found, items))
    assert [found[place] for place in range(len(items))] == items
