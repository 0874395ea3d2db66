"""Reading records: every malformed file is refused by line and field, and unlike runs are not compared."""

import dataclasses
import gc
import json
from pathlib import Path

import pytest

from bench.errors import ProtocolError, RecordsError, UsageError
from bench.records.file import FILE_NAME, RecordsFile, check_comparable, read_run, require_noise
from bench.records.lines import collector_paused
from bench.report.comparison import compare
from bench.report.write import write_tables
from bench.types import Run
from tests.records.test_file import COST, HEADER, UNLIKE, UNSURE, record, write


def edit(folder, line, **changes):
    """Change fields of one line of the file; a field changed to ... is removed."""
    lines = (folder / FILE_NAME).read_text().splitlines()
    values = json.loads(lines[line]) | changes
    lines[line] = json.dumps({name: value for name, value in values.items() if value is not ...})
    (folder / FILE_NAME).write_text("\n".join(lines) + "\n")


def run(folder="a", **changes):
    return Run(folder=Path(folder), header=dataclasses.replace(HEADER, **changes), records=(), costs=())


def test_sequential_records_of_schema_version_1_are_read_as_what_they_are_and_not_extended(tmp_path):
    header = dataclasses.replace(HEADER, estimation="sequential")
    write(tmp_path, record(**UNSURE), header=header)
    assert read_run(tmp_path).header.estimation == "sequential"
    edit(tmp_path, 0, schema_version=1)
    assert read_run(tmp_path).header.estimation == "confidence-sequence"
    message = "has confidence-sequence estimation, which is read and reported but not run: give another --out"
    with pytest.raises(ProtocolError, match=message):
        RecordsFile.create_or_resume(tmp_path, header)


def test_an_image_held_twice_is_refused(tmp_path):
    write(tmp_path, record(0), record(20))
    edit(tmp_path, 2, index=0)
    with pytest.raises(RecordsError, match=r"holds image 0 of rrcm at sigma 0.5 twice: delete one"):
        read_run(tmp_path)


@pytest.mark.parametrize("blanks", ["\n", "\n\n", " \n\n\n"])
def test_blank_lines_at_the_end_are_left_out(tmp_path, blanks):
    content = write(tmp_path, record(0))
    with (tmp_path / FILE_NAME).open("a") as file:
        file.write(blanks)
    assert len(read_run(tmp_path).records) == 1
    with RecordsFile.create_or_resume(tmp_path, HEADER):
        pass
    assert (tmp_path / FILE_NAME).read_bytes() == content


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(RecordsError, match=r"no records at .*: give the folder that holds them"):
        read_run(tmp_path)


@pytest.mark.parametrize("content", [b"", b'{"kind":"header"'])
def test_a_file_without_header_is_refused(tmp_path, content):
    (tmp_path / FILE_NAME).write_bytes(content)
    for read in (read_run, lambda folder: RecordsFile.create_or_resume(folder, HEADER)):
        with pytest.raises(RecordsError, match="has no header line: delete it"):
            read(tmp_path)


def test_a_first_line_of_rubbish_before_others_is_refused_as_such(tmp_path):
    (tmp_path / FILE_NAME).write_bytes(b"rubbish\n" + write(tmp_path, record()))
    with pytest.raises(RecordsError, match="line 1 cannot be read"):
        read_run(tmp_path)


@pytest.mark.parametrize("rubbish", [b"{,}", b"", b"\xff", b'{"radius":NaN}'])
def test_an_invalid_line_before_the_last_is_refused_by_number(tmp_path, rubbish):
    lines = write(tmp_path, record(0), record(20)).splitlines()
    (tmp_path / FILE_NAME).write_bytes(b"\n".join([lines[0], rubbish, lines[2], b""]))
    for read in (read_run, lambda folder: RecordsFile.create_or_resume(folder, HEADER)):
        with pytest.raises(
            RecordsError, match=r"line 2 cannot be read .*: restore the file, or remove line 2 alone"
        ):
            read(tmp_path)


