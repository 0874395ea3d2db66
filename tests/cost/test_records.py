"""Records of bench cost: what is written is read, a cut line is dropped, other files are refused."""

import json

import pytest

from bench.cost.records import FILE_NAME, Failure, StageSplit, open_cost_file, read_cost_run
from bench.errors import ProtocolError, RecordsError
from tests.support.fake_costs import HEADER, SESSION, repetitions, size


@pytest.fixture
def folder(tmp_path):
    with open_cost_file(tmp_path, HEADER) as file:
        for item in (SESSION, size("a"), *repetitions("a", [0.1, 0.2])):
            file.append(item)
    return tmp_path


def test_what_is_written_is_read_with_every_digit(folder):
    run = read_cost_run(folder)
    assert run.header == HEADER
    assert run.sessions == (SESSION,)
    assert run.sizes == (size("a"),)
    assert run.repetitions == repetitions("a", [0.1, 0.2])


def test_a_file_of_the_first_version_is_read_and_not_continued(folder):
    path = folder / FILE_NAME
    path.write_text(
        path.read_text().replace('"schema_version":2', '"schema_version":1').replace('"session":"",', "")
    )
    assert read_cost_run(folder).repetitions == repetitions("a", [0.1, 0.2])
    message = r"another schema_version \(then and now: 1 and 2\)"
    with pytest.raises(ProtocolError, match=message), open_cost_file(folder, HEADER):
        pass


def test_another_header_is_refused(folder):
    values = vars(HEADER) | {"device": "NVIDIA H100"}
    other = type(HEADER)(**values)
    with (
        pytest.raises(
            ProtocolError, match=r"another device \(then and now: 'NVIDIA H200' and 'NVIDIA H100'\)"
        ),
        open_cost_file(folder, other),
    ):
        pass


def test_a_missing_an_empty_and_another_versions_file_are_refused(folder, tmp_path):
    with pytest.raises(RecordsError, match=r"no records at .*: give the folder that holds them"):
        read_cost_run(tmp_path / "nowhere")
    path = folder / FILE_NAME
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(json.dumps(json.loads(lines[0]) | {"schema_version": 99}) + "\n")
    with pytest.raises(RecordsError, match=r"schema version 99 was written by a newer .* reads 1 and 2"):
        read_cost_run(folder)
    path.write_text("")
    with pytest.raises(RecordsError, match="has no header line"):
        read_cost_run(folder)


def test_an_unknown_kind_of_line_is_refused(folder):
    path = folder / FILE_NAME
    path.write_text(path.read_text() + '{"kind":"certificate"}\n')
    with pytest.raises(RecordsError, match=r"line 6 cannot be read .*'certificate' - at `\$.kind`"):
        read_cost_run(folder)


def test_items_are_seen_at_once(folder):
    failure = Failure(method="a", setting="float32", batch_size=64, reason="out of memory")
    with open_cost_file(folder, HEADER) as file:
        file.append(failure)
        assert file.run.failures == (failure,)


def test_stages_without_any_time_are_refused(folder):
    with open_cost_file(folder, HEADER) as file:
        file.append(
            StageSplit(method="a", setting="float32", batch_size=8, stages={"noise": 0.0, "host": 0.0})
        )
    with pytest.raises(RecordsError, match="stages holds a time below 0, or none above"):
        read_cost_run(folder)
