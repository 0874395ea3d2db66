"""What is read is believed only if it can be true: each value in range, each count and radius that of the others."""

import dataclasses
import json
import random
import re

import pytest

from bench.errors import RecordsError
from bench.records import screening
from bench.records.codec import RUN
from bench.records.file import FILE_NAME, RecordsFile, read_run
from bench.records.recertify import recertify
from bench.smoothing.estimation import certified_radius
from tests.records.test_file import COST, HEADER, UNSURE, record, write
from tests.records.test_reading import edit
from tests.support.tiny import bench

SKIPS = dataclasses.replace(HEADER, estimation="skip-wrong")
SKIPPED = {"counts_estimation": (), "samples": 100, "label": 0, "radius": 0.0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"radius": 90.9}, r"radius is 90.9, but its counts certify 1.113\d+ at alpha 0.001"),
        ({"radius": -0.5}, "radius is -0.5, but its counts certify"),
        ({"radius": 1.11315523}, "radius is 1.11315523, but its counts certify"),
        ({"predict": 77}, "predict is 77, expected -1 to 1"),
        ({"predict": -9}, "predict is -9, expected -1 to 1"),
        ({"predict": 0}, "predict is 0, but its counts certify class 1 at alpha 0.001"),
        ({"predict": -1, "radius": 0.0}, "predict is -1, but its counts certify class 1"),
        ({"label": 99}, "label is 99, expected 0 to 1"),
        ({"label": -1}, "label is -1, expected 0 to 1"),
        ({"samples": 5000}, "samples is 5000, but its counts add up to 1100"),
        ({"seconds": -0.1}, "seconds is -0.1, expected a number from 0 to 1e"),
        ({"seconds": 1.7e308}, r"seconds is 1.7e\+308, expected a number from 0 to 1e"),
        ({"uniform": 0.5}, "uniform is 0.5, expected None"),
        ({"counts_selection": [[1, 99]]}, "counts_selection adds up to 99, expected n0, 100"),
        (
            {"counts_selection": [[0, -1], [1, 101]]},
            r"counts_selection is \(\(0, -1\), .*expected counts of ascending classes below 2",
        ),
        (
            {"counts_selection": [[1, 50], [1, 50]]},
            r"counts_selection is \(\(1, 50\), .*expected counts of ascending classes",
        ),
        (
            {"counts_selection": [[2, 100]]},
            r"counts_selection is \(\(2, 100\),\), expected counts of ascending",
        ),
        ({"counts_selection": []}, "counts_selection is empty, which only records of a published log may be"),
        ({"counts_estimation": [[0, 4], [1, 997]], "samples": 1101}, "adds up to 1001, expected n, 1000"),
        ({"counts_estimation": [[0, -3], [1, 1003]]}, r"counts_estimation is \(\(0, -3\)"),
        ({"counts_estimation": [[0, 4], [1, 996]]}, r"radius is 1.113\d+, but its counts certify 1.08"),
        ({"counts_estimation": [], "samples": 100}, "is empty, which fixed estimation leaves no such image"),
    ],
)
def test_a_record_that_cannot_be_true_is_refused_by_line_and_field(tmp_path, changes, message):
    write(tmp_path, record(0), COST, record(20))
    edit(tmp_path, 3, **changes)
    for read in (read_run, lambda folder: RecordsFile.create_or_resume(folder, HEADER)):
        with pytest.raises(RecordsError, match=rf"{FILE_NAME}, line 4: .*{message}.*\(image 20 of rrcm"):
            read(tmp_path)


def test_a_count_is_bounded_once_for_all_methods_and_sigmas(tmp_path, monkeypatch):
    sigmas = (0.12, 0.25, 0.5, 1.0)
    same = [record(20 * place, sigma=sigma) for place, sigma in enumerate(sigmas)]
    write(tmp_path, *same, header=dataclasses.replace(HEADER, sigmas=sigmas))
    bounded, bounds = [], screening.upper_tails
    monkeypatch.setattr(screening, "upper_tails", lambda k, *told: bounded.extend(k) or bounds(k, *told))
    assert len(read_run(tmp_path).records) == len(sigmas)
    assert len(bounded) == 1