def test_a_line_that_is_no_object_is_refused(tmp_path):
    content = write(tmp_path)
    (tmp_path / FILE_NAME).write_bytes(content + b"[1]\n")
    with pytest.raises(RecordsError, match=r"line 2 cannot be read .*Expected `object`, got `array`"):
        read_run(tmp_path)


@pytest.mark.parametrize(
    ("line", "changes", "message"),
    [
        (0, {"schema_version": 0}, "line 1: schema version 0 was written by an older version of bench"),
        (0, {"kind": "cost"}, r"line 1 .*'cost' - at `\$.kind`"),
        (0, {"n": ...}, "line 1 .*missing required field `n`"),
        (0, {"estimation": "guessed"}, r"line 1 .*'guessed' - at `\$.estimation`"),
        (0, {"libraries": {"torch": 2}}, r"line 1 .*Expected `str`, got `int` - at `\$.libraries\[...\]`"),
        (0, {"libraries": []}, r"line 1 .*Expected `object`, got `array` - at `\$.libraries`"),
        (0, {"config": {"drawn_n": "1"}}, r"line 1 .*got `str` - at `\$.drawn_n`"),
        (1, {"kind": "header"}, r"line 2 .*'header' - at `\$.kind`"),
        (1, {"kind": ...}, "line 2 .*missing required field `kind`"),
        (1, {"colour": 1}, "line 2 .*unknown field `colour`"),
        (1, {"radius": ...}, "line 2 .*missing required field `radius`"),
        (1, {"radius": None}, r"line 2 .*Expected `float`, got `null` - at `\$.radius`"),
        (1, {"radius": True}, r"line 2 .*Expected `float`, got `bool` - at `\$.radius`"),
        (1, {"index": 1.0}, r"line 2 .*Expected `int`, got `float` - at `\$.index`"),
        (1, {"index": True}, r"line 2 .*Expected `int`, got `bool` - at `\$.index`"),
        (1, {"label": 2**63}, r"line 2 .*Expected `int` <= 9223372036854775807 - at `\$.label`"),
        (1, {"label": 10**99}, r"line 2 .*Expected `int` <= 9223372036854775807 - at `\$.label`"),
        (1, {"counts_selection": [[1, 2**63]]}, r"Expected `int` <= .* - at `\$.counts_selection\[.*\]`"),
        (1, {"counts_selection": [[1]]}, r"`array` of length 2.* - at `\$.counts_selection\[.*\]`"),
        (2, {"peak_memory_bytes": "1"}, r"line 3 .*got `str` - at `\$.peak_memory_bytes`"),
    ],
)
def test_a_wrong_field_is_refused_by_line_and_name(tmp_path, line, changes, message):
    write(tmp_path, record(), COST)
    edit(tmp_path, line, **changes)
    with pytest.raises(RecordsError, match=message):
        read_run(tmp_path)


def test_infinity_written_as_a_large_number_is_refused(tmp_path):
    content = write(tmp_path, record(**UNSURE))
    (tmp_path / FILE_NAME).write_bytes(content.replace(b'"radius":0.0', b'"radius":1e999'))
    with pytest.raises(RecordsError, match=r"out of range - at `\$.radius`"):
        read_run(tmp_path)


def test_whole_numbers_are_read_as_floats_where_floats_are_declared(tmp_path):
    write(tmp_path, record(sigma=1), header=dataclasses.replace(HEADER, sigmas=(1.0,)))
    assert type(read_run(tmp_path).records[0].sigma) is float


