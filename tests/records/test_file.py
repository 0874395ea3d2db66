"""Records files: full precision, resuming after any stop, one writer at a time, and every refusal."""

import dataclasses
import errno
import json
import os
import subprocess
import sys

import pytest
from scipy import stats

from bench.errors import ProtocolError, RecordsError
from bench.records import lines
from bench.records.file import FILE_NAME, RecordsFile, read_run
from bench.types import CostRecord, Record, Run
from tests.support.fake_runs import make_header

HEADER = make_header(
    indices=tuple(range(0, 200, 20)),
    class_names=("zéro", "one"),
    methods=("rrcm", "dds"),
    sigmas=(0.25, 0.5),
    radii=(0.0, 0.25),
    config={"methods": ["rrcm", "dds"], "sigmas": [0.25, 0.5], "options": {}, "names": {"a": [None]}},
    checkpoints={"rrcm/0.5": "aa", "dds/0.5": "bb"},
    batch_sizes={"rrcm": 64, "dds": 64},
    libraries={"torch": "2.3"},
    noise_version=2,
)
UNLIKE = {
    "dataset": "cifar10",
    "subset": "all",
    "image_shape": (3, 8, 8),
    "n0": 10,
    "n": 10,
    "alpha": 0.01,
    "seed": 1,
    "bound": "randomised",
    "estimation": "skip-wrong",
    "noise_block": 64,
    "precision": "bfloat16",
}
"""Fields in which a run under another protocol may differ from HEADER."""

COST = CostRecord(
    method="rrcm",
    sigma=0.5,
    device="cpu",
    batch_size=64,
    samples_per_repetition=640,
    repetition_seconds=(0.1, 1 / 3),
    samples_per_certificate=1100,
    parameters=10,
)


UNSURE = {"predict": -1, "radius": 0.0, "counts_estimation": ((0, 500), (1, 500))}


def record(index=0, **changes):
    """Return a record of HEADER's run, its radius that of its counts unless it is given."""
    made = Record(
        method="rrcm",
        sigma=0.5,
        index=index,
        label=1,
        predict=1,
        radius=0.0,
        counts_selection=((1, 100),),
        counts_estimation=((0, 3), (1, 997)),
        n0=100,
        n=1000,
        samples=1100,
        seconds=1 / 7,
    )
    if "radius" in changes:
        return dataclasses.replace(made, **changes)
    made = dataclasses.replace(made, **changes)
    k = dict(made.counts_estimation)[1]
    return dataclasses.replace(
        made, radius=-made.sigma * float(stats.norm.ppf(stats.beta.isf(0.001, 1001 - k, k)))
    )


ALL = [record(method=name, sigma=sigma) for name in HEADER.methods for sigma in HEADER.sigmas]


def write(folder, *items, header=HEADER):
    """Return the bytes of the records file after this command has appended the items."""
    with RecordsFile.create_or_resume(folder, header) as file:
        for item in items:
            file.append(item)
    return (folder / FILE_NAME).read_bytes()


def test_what_is_read_equals_what_was_written(tmp_path):
    write(tmp_path, record(0), COST, record(20, **UNSURE))
    expected = Run(
        folder=tmp_path,
        header=HEADER,
        records=(record(0), record(20, **UNSURE)),
        costs=(COST,),
    )
    assert read_run(tmp_path) == expected
    assert read_run(tmp_path / FILE_NAME) == expected


def test_lines_are_compact_json_of_a_named_kind(tmp_path):
    content = write(tmp_path, record(), COST, header=dataclasses.replace(HEADER, drawn_n=5000))
    lines = [json.loads(line) for line in content.splitlines()]
    assert [line["kind"] for line in lines] == ["header", "certificate", "cost"]
    assert lines[0]["config"] == {**HEADER.config, "drawn_n": 5000}
    assert not {"drawn_n", "logs"} & lines[0].keys()
    assert f'"radius":{record().radius!r},"counts_selection":[[1,100]],'.encode() in content
    assert content.isascii()


def test_resume_equals_uninterrupted(tmp_path):
    whole = write(tmp_path / "whole", record(0), record(20), COST)
    write(tmp_path / "parts", record(0))
    with RecordsFile.create_or_resume(tmp_path / "parts", HEADER) as file:
        assert file.run.records == (record(0),)
        assert file.repaired is None
    assert write(tmp_path / "parts", record(20), COST) == whole