@pytest.mark.parametrize("sigma", [0.12, 0.25, 0.3, 4.0])
def test_a_radius_is_that_at_sigma_one_times_sigma_to_the_last_bit(sigma):
    for k in range(HEADER.n // 2, HEADER.n + 1):
        at_one, own = (certified_radius(k, HEADER.n, HEADER.protocol, one) for one in (1.0, sigma))
        assert own == (at_one if at_one is None else at_one * sigma)


@pytest.mark.parametrize("command", [
    ("report",), ("report", "--html"), ("status",), ("compare",), ("replay", "--index", 20), ("audit",),
    ("export-log", "--method", "rrcm", "--sigma", 0.5), ("cost", "--run"),
])  # fmt: skip
def test_no_command_believes_a_changed_radius(tmp_path, monkeypatch, capsys, command):
    write(tmp_path, record(0), record(20))
    edit(tmp_path, 2, radius=90.9)
    name, *options = command
    folder = (*options, tmp_path) if name == "cost" else (tmp_path, *options)
    assert bench(monkeypatch, name, *folder) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert "line 3: radius is 90.9, but its counts certify" in line
    assert {path.name for path in tmp_path.iterdir()} == {FILE_NAME, ".lock"}


def test_a_changed_shard_is_not_merged(tmp_path, monkeypatch, capsys):
    write(tmp_path, record(0, radius=9.0))
    (tmp_path / FILE_NAME).rename(tmp_path / "records-1-of-1.jsonl")
    assert bench(monkeypatch, "merge", tmp_path) == 1
    assert "records-1-of-1.jsonl, line 2: radius is 9.0, but" in capsys.readouterr().err


def test_recertifying_computes_a_changed_radius_anew(tmp_path):
    write(tmp_path, record(0), record(20, **UNSURE))
    edit(tmp_path, 1, radius=9.0, predict=0)
    again = recertify(read_run(tmp_path, repairs=True), HEADER.protocol, "bench recertify")
    assert (again.records[0].predict, again.records[0].radius) == (
        1,
        pytest.approx(record().radius, abs=1e-12),
    )
    edit(tmp_path, 1, counts_selection=[[1, 99]])
    with pytest.raises(RecordsError, match="counts_selection adds up to 99"):
        read_run(tmp_path, repairs=True)


def test_a_skipped_image_holds_the_selected_class_in_older_files_and_an_abstention_in_newer_ones(tmp_path):
    for predict in (1, -1):
        write(tmp_path / str(predict), record(**SKIPPED, predict=predict), header=SKIPS)
        assert read_run(tmp_path / str(predict)).records[0].predict == predict


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"predict": 0}, "predict is 0, but the image was skipped"),
        ({"predict": 1, "radius": 0.1}, "radius is 0.1, but the image was skipped"),
        ({"predict": 1, "label": 1}, "counts_estimation is empty, which skip-wrong estimation leaves"),
    ],
)
def test_a_skipped_image_is_wrong_and_certifies_nothing(tmp_path, changes, message):
    write(tmp_path, record(**SKIPPED | {"predict": 1} | changes), header=SKIPS)
    with pytest.raises(RecordsError, match=message):
        read_run(tmp_path)


@pytest.mark.parametrize("estimation", ["sequential", "confidence-sequence"])
def test_an_image_whose_selected_class_is_right_was_sampled_unless_n_samples_certify_nothing(
    tmp_path, estimation
):
    right = SKIPPED | {"predict": -1, "label": 1}
    few = {"n": 9, "alpha": 0.001}  # 2**-9 is above alpha
    write(tmp_path / "few", record(**right, n=9), header=dataclasses.replace(SKIPS, **few))
    write(tmp_path / "many", record(**right), header=SKIPS)
    for folder in ("few", "many"):
        edit(tmp_path / folder, 0, estimation=estimation)
    assert not read_run(tmp_path / "few").records[0].is_correct
    with pytest.raises(
        RecordsError, match=f"counts_estimation is empty, which {estimation} estimation leaves"
    ):
        read_run(tmp_path / "many")


def test_a_class_so_far_below_0_that_differences_wrap_is_refused(tmp_path):
    write(tmp_path, record(0))
    edit(tmp_path, 1, counts_selection=[[1, 99], [-(2**63), 1]])
    with pytest.raises(RecordsError, match="expected counts of ascending classes"):
        read_run(tmp_path)