def test_lines_of_any_form_are_read_alike(tmp_path):
    none = {"counts_estimation": (), "samples": 100, "label": 0, "predict": -1, "radius": 0.0}
    many = {"counts_estimation": tuple((k, 100) for k in range(10)), "predict": -1, "radius": 0.0}
    images = (record(0), record(20, **none), record(40, **many, seconds=1e-7), record(60, method="dds"))
    header = dataclasses.replace(HEADER, class_names=tuple("0123456789"), estimation="skip-wrong")
    lines = write(tmp_path, *images[:2], COST, *images[2:], header=header).splitlines()
    loose = [json.dumps(dict(reversed(json.loads(line).items()))).encode() for line in lines]
    for forms in (lines, loose, [line + b" \r" for line in lines]):
        (tmp_path / FILE_NAME).write_bytes(b"\n".join([*forms, b""]))
        found = read_run(tmp_path)
        assert (found.records, found.costs) == (images, (COST,))
        assert found.records[0].method is found.records[1].method


def test_runs_of_one_protocol_are_comparable():
    check_comparable([])
    check_comparable([run(), run("b", methods=("x",), sigmas=(1.0,), created="later", device_type="cuda")])


@pytest.mark.parametrize(("field", "value"), [*UNLIKE.items(), ("indices", (1, 2))])
def test_runs_that_differ_are_compared_only_when_told(field, value):
    other = run("b", **{field: value})
    for runs in ([run(), other], [run(), run(), other]):
        with pytest.raises(ProtocolError, match=f"a and b differ in {field} .*or allow {field} to differ"):
            check_comparable(runs)
        check_comparable(runs, allow=[field])


def test_an_unknown_field_to_allow_is_refused():
    with pytest.raises(UsageError, match=r"'sed' is no checked field; those are n0, .*, seed, dataset,"):
        check_comparable([], allow=["sed"])


def test_records_of_another_noise_are_read_but_not_extended(tmp_path):
    content = write(tmp_path, record())
    older = content.replace(b'"noise_version":2', b'"noise_version":1')
    for file in (older, content.replace(b',"noise_version":2', b"")):  # older files lack the field
        (tmp_path / FILE_NAME).write_bytes(file)
        assert read_run(tmp_path).records == (record(),)
        with pytest.raises(ProtocolError, match="version 1 of the noise, and this program draws version 2"):
            RecordsFile.create_or_resume(tmp_path, HEADER)


def test_a_file_of_schema_version_1_is_read_reported_and_not_continued(tmp_path):
    """The file holds three images of a run that an earlier version made."""
    old = Path(__file__).parent / "old"
    run = read_run(old)
    assert run.header.noise_version == 1
    assert len(run.records) == 3 * len(run.header.methods) * len(run.header.sigmas)
    table, _ = write_tables(compare([run]), tmp_path)
    assert table.blocks[0].rows[0][0] == "rRCM"
    with pytest.raises(
        ProtocolError, match="was made with version 1 of the noise, and this program draws version 2"
    ):
        require_noise(run.header, old)


def test_the_collector_is_paused_until_the_block_ends():
    with collector_paused():
        assert not gc.isenabled()
    assert gc.isenabled()


@pytest.mark.parametrize("is_header", [False, True])
def test_a_whole_last_line_without_its_end_is_kept(tmp_path, is_header):
    items = () if is_header else (record(0), record(20))
    whole = write(tmp_path, *items)
    path = tmp_path / FILE_NAME
    path.write_bytes(whole[:-1])
    assert read_run(tmp_path).records == items
    assert path.read_bytes() == whole[:-1]
    with RecordsFile.create_or_resume(tmp_path, HEADER) as file:
        assert (file.run.records, file.repaired) == (items, None)
        assert path.read_bytes() == whole
        file.append(record(40))
    assert read_run(tmp_path).records == (*items, record(40))


@pytest.mark.parametrize("line", ["{}", "null", "[1]", '{"kind":"foo"}'])
def test_a_line_that_is_no_record_is_named_and_can_be_removed_alone(tmp_path, line):
    content = write(tmp_path, record())
    (tmp_path / FILE_NAME).write_bytes(content + line.encode() + b"\n")
    with pytest.raises(
        RecordsError, match=r"line 3 cannot be read .*: restore the file, or remove line 3 alone"
    ):
        read_run(tmp_path)
