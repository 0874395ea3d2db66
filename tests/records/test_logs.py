"""Published logs: every format of the field, the real ones against published numbers, and the way back."""

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from scipy import stats

from bench.config.names import DATASETS, IMAGE_SHAPES
from bench.config.run import RunConfig
from bench.errors import ProtocolError, RecordsError, UsageError
from bench.records.file import check_comparable, read_run
from bench.records.log_claim import check_claim
from bench.records.logs import format_log, log_header, log_notes, log_records, parse_seconds, read_log
from bench.report.comparison import compare
from bench.report.metrics import abstention, acr, certified_accuracy, group
from bench.report.published import published_numbers
from bench.report.tables.accuracy import main_table
from bench.report.write import write_tables
from bench.smoothing.stats import largest_radius
from bench.types import ABSTAIN, Run
from tests.support.fake_runs import RADII, make_record, make_run
from tests.support.tiny import bench

pytestmark = pytest.mark.usefixtures("undrawn")

REAL = Path(os.environ.get("PUBLISHED_LOGS_DIR", Path(__file__).parents[3] / "shared" / "published_logs"))
needs_real_logs = pytest.mark.skipif(not REAL.is_dir(), reason=f"no published logs at {REAL}")
SIGMAS = {"0.12": 0.12, "0.25": 0.25, "0.50": 0.5, "1.00": 1.0}

HEADER = "idx\tlabel\tpredict\tradius\tcorrect\ttime\n"
ROWS = "0\t3\t-1\t0.0\t0\t0:00:13.5\n20\t7\t7\t0.434\t1\t0:01:00\n40\t5\t6\t0.12\t0\t1:00:00\n"
INDICES, OUTCOMES, SECONDS = (0, 20, 40), [(3, -1, 0.0), (7, 7, 0.434), (5, 6, 0.12)], [13.5, 60.0, 3600.0]


def real(sigma):
    return REAL / f"cohen2019_cifar10_resnet110_sigma_{sigma}.tsv"


def written(folder, text):
    path = folder / "a.tsv"
    path.write_text(text)
    return path


def configuration(**changes):
    values = {"dataset": "cifar10", "methods": ("gaussian",), "sigmas": (0.25,), "n": 100_000, "radii": RADII}
    return RunConfig(**(values | changes))


def outcomes(log):
    return [(row.label, row.predict, row.radius) for row in log.rows]


def without(column, text=HEADER + ROWS):
    """Return the text with one column cut out."""
    cells = [line.split("\t") for line in text.splitlines()]
    return "".join("\t".join(row[:column] + row[column + 1 :]) + "\n" for row in cells)


@needs_real_logs
@pytest.mark.parametrize(("name", "sigma"), SIGMAS.items())
def test_a_real_log_has_the_published_certified_accuracies(name, sigma):
    records = log_records(read_log(real(name)), configuration(sigmas=(sigma,)))
    published = [
        one
        for one in published_numbers("cifar10")
        if (one.paper, one.method, one.sigma) == ("Cohen et al. 2019", "gaussian", sigma)
    ]
    assert len(published) >= 6
    for one in published:
        assert certified_accuracy(records, one.radius).value == one.certified_accuracy
        assert abstention(records).value == one.abstention
        assert acr(records).value == pytest.approx(one.acr, abs=5e-5)
        assert len(records) == one.images


@needs_real_logs
@pytest.mark.parametrize(("name", "fits"), {"0.12": True, "0.25": False, "0.50": False, "1.00": True}.items())
def test_a_real_log_with_radii_above_the_largest_of_its_alpha_is_named(name, fits):
    log = read_log(real(name))
    for alpha, expected in ((0.001, fits), (0.01, True)):
        notes = log_notes(log, configuration(sigmas=(SIGMAS[name],), alpha=alpha))
        assert any("made at another alpha (or n) than alpha = 0.001" in note for note in notes) != expected