@pytest.mark.parametrize("far", [0, 2**40])
def test_an_image_with_two_labels_is_refused_in_a_file_and_by_one_that_grows(tmp_path, far):
    header = dataclasses.replace(HEADER, indices=(far, 20))
    other = dataclasses.replace(record(far), method="dds", label=0)
    write(tmp_path / "one", record(20), record(far), header=header)
    write(tmp_path / "two", record(20), record(far), dataclasses.replace(other, label=1), header=header)
    edit(tmp_path / "two", 3, label=0)
    with pytest.raises(
        RecordsError, match=rf"lines 3 and 4: image {far} of rrcm .* has label 1, and elsewhere 0"
    ):
        read_run(tmp_path / "two")
    with (
        RecordsFile.create_or_resume(tmp_path / "one", header) as file,
        pytest.raises(RecordsError, match=f"image {far} of dds .* has label 0, and elsewhere 1"),
    ):
        file.append(other)
    assert len(read_run(tmp_path / "one").records) == 2


def test_no_changed_digit_is_believed(tmp_path):
    """Of every number of a line but `seconds`, which nothing can check, and what rounding may do to a radius."""
    whole = write(tmp_path, record(0), record(20, **UNSURE), COST, record(40, sigma=0.25))
    first, *lines = whole.splitlines(keepends=True)
    generator, believed = random.Random(0), []
    for number, line in enumerate(lines):
        if b'"cost"' in line:
            continue
        end = line.index(b'"seconds"')
        for place in [found.start() for found in re.finditer(rb"\d", line[:end])]:
            digit = generator.choice([one for one in b"0123456789" if one != line[place]])
            other = [*lines[:number], line[:place] + bytes([digit]) + line[place + 1 :], *lines[number + 1 :]]
            (tmp_path / FILE_NAME).write_bytes(b"".join([first, *other]))
            try:
                found = read_run(tmp_path).records
            except RecordsError:
                continue
            believed.append(found)
    same = [record(0), record(20, **UNSURE), record(40, sigma=0.25)]
    for found in believed:
        assert [dataclasses.replace(one, radius=0.0, index=0, label=0) for one in found] == [
            dataclasses.replace(one, radius=0.0, index=0, label=0) for one in same
        ]
        assert [one.radius for one in found] == pytest.approx([one.radius for one in same], abs=1e-10)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alpha": 5.0}, "alpha is 5.0, expected a number between 0 and 1"),
        ({"n": 0}, "n is 0, expected 1 or more"),
        ({"n0": -3}, "n0 is -3, expected 1 or more"),
        ({"seed": -1}, "seed is -1, expected 0 or more"),
        ({"radii": []}, r"radii is \(\), expected one value or more"),
        ({"radii": [0.5, 0.25]}, r"radii is \(0.5, 0.25\), expected ascending finite numbers"),
        ({"radii": [-0.25]}, r"radii is \(-0.25,\), expected ascending finite numbers"),
        ({"sigmas": [0.5, 0.0]}, r"sigmas is \(0.5, 0.0\), expected finite numbers above 0"),
        ({"methods": ["rrcm", "rrcm"]}, "methods is .*, expected different values"),
        ({"indices": [0, 20, 0]}, "indices is .*, expected different values"),
        ({"indices": [-1, 0, 20]}, "indices is -1, expected each 0 or more"),
        ({"class_names": []}, "class_names is .*, expected one value or more"),
        ({"image_shape": [0, 28, 28]}, "image_shape is .*, expected three numbers, each 1 or more"),
        ({"batch_sizes": {}}, "batch_sizes is {}, expected one for each of the methods"),
        ({"batch_sizes": {"rrcm": 0, "dds": 1}}, "batch_sizes is .*, expected each 1 or more"),
        ({"noise_block": 0}, "noise_block is 0, expected 1 or more"),
        ({"config": {"options": None}}, "config.options is None, expected options by method"),
        ({"config": {"options": [1]}}, r"config.options is \[1\], expected options by method"),
        ({"config": {"options": {"rrcm": 3}}}, "config.options is .*, expected options by method"),
        ({"config": {"drawn_n": 5}}, "drawn_n is 5, expected more than n, 1000"),
        ({"radii": [0.0, 1e-29]}, r"radii is \(0.0, 1e-29\), expected each 0, or 1e-09 or more"),
        ({"config": {"logs": {"rrcm/0.5": {"notes": []}}}}, "logs is .*, expected a file and notes"),
        ({"config": {"logs": {"rrcm/0.5": {}}}}, "logs is .*, expected a file and notes for each log"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", ["report", "status", "recertify"])
def test_a_header_that_no_run_can_have_is_refused_by_its_field(
    tmp_path, monkeypatch, capsys, command, changes, message
):
    write(tmp_path, record(0))
    edit(tmp_path, 0, **changes)
    out = ("--out", tmp_path / "out") if command == "recertify" else ()
    assert bench(monkeypatch, command, tmp_path, *out) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert re.search(rf"{FILE_NAME}, line 1: {message}", line)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "other"}, "the cost of other at sigma 0.5 is not part of this run"),
        ({"repetition_seconds": []}, r"repetition_seconds is \(\), expected finite numbers above 0"),
        ({"repetition_seconds": [0.0]}, "expected finite numbers above 0"),
        ({"samples_per_repetition": 0}, "samples_per_repetition is 0, expected 1 or more"),
        ({"batch_size": -1}, "batch_size is -1, expected 1 or more"),
        ({"parameters": -1}, "parameters is -1, expected 0 or more"),
        ({"peak_memory_bytes": 2**62}, r"peak_memory_bytes is 46\d+, expected .* not above 2\*\*53"),
        ({"samples_per_certificate": 1}, r"samples_per_certificate is 1, expected n0 \+ n = 1100"),
    ],
)
def test_a_cost_that_cannot_be_true_is_refused(tmp_path, changes, message):
    write(tmp_path, record(0), COST)
    edit(tmp_path, 2, **changes)
    with pytest.raises(RecordsError, match=rf"line 3: .*{message}"):
        read_run(tmp_path)