def test_resume_keeps_the_first_header(tmp_path):
    write(tmp_path, *ALL)
    later = dataclasses.replace(
        HEADER, created="later", batch_sizes={"rrcm": 8}, checkpoints={"rrcm/0.5": "aa", "new/1": "cc"}
    )
    with RecordsFile.create_or_resume(tmp_path, later) as file:
        assert file.run.header == HEADER


def test_a_last_line_cut_anywhere_is_repaired(tmp_path):
    first = write(tmp_path, record(0))
    whole = write(tmp_path, record(20))
    path = tmp_path / FILE_NAME
    for size in range(len(first) + 1, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert read_run(tmp_path).records == (record(0),)
        assert path.stat().st_size == size
        with RecordsFile.create_or_resume(tmp_path, HEADER) as file:
            assert file.run.records == (record(0),)
            assert f"removed a cut last line of {size - len(first)} bytes" in file.repaired
        assert path.read_bytes() == first
    assert write(tmp_path, record(20)) == whole


@pytest.mark.parametrize("tail", [b"\n", b"\0\0\0\0", b"\0\0\n", b'{"kind":\n', b"\xff\n"])
def test_a_last_line_of_rubbish_is_repaired(tmp_path, tail):
    content = write(tmp_path, record(0))
    (tmp_path / FILE_NAME).write_bytes(content + tail)
    with RecordsFile.create_or_resume(tmp_path, HEADER) as file:
        assert f"of {len(tail)} bytes" in file.repaired
    assert (tmp_path / FILE_NAME).read_bytes() == content


def test_a_repeated_cost_replaces_the_first(tmp_path):
    again = dataclasses.replace(COST, repetition_seconds=(2.0,))
    write(tmp_path, COST, dataclasses.replace(COST, method="dds"), again)
    assert [cost.method for cost in read_run(tmp_path).costs] == ["rrcm", "dds"]
    assert read_run(tmp_path).costs[0] == again


@pytest.mark.parametrize("truncates", [True, False])
@pytest.mark.parametrize("written", [0, 10, None])
def test_a_full_disk_keeps_the_whole_lines(tmp_path, monkeypatch, written, truncates):
    content = write(tmp_path, record(0))
    os_write = os.write

    def failing(descriptor, line):
        if written is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        return os_write(descriptor, line[:written])

    def failing_truncate(descriptor, size):
        raise OSError(errno.EIO, "Input/output error")

    with RecordsFile.create_or_resume(tmp_path, HEADER) as file, monkeypatch.context() as patch:
        patch.setattr(lines.os, "write", failing)
        if not truncates:
            patch.setattr(lines.os, "ftruncate", failing_truncate)
        reason = "No space left" if written is None else f"only {written} of "
        message = f"{reason}.*whole lines are kept, and repeating the command resumes"
        with pytest.raises(RecordsError, match=message):
            file.append(record(20))
    left = b"" if truncates or written is None else (tmp_path / FILE_NAME).read_bytes()[len(content) :]
    assert (tmp_path / FILE_NAME).read_bytes() == content + left
    assert len(left) == (0 if truncates else written or 0)
    resumed = write(tmp_path, record(20))
    assert resumed == write(tmp_path / "whole", record(0), record(20))


def test_an_image_that_failed_to_be_written_can_be_appended_again(tmp_path, monkeypatch):
    with RecordsFile.create_or_resume(tmp_path, HEADER) as file:
        with monkeypatch.context() as patch:
            patch.setattr(lines.os, "write", lambda descriptor, line: 0)
            with pytest.raises(RecordsError):
                file.append(record())
        file.append(record())
    assert read_run(tmp_path).records == (record(),)


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failure_at_the_header_leaves_no_file(tmp_path, monkeypatch, step):
    def failing(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(lines.os, step, failing)
        with pytest.raises(
            RecordsError, match=r"cannot be written .*No space left.*: mend that, or give another"
        ):
            RecordsFile.create_or_resume(tmp_path, HEADER)
    assert not (tmp_path / FILE_NAME).exists()
    assert write(tmp_path, record()) == write(tmp_path / "whole", record())


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RecordsError, match=r"cannot be written .*: mend that, or give another --out"):
        RecordsFile.create_or_resume(tmp_path / "file", HEADER)


def test_a_second_handle_is_refused_until_the_first_closes(tmp_path):
    with (
        RecordsFile.create_or_resume(tmp_path, HEADER),
        pytest.raises(RecordsError, match=rf"another process \(pid {os.getpid()}\) writes to"),
    ):
        RecordsFile.create_or_resume(tmp_path, HEADER)
    write(tmp_path, record())


def test_another_process_is_refused_until_it_ends(tmp_path):
    program = (
        "import sys, pathlib; from tests.records.test_file import HEADER, RecordsFile; "
        "file = RecordsFile.create_or_resume(pathlib.Path(sys.argv[1]), HEADER); "
        "print('ready', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        with pytest.raises(RecordsError, match=rf"another process \(pid {process.pid}\) writes to"):
            RecordsFile.create_or_resume(tmp_path, HEADER)
        process.kill()
    write(tmp_path, record())


def test_a_refused_resume_releases_the_lock(tmp_path):
    write(tmp_path, record(0))
    with pytest.raises(ProtocolError):
        RecordsFile.create_or_resume(tmp_path, dataclasses.replace(HEADER, n=5))
    write(tmp_path, record(20))


def test_a_header_on_which_nothing_rests_is_replaced(tmp_path):
    write(tmp_path)
    other = dataclasses.replace(HEADER, seed=7, config={"options": {"dds": {"classifier": "mended"}}})
    write(tmp_path, record(), header=other)
    assert read_run(tmp_path).header == other


def test_radii_may_change_unless_sequential_estimation_stopped_by_them(tmp_path):
    for estimation, radii in (("fixed", (0.5,)), ("sequential", HEADER.radii)):
        header = dataclasses.replace(HEADER, estimation=estimation)
        write(tmp_path / estimation, record(**UNSURE), header=header)
        with RecordsFile.create_or_resume(
            tmp_path / estimation, dataclasses.replace(header, radii=radii)
        ) as file:
            assert file.run.header.radii == radii
    with pytest.raises(ProtocolError, match="was made under another radii"):
        RecordsFile.create_or_resume(tmp_path / "sequential", dataclasses.replace(header, radii=(0.5,)))


def test_fields_with_defaults_may_be_missing_as_in_older_files(tmp_path):
    write(tmp_path, record())
    lines = (tmp_path / FILE_NAME).read_text().splitlines()
    lacking = {"estimation", "uniform"}
    older = [{k: v for k, v in json.loads(line).items() if k not in lacking} for line in lines]
    (tmp_path / FILE_NAME).write_text("".join(json.dumps(line) + "\n" for line in older))
    assert read_run(tmp_path) == Run(folder=tmp_path, header=HEADER, records=(record(),), costs=())


@pytest.mark.parametrize(("field", "value"), [*UNLIKE.items(), ("device_type", "cuda")])
def test_resuming_under_another_protocol_is_refused(tmp_path, field, value):
    content = write(tmp_path, record())
    with pytest.raises(ProtocolError) as caught:
        RecordsFile.create_or_resume(tmp_path, dataclasses.replace(HEADER, **{field: value}))
    both = f"{getattr(HEADER, field)!r} and {value!r}"
    assert f"under another {field} (then and now: {both}): give another --out" in str(caught.value)
    assert (tmp_path / FILE_NAME).read_bytes() == content


def test_resuming_with_other_options_of_a_method_is_refused_and_those_of_a_new_one_are_added(tmp_path):
    def header(methods, **options):
        return dataclasses.replace(HEADER, methods=methods, config={"options": options})

    content = write(tmp_path, record(), header=header(("rrcm",), rrcm={"votes": 1}))
    for options in ({"rrcm": {"votes": 4}}, {}):
        with pytest.raises(
            ProtocolError, match=r"another configuration of rrcm \(then and now: {'votes': 1} and "
        ):
            write(tmp_path, header=header(("rrcm", "dds"), **options))
    assert (tmp_path / FILE_NAME).read_bytes() == content
    write(tmp_path, header=header(("rrcm", "dds"), rrcm={"votes": 1}, dds={"votes": 4}))
    assert read_run(tmp_path).header.config["options"] == {"rrcm": {"votes": 1}, "dds": {"votes": 4}}
    other = tmp_path / "preset"  # whose options hold those of methods that are not asked for
    write(other, record(), header=header(("rrcm",), rrcm={"votes": 1}, dds={"votes": 2}))
    write(other, header=header(("dds",), rrcm={"votes": 9}, dds={"votes": 4}))
    assert read_run(other).header.config["options"] == {"rrcm": {"votes": 1}, "dds": {"votes": 4}}


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ((*range(0, 180, 20), 181), "another indices .*at position 9: 180 and 181"),
        (tuple(range(0, 180, 20)), "another indices .*10 values and 9 values"),
    ],
)
def test_resuming_on_other_images_names_the_first(tmp_path, indices, message):
    write(tmp_path, record())
    with pytest.raises(ProtocolError, match=message):
        RecordsFile.create_or_resume(tmp_path, dataclasses.replace(HEADER, indices=indices))


