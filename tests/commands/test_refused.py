"""What commands refuse: one line on stderr that says what to mend, the exit code, and no file."""

import shlex
from dataclasses import replace

import pytest

from bench.records.file import write_run
from bench.records.recertify import recertify
from tests.support.fake_runs import make_run
from tests.support.tiny import bench

LOG = "idx\tlabel\tpredict\tradius\tcorrect\ttime\n0\t3\t3\t0.4\t1\t1.0\n20\t7\t7\t0.4\t1\t1.0\n"

CHECK = "check-log a.tsv --sigma 0.5 --n 1000 --alpha 0.001"
IMPORT = "import-log a.tsv --dataset cifar10 --sigma 0.25 --alpha 0.001 --n 9 --method m --out log"

REFUSED = [
    ("rum", 2, "did you mean 'run'?"),
    ("run --dry-run --methods rcm", 2, "unknown method 'rcm'; did you mean 'rrcm'?"),
    ("run --dry-run --dataset cifr10", 2, "did you mean 'cifar10'?"),
    ("run --dry-run --preset mnist5k-fill", 2, "did you mean 'mnist5k-full'?"),
    ("run --dry-run --alpha 1.5", 2, "alpha is 1.5"),
    ("run --dry-run --n many", 2, "n is 'many', expected"),
    ("run --dry-run --sigma 0", 2, "sigmas holds 0"),
    ("run --dry-run --sigmas 1e300", 2, "1e+300/255 = 3.922e+297"),
    ("run --dry-run --engine local --workers 2", 2, "--workers is 2, but --engine is local"),
    ("run --dry-run --engine processes --address a:1", 2, "--address is a:1, but --engine is processes"),
    ("run --dry-run --sigmaz 0.5", 2, "No such option"),
    ("run --dry-run --set rrcm.dept=3", 2, "did you mean 'depth'?"),
    ("run --dry-run --set depth=3", 2, "expected METHOD.OPTION=VALUE"),
    ("run --dry-run --methods rrcm --backbone vit", 2, "--backbone fits none of rrcm"),
    ("report one two", 2, "several runs need --out DIR"),
    ("report none", 1, "no records at none"),
    ("report run --out a.tsv", 1, "File exists: 'a.tsv'"),
    ("report run other --allow dataset --out both", 1, "run and other differ in alpha (0.001 and 0.01)"),
    ("compare run other", 1, "run and other differ in dataset ('mnist5k' and 'mnist')"),
    (
        "report run other --allow dataset,alpha --published --out both",
        2,
        "--published is for runs of one data set, got mnist5k, mnist; name runs of one",
    ),
    ("recertify run --out run", 1, "records.jsonl exists: give another --out"),
    ("compare run --methods rrcm,dd", 2, "no run here holds method 'dd'; did you mean 'dds'?"),
    ("compare run --sigmas 0.25,0.3", 2, "no run here holds sigma '0.3'"),
    ("compare run --against ran", 2, "no run here is called 'ran' or ran-0, ran-1, ...; did you mean 'run'?"),
    ("compare run --against run --all-pairs", 2, "two ways to compare: give one of them"),
    (
        "export-log run --method dd --sigma 0.25",
        1,
        "run holds no image of dd at sigma 0.25; it holds rrcm at",
    ),
    ("doctor --checkpoint x.pt --sigma nan", 2, "sigma is 'nan', expected a noise level in pixel units"),
    ("import-checkpoint x.pt --sigma -1 --out y", 2, "-1.0 is not in the range x>=0"),
    ("predict x.png --method rrcm,dds", 2, "--method is rrcm,dds, expected one: repeat the command"),
    ("certify x.png --method rrcm --sigma 0.25,0.5", 2, "--sigma is 0.25,0.5, expected one"),
    ("predict x.png --method rrcm --n0 7", 2, "--n0 plays no part in PREDICT"),
    ("selftest --dataset cifar10", 2, "--dataset plays no part without --method"),
    ("selftest --set rrcm.recipe=small", 2, "--set plays no part without --method"),
    ("run --estimation confidence-sequence", 2, "expected one of fixed, skip-wrong, sequential"),
    ("audit one --precision --batch-size 1,2", 2, "are two audits: give one of them"),
    (f"{IMPORT} --dataset cifr10", 2, "did you mean 'cifar10'?"),
    (f"{IMPORT} --method ''", 2, "method is '', expected one name"),
    (f"{IMPORT} --method a,b", 2, "method is 'a,b', expected one name"),
    (f"{IMPORT} --sigma 0_1", 2, "sigma is '0_1', expected a noise level"),
    ("run --dry-run --data-dir ~nobody-of-this-name/x", 2, "data_dir is '~nobody-of-this-name/x', expected"),
    (
        "run --dry-run --methods rrcm --set rrcm.checkpoint=~nobody-of-this-name/x",
        2,
        "'~nobody-of-this-name/x' names no user's home folder",
    ),
    ("export-log run --method rrcm --sigma 0.25 --out none/x.tsv", 1, "none is no folder; make it, or give"),
    (f"{IMPORT} --alpha 2", 2, "alpha is 2, expected 0 < alpha < 1"),
    (f"{IMPORT} --sigma 0", 2, "sigmas holds 0, expected each > 0"),
    (f"{IMPORT} --n many", 2, "'many' is not a valid integer"),
    (f"{IMPORT} --dataset folder", 2, "images of data set 'folder' have no fixed shape; name one of mnist5k"),
    (IMPORT.replace("a.tsv", "none.tsv"), 1, "name a tab-separated text file"),
    (f"{CHECK} --dataset cifr10", 2, "unknown data set 'cifr10'; did you mean 'cifar10'?"),
    (f"{CHECK} --radii 0,x", 2, "--radii is '0,x', expected numbers such as"),
    (f"{CHECK} --radii -1", 2, "--radii is '-1', expected numbers >= 0"),
    (f"{CHECK} --radii 1e30", 2, "--radii is '1e30', expected numbers >= 0, at most 1e+09"),
    ("run --dry-run --radii 0,1e30", 2, "radii holds 1e+30, expected each at most 1e+09"),
    ("run --dry-run --alpha 1e-30", 2, "alpha is 1e-30, expected at least 1e-20"),
    ("run --dry-run --sigmas 0.5,0.5000001", 2, "which are written alike: leave one out"),
    ("run --dry-run --subset file:nope", 1, "nope"),
    ("run --dry-run --skip 1000", 1, "skip is 1000, but subset 'balanced' holds 1000 images"),
    (f"{CHECK} --sigma 0", 2, "sigma is 0, expected sigma > 0"),
    (f"{CHECK} --n 1", 2, "n is 1, expected n >= 2"),
    (f"{CHECK} --alpha 1", 2, "alpha is 1, expected 0 < alpha < 1"),
    (
        f"{CHECK} --n 9",
        2,
        "n is 9, and so few samples certify no radius at alpha 0.001: give the n of the log",
    ),
    (f"{CHECK} --recertify 0", 2, "alpha is 0, expected 0 < alpha < 1"),
]


@pytest.mark.parametrize(("line", "code", "message"), REFUSED, ids=[line for line, _, _ in REFUSED])
def test_what_is_refused_is_one_line(line, code, message, tmp_path, monkeypatch, capsys):
    (tmp_path / "a.tsv").write_text(LOG)
    run = make_run(methods=["rrcm", "dds"], images=2)
    write_run(tmp_path / "run", run)
    other = recertify(run, replace(run.header.protocol, alpha=0.01), "bench recertify")
    write_run(tmp_path / "other", replace(other, header=replace(other.header, dataset="mnist")))
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    assert bench(monkeypatch, *shlex.split(line)) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("bench: ")
    assert error.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before