@needs_real_logs
def test_a_real_log_becomes_a_run_that_reports_and_goes_back(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    options = ["--dataset", "cifar10", "--method", "gaussian", "--n", "100000", "--out", folder]
    for name in ("0.25", "0.50", "0.50"):  # the third repeats the second
        command = ["import-log", real(name), "--sigma", name, "--alpha", "0.01", *options]
        assert bench(monkeypatch, *command) == 0
    run = read_run(folder)
    assert len(run.records) == 1000
    assert run.header.indices == tuple(range(0, 10_000, 20))
    assert (run.header.subset, run.header.sigmas) == ("standard", (0.25, 0.5))
    assert set(run.header.logs) == {"gaussian/0.25", "gaussian/0.5"}
    capsys.readouterr()
    assert bench(monkeypatch, "report", folder, "--published") == 0
    # Cohen et al. have 7 radii at each sigma, Jeong et al. 4 and 7 of the table's.
    said = capsys.readouterr().out
    assert "25 numbers beside ours, 11 inside" in said
    assert "14 from the log that was imported, which compare it with itself" in said
    assert (folder / "published.tex").stat().st_size > 0
    log = tmp_path / "log.tsv"
    assert (
        bench(monkeypatch, "export-log", folder, "--method", "gaussian", "--sigma", "0.5", "--out", log) == 0
    )
    assert outcomes(read_log(log)) == outcomes(read_log(real("0.50")))


@pytest.mark.parametrize("predict", [ABSTAIN, 4], ids=["abstains", "as older records hold it"])
def test_no_class_that_nothing_certified_is_exported(predict):
    skipped = replace(make_record(predict=predict, radius=0.0, label=2), counts_selection=((4, 100),))
    assert format_log([skipped]).splitlines()[1].split("\t")[:5] == ["0", "2", "-1", "0.0", "0"]


@pytest.mark.parametrize("digits", [None, 3, 17], ids=lambda digits: f"{digits} digits")
def test_export_then_import_keeps_every_accuracy_of_the_table(tmp_path, digits):
    groups = group(make_run().records)
    for records in groups.values():
        log = read_log(written(tmp_path, format_log(records, digits)))
        again = log_records(log, configuration(sigmas=(records[0].sigma,)))
        for radius in (*RADII, 0.615, 1.23):
            assert certified_accuracy(again, radius) == certified_accuracy(records, radius)
        assert abstention(again) == abstention(records)
        assert [one.seconds for one in again] == [one.seconds for one in records]
        assert all(b.radius <= a.radius for a, b in zip(records, again, strict=True))


@pytest.mark.parametrize(
    ("radius", "digits", "text"),
    [
        (0.61999, 3, "0.619"),
        (1.9999, 3, "1.99"),
        (12.99, 1, "10"),
        (1.29e-5, 2, "0.000012"),
        (0.29, 3, "0.290"),
        (0.1 + 0.2, None, "0.30000000000000004"),
        (0.0, 3, "0.0"),
    ],
)
def test_radii_are_written_rounded_down(radius, digits, text):
    row = format_log([make_record(radius=radius)], digits).splitlines()[1]
    assert row == f"0\t0\t0\t{text}\t1\t0.2"


def test_abstention_is_written_as_minus_one_incorrect_at_radius_zero():
    assert format_log([make_record(predict=ABSTAIN)]) == HEADER + "0\t0\t-1\t0.0\t0\t0.2\n"


@pytest.mark.parametrize(
    "text",
    [
        HEADER + ROWS,
        HEADER + ROWS.rstrip("\n"),
        (HEADER + ROWS).replace("\n", "\r\n"),
        ROWS,
        without(4),
        (HEADER + ROWS).replace("\n", "\tmore\n"),
        ROWS.replace("\n", "\tmore\n"),
        HEADER.replace("idx", "Idx") + ROWS,
        "predict\tidx\tradius\tlabel\ttime\n"
        + "".join(
            f"{predict}\t{index}\t{radius}\t{label}\t{seconds}\n"
            for index, (label, predict, radius), seconds in zip(INDICES, OUTCOMES, SECONDS, strict=True)
        ),
    ],
    ids=[
        "standard",
        "cut newline",
        "crlf",
        "no header",
        "no correct",
        "more columns",
        "more, no header",
        "capital",
        "order",
    ],
)
def test_a_log_in_any_of_the_fields_shapes_reads_the_same(tmp_path, text):
    log = read_log(written(tmp_path, text))
    assert (log.indices, outcomes(log)) == (INDICES, OUTCOMES)
    assert [row.seconds for row in log.rows] == SECONDS


def test_five_columns_without_header_are_told_apart_by_their_shape(tmp_path):
    no_index = read_log(written(tmp_path, without(0, ROWS)))
    assert (no_index.indices, outcomes(no_index)) == ((0, 1, 2), OUTCOMES)
    assert "names no images: its rows are numbered from 0" in log_notes(no_index, configuration())[-1]
    no_time = read_log(written(tmp_path, without(5, ROWS)))
    assert (no_time.indices, outcomes(no_time)) == (INDICES, OUTCOMES)
    assert "holds no times" in log_notes(no_time, configuration())[-1]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("15.4", 15.4),
        ("0:00:13.736080", 13.73608),
        ("1:02:03", 3723.0),
        ("1 day, 0:00:01", 86401.0),
        ("2 days, 1:00:00", 176400.0),
    ],
)
def test_times_are_read_in_both_forms(text, seconds):
    assert parse_seconds(text) == pytest.approx(seconds)