def test_methods_sigmas_and_images_are_added_to_a_run(tmp_path):
    content = write(tmp_path, *ALL)
    more = {
        "checkpoints": {"gaussian/1": "new"},
        "methods": ("gaussian",),
        "sigmas": (1.0,),
        "indices": (*HEADER.indices, 999),
        "radii": (0.5,),
    }
    batch_sizes = {"gaussian": 3, "rrcm": 4}
    header = dataclasses.replace(HEADER, **more, command="bench run 2", batch_sizes=batch_sizes)
    with RecordsFile.create_or_resume(tmp_path, header) as file:
        assert file.run.header.methods == ("gaussian", *HEADER.methods)
        file.append(record(method="gaussian", sigma=1.0, index=999))
    run = read_run(tmp_path)
    assert run.header.sigmas == (*HEADER.sigmas, 1.0)
    all_of_it = f"bench run 2 --methods {','.join(run.header.methods)} --sigmas 0.25,0.5,1"
    assert (run.header.indices[-1], run.header.radii, run.header.command) == (999, (0.5,), all_of_it)
    assert run.header.checkpoints == {**HEADER.checkpoints, "gaussian/1": "new"}
    assert run.header.batch_sizes == {**batch_sizes, **HEADER.batch_sizes}
    assert [each.method for each in run.records] == [*(one.method for one in ALL), "gaussian"]
    assert content.split(b"\n", 1)[1] in (tmp_path / FILE_NAME).read_bytes()