LOG = "idx\tlabel\tpredict\tradius\tcorrect\ttime\n0\t3\t3\t0.5\t1\t1.0\n20\t7\t-1\t0.0\t0\t2.5\n"
IMPORT = ("--dataset", "cifar10", "--sigma", 0.5, "--method", "m", "--alpha", 0.001, "--n", 1000)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"radius": 2.5}, "radius is 2.5, but n and alpha certify 1.23163 at most"),
        ({"radius": -0.5}, "radius is -0.5, expected a finite number"),
        ({"predict": -1}, "radius is 0.5, but the image abstains"),
        ({"predict": 10}, "predict is 10, expected -1 to 9"),
        ({"samples": 1}, r"samples is 1, expected n0 \+ n, 1100"),
        ({"counts_estimation": [[3, 1000]]}, "counts_estimation holds samples, but counts_selection none"),
    ],
)
def test_a_record_of_a_log_is_possible_at_its_n_and_alpha(tmp_path, monkeypatch, changes, message):
    (tmp_path / "log.tsv").write_text(LOG)
    assert bench(monkeypatch, "import-log", tmp_path / "log.tsv", *IMPORT, "--out", tmp_path) == 0
    assert len(read_run(tmp_path).records) == 2
    edit(tmp_path, 1, **changes)
    with pytest.raises(RecordsError, match=rf"line 2: {message}"):
        read_run(tmp_path)


def test_a_log_of_another_alpha_is_read_since_its_note_says_so(tmp_path, monkeypatch, capsys):
    (tmp_path / "log.tsv").write_text(LOG.replace("0.5", "1.5"))
    assert bench(monkeypatch, "import-log", tmp_path / "log.tsv", *IMPORT, "--out", tmp_path) == 0
    assert "another alpha (or n) than alpha = 0.001: 1 of 2 radii exceed" in capsys.readouterr().err
    assert read_run(tmp_path).records[0].radius == 1.5


def test_a_log_whose_radius_no_level_certifies_is_not_imported(tmp_path, monkeypatch, capsys):
    (tmp_path / "log.tsv").write_text(LOG.replace("0.5", "1e308"))
    assert bench(monkeypatch, "import-log", tmp_path / "log.tsv", *IMPORT, "--out", tmp_path / "run") == 2
    assert "holds a radius of 1e+308, which n = 1000 samples" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_what_is_checked_is_the_rule_by_which_certificates_are_made(tmp_path):
    randomised = dataclasses.replace(HEADER, bound="randomised")
    path = tmp_path / FILE_NAME
    made = recertify(
        dataclasses.replace(read_of(tmp_path, record(0), record(20)), folder=tmp_path),
        randomised.protocol,
        "bench recertify",
    )
    path.write_bytes(b"".join(map(RUN.encode, (made.header, *made.records))))
    assert read_run(tmp_path).records == made.records
    assert all(one.uniform is not None for one in made.records)
    edit(tmp_path, 1, uniform=json.loads(RUN.encode(made.records[0]))["uniform"] / 2)
    with pytest.raises(RecordsError, match="line 2: uniform is"):
        read_run(tmp_path)


def read_of(folder, *items):
    write(folder, *items)
    return read_run(folder)