def test_rounded_radii_are_said_to_be_rounded_and_full_ones_are_not(tmp_path):
    config = configuration()
    assert "radii rounded to 3 significant digits" in log_notes(read_log(written(tmp_path, ROWS)), config)[0]
    full = read_log(written(tmp_path, ROWS.replace("0.434", "0.43412345678901234")))
    assert not any("rounded" in note for note in log_notes(full, config))


def test_the_largest_radius_itself_fits_its_alpha_however_it_is_rounded(tmp_path):
    config = configuration()
    largest = largest_radius(config.n, config.alpha, 0.25)
    for text in (repr(largest), f"{largest:.3g}", f"{largest:.2g}"):
        notes = log_notes(read_log(written(tmp_path, f"0\t3\t3\t{text}\t1\t1.0\n")), config)
        assert not any("another alpha" in note for note in notes), text


def test_a_larger_radius_names_the_alpha_it_needs(tmp_path):
    # 0.978 stands for 0.9775 or more, and n draws certify 3.91 sigma only at alpha >= Phi(3.91)^n.
    needed = stats.norm.cdf(0.9775 / 0.25) ** 100_000
    note = log_notes(read_log(written(tmp_path, "0\t3\t3\t0.978\t1\t1.0\n")), configuration())[1]
    assert "1 of 1 radii exceed 0.9529, the largest that n = 100000 samples certify" in note
    assert f"needs alpha >= {needed:.2g}" in note
    assert f"{needed:.2g}" == "0.0099"


@pytest.mark.parametrize(
    ("rows", "note"),
    [
        ("0\t1\t1\t0.1\t1\t1\n1\t1\t1\t0.1\t2\t1\n2\t1\t0\t0.1\t2\t1\n", "'correct' is a running total"),
        ("0\t1\t1\t0.1\t0\t1\n1\t1\t1\t0.1\t1\t1\n", "'correct' is wrong in 1 rows"),
    ],
)
def test_a_wrong_correct_column_is_named_and_not_used(tmp_path, rows, note):
    log = read_log(written(tmp_path, rows))
    assert any(note in one for one in log_notes(log, configuration()))
    assert sum(one.is_correct for one in log_records(log, configuration())) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty: name a log with one row per image"),
        (HEADER, "holds no image: name a log with one row per image"),
        (without(2), "line 1 names no column 'predict', expected a header such as 'idx label predict radius"),
        ("1\t2\n", "has no header and 2 columns, expected 5 or 6: add a header line"),
        (HEADER + "0\t3\t3\n", "line 2 has 3 columns, expected 6: remove a cut line"),
        (HEADER + "0\tcat\t3\t0.1\t1\t1\n", "line 2 is no row of a log"),
        (HEADER + "0\t3\t3\t0.1\t1\t-1\n", "line 2 is no row of a log"),
        (HEADER + "0\t3\t-1\t0.1\t0\t1\n", "which is 0 where predict is -1: correct the line"),
        (HEADER + "0\t3\t-2\t0.1\t0\t1\n", "expected idx >= 0, label >= 0, predict >= -1"),
        (HEADER + "0\t3\t3\tnan\t1\t1\n", "('nan' is no number)"),
        (HEADER + ROWS + ROWS[:20], "holds image 0 twice: keep one of its rows"),
    ],
)
def test_what_is_no_log_is_refused(tmp_path, text, message):
    with pytest.raises(RecordsError, match=re.escape(message)):
        read_log(written(tmp_path, text))


def header(log, **changes):
    return log_header(log, configuration(**changes), command="bench import-log", git_revision="0")


def run_of(log, folder, **changes):
    config = configuration(**changes)
    return Run(folder=folder, header=header(log, **changes), records=log_records(log, config), costs=())


def test_only_the_published_stride_is_called_standard(tmp_path):
    log = read_log(written(tmp_path, HEADER + ROWS))
    assert header(log).subset == "standard"
    assert header(log, dataset="imagenet").subset == "log"
    assert header(read_log(written(tmp_path, without(0, ROWS)))).subset == "log"
    other = read_log(written(tmp_path, HEADER + ROWS.replace("40", "60", 1)))
    assert header(other).subset == "log"
    one = "0\t3\t3\t0.1\t1\t1.0\n"
    assert header(read_log(written(tmp_path, one)), dataset="mnist").subset == "log"
    assert header(read_log(written(tmp_path, without(0, one)))).subset == "log"


def test_images_of_another_side_than_the_usual_keep_it_in_the_header(tmp_path):
    log = read_log(written(tmp_path, HEADER + ROWS))
    assert header(log, dataset="imagenet").image_shape == (3, 224, 224)
    assert header(log, dataset="imagenet", image_size=256).image_shape == (3, 256, 256)