def test_asking_for_less_leaves_the_file_as_it_is(tmp_path):
    content = write(tmp_path, *ALL)
    header = dataclasses.replace(HEADER, methods=HEADER.methods[:1], sigmas=HEADER.sigmas[:1], command="less")
    RecordsFile.create_or_resume(tmp_path, header).close()
    assert (tmp_path / FILE_NAME).read_bytes() == content


def test_resuming_with_another_checkpoint_is_refused(tmp_path):
    write(tmp_path, record())
    header = dataclasses.replace(HEADER, checkpoints={"rrcm/0.5": "zz"})
    with pytest.raises(ProtocolError, match=r"the checkpoint of rrcm/0.5 .*'aa' and 'zz'"):
        RecordsFile.create_or_resume(tmp_path, header)


def test_an_image_is_appended_once(tmp_path):
    write(tmp_path, record(0))
    with pytest.raises(
        RecordsError, match=r"already holds image 0 of rrcm at sigma 0.5: certify each image once"
    ):
        write(tmp_path, record(0))
    with pytest.raises(
        RecordsError, match=r"already holds image 20 of rrcm at sigma 0.5: certify each image once"
    ):
        write(tmp_path, record(20), record(20))
    write(tmp_path, record(0, sigma=0.25), record(0, method="dds"))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**63, "0.5"])
def test_what_could_not_be_read_again_is_not_stored(tmp_path, value):
    changes = {"label": value} if isinstance(value, int) else {"radius": value}
    with pytest.raises(RecordsError, match=r"a certificate cannot be stored \(.*\): .*'index': 40"):
        write(tmp_path, record(40, **changes))
    assert read_run(tmp_path).records == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"hardware": {"memory": [{"bytes": float("nan")}]}},
        {"command": "bench run \udcff"},
        {"indices": (2**63,)},
    ],
)
def test_a_header_that_could_not_be_read_again_makes_no_file(tmp_path, changes):
    with pytest.raises(RecordsError, match="a header cannot be stored"):
        write(tmp_path, header=make_header(**changes))
    assert not (tmp_path / FILE_NAME).exists()