def test_every_named_data_set_has_the_shape_that_its_line_says():
    assert set(IMAGE_SHAPES) == set(DATASETS) - {"folder"}
    for name, shape in IMAGE_SHAPES.items():
        stated = re.findall(r"(\d)x(\d+)x(\d+)", DATASETS[name])
        assert stated in ([], [tuple(map(str, shape))])


def test_tables_of_a_log_leave_open_what_it_does_not_tell(tmp_path):
    write_tables(compare([run_of(read_log(written(tmp_path, without(5, ROWS))), tmp_path)]), tmp_path)
    assert "| – | **33.3** [0.8, 90.6] |" in (tmp_path / "acr.md").read_text("utf-8")
    assert "| 3 | – | – | – | – | – |" in (tmp_path / "cost.md").read_text("utf-8")
    text = (tmp_path / "certified_accuracy.md").read_text("utf-8")
    assert "seed unknown, precision unknown" in text
    assert "gaussian/0.25: log a.tsv: it holds no counts" in text


def test_a_log_stands_beside_a_measured_run_only_where_what_it_leaves_open_may_differ(tmp_path):
    log = read_log(written(tmp_path, HEADER + ROWS))
    published = run_of(log, tmp_path / "log")
    measured = replace(
        published,
        folder=tmp_path / "run",
        header=replace(published.header, seed=0, noise_block=128, precision="float32", logs={}),
    )
    with pytest.raises(ProtocolError, match=r"differ in seed \(0 and -1\)"):
        check_comparable([measured, published])
    check_comparable([measured, published], ["seed", "noise_block", "precision"])
    labels = [row[0] for row in main_table(compare([measured, published])).blocks[0].rows]
    assert labels == ["Gaussian (run)", "Gaussian (log)"]
    assert len(compare([measured, published]).notes) == 1


def test_records_of_a_log_have_no_counts_and_those_of_a_run_have(tmp_path):
    records = log_records(read_log(written(tmp_path, ROWS)), configuration())
    assert not any(record.has_counts for record in records)
    assert all(record.has_counts for record in make_run().records)


def test_a_log_is_imported_with_notes_and_exported_as_it_was(tmp_path, monkeypatch, capsys):
    path = written(tmp_path, ROWS)
    options = ["--dataset", "cifar10", "--sigma", "0.25", "--alpha", "0.001", "--n", "1000"]
    assert (
        bench(monkeypatch, "import-log", path, "--method", "mine", *options, "--out", tmp_path / "run") == 0
    )
    captured = capsys.readouterr()
    assert "note: log a.tsv: it holds no counts" in captured.err
    assert "3 images of mine at sigma 0.25" in captured.out
    chosen = ["--method", "mine", "--sigma", "0.25", "--format", "smoothing"]
    assert bench(monkeypatch, "export", tmp_path / "run", *chosen) == 0
    assert capsys.readouterr().out.startswith(HEADER + "0\t3\t-1\t0.0\t0\t13.5\n")


def test_a_changed_log_is_refused_in_the_same_folder(tmp_path, monkeypatch, capsys):
    options = ["--dataset", "cifar10", "--sigma", "0.25", "--alpha", "0.001", "--n", "1000", "--method", "m"]
    for text, code in ((ROWS, 0), (ROWS, 0), (ROWS.replace("0.12", "0.13"), 1)):
        command = ["import-log", written(tmp_path, text), *options, "--out", tmp_path / "run"]
        assert bench(monkeypatch, *command) == code
    assert "already holds image 40 of m at sigma 0.25: certify each image once" in capsys.readouterr().err
    assert len(read_run(tmp_path / "run").records) == 3


def test_a_row_with_more_cells_than_the_header_is_refused(tmp_path):
    shifted = "idx\tlabel\tpredict\tradius\n1\t0\t0\t0\t0.93\n2\t1\t1\t1\t0.93\n"
    with pytest.raises(
        RecordsError, match="line 2 has 5 columns, expected 4: name each column in the header"
    ):
        read_log(written(tmp_path, shifted))
    assert len(read_log(written(tmp_path, shifted.replace("\t0.93", "\t "))).rows) == 2


@pytest.mark.parametrize("name", ["x_sigma_0_25", "noise2noise_sigma_0.25", "sigma_25", "sigma0.25_n100"])
def test_a_name_may_write_its_noise_level_in_another_way(tmp_path, name):
    path = written(tmp_path, HEADER + ROWS).rename(tmp_path / f"{name}.tsv")
    check_claim(read_log(path), configuration(dataset="imagenet"))
    with pytest.raises(UsageError, match="but the name of log"):
        check_claim(
            read_log(path.rename(tmp_path / "noise2noise_sigma_0.5.tsv")), configuration(dataset="imagenet")
        )
