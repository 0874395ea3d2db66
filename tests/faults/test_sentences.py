"""Files and options that no one writes on purpose: one sentence, early, in bounded time and memory."""

import os
import subprocess
import sys

import pytest
import torch

from bench.training.checkpoints import save_checkpoint
from tests.support.tiny import bench

HEADER = "idx\tlabel\tpredict\tradius\tcorrect\ttime\n"
ROW = {"idx": "0", "label": "3", "predict": "3", "radius": "0.5", "correct": "1", "time": "1.0"}
IMPORT = ("--dataset=cifar10", "--sigma=0.5", "--alpha=0.001", "--n=1000", "--method=m", "--out=run")
CHECK = ("--sigma=0.5", "--alpha=0.001", "--n=1000")


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """Return a function: command -> its one line, which is short; nothing is written."""
    monkeypatch.chdir(tmp_path)

    def refused(*command, code=(1, 2)):
        before = {*tmp_path.iterdir()}
        assert bench(monkeypatch, *command) in code
        lines = capsys.readouterr().err.splitlines()
        [line] = [line for line in lines if line.startswith("bench: ")]
        assert len(line) < 1500
        assert {*tmp_path.iterdir()} == before
        return line

    return refused


def write_log(folder, *rows):
    path = folder / "log.tsv"
    path.write_text(HEADER + "".join("\t".join((ROW | row).values()) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"label": str(2**70)}, "classes below 1,000,000"),
        ({"label": "100000000"}, "classes below 1,000,000"),
        ({"predict": "3000000000"}, "classes below 1,000,000"),
        ({"label": "500000"}, "holds class 500000, but cifar10 has 10 classes"),
        ({"idx": str(2**70)}, "expected idx >= 0"),
        ({"label": "٣"}, "is no whole number"),
        ({"radius": "0.5_0"}, "is no number"),
        ({"radius": "9" * 10**6}, "1000000 characters are no number"),
        ({"time": f"{'9' * 306}:0:0"}, "is no row of a log"),
        ({"time": "1e999"}, "is no row of a log"),
    ],
)
def test_a_row_that_no_log_holds_is_refused_and_leaves_no_folder(tmp_path, refused, row, message):
    assert message in refused("import-log", write_log(tmp_path, row), *IMPORT)


def test_images_and_classes_far_apart_are_checked_in_bounded_memory(tmp_path, monkeypatch, capsys):
    path = write_log(tmp_path, {}, {"idx": str(2**39), "label": "999999", "predict": "999999"}, {"idx": "1"})
    bench(monkeypatch, "check-log", path, *CHECK)
    said = capsys.readouterr().out
    assert "3 images from 0 to 549755813888; 549755813886 missing, the first is 2" in said


@pytest.mark.parametrize("n", [str(2**70), str(10**400), "9" * 5000, "٣", "1_000"])
def test_absurd_numbers_of_samples_are_refused(tmp_path, refused, n):
    path = write_log(tmp_path, {})
    for command in (("check-log", path), ("import-log", path, *IMPORT), ("run", "--dry-run"), ("cost",)):
        refused(*command, *(CHECK if command[0] == "check-log" else ()), f"--n={n}", code=(2,))


@pytest.mark.parametrize(
    ("command", "content", "message"),
    [
        ("curves FILE", b"\xff\xfe\x00", "is no text in UTF-8"),
        ("curves FILE", b"stage,step\n", "begins with 'stage,step', expected"),
        ("readme FILE", b"\xff\xfe", "is no text in UTF-8"),
        ("run --subset file:FILE --methods rrcm --out run", b"9" * 10**7, "(10000002 characters)"),
        ("run --dry-run --preset FILE", b"x" * 10**5 + b" = 1", "unknown key 'xxx"),
        ("run --dry-run --preset FILE", b"n = " + b"9" * 10**5, "is not TOML"),
        ("run --dry-run --preset FILE", b"#" * 2**21, "it is larger than 1,048,576 bytes"),
        ("check-log FILE --sigma 1 --n 9 --alpha 0.1", b"\x00" * 10**6, "names no column 'label'"),
    ],
)
def test_files_of_the_wrong_kind_are_refused(tmp_path, refused, command, content, message):
    path = tmp_path / "file.toml"
    path.write_bytes(content)
    assert message in refused(*(part.replace("FILE", str(path)) for part in command.split()))


@pytest.mark.parametrize(
    ("source", "message"), [("", "the path is empty"), ("/", "No curves at"), ("none", "No curves at")]
)
def test_curves_of_no_file_are_refused(refused, source, message):
    assert message in refused("curves", source)


@pytest.mark.parametrize(
    ("config", "training", "message"),
    [
        ({"method": [1]}, {}, "says that [1] made it, which is no name: give --method"),
        ({"method": "no-such"}, {}, "says that 'no-such' made it, an unknown method: give --method"),
        ({"method": "gaussian", "sigma": "x" * 10**6}, {}, "says sigma 'xxx"),
        ({"method": "gaussian", "sigma": 1e300}, {}, "says sigma 1e+300, expected a number"),
        ({"method": "gaussian"}, {"held_out_scores": "abc"}, "holds another model's weights"),
        ({"method": "gaussian", "backbone": "cifar_resnet99999999998"}, {}, "unknown backbone"),
    ],
)
def test_what_a_checkpoint_says_of_itself_is_checked(trained, tmp_path, refused, config, training, message):
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, {"weight": torch.zeros(1)}, config=config, training=training)
    data = ("--dataset=folder", f"--data-dir={trained / 'data'}", "--image-size=8", "--device=cpu")
    assert message in refused("doctor", "--checkpoint", path, *data)


@pytest.mark.skipif(sys.platform != "linux", reason="paths are bytes there")
def test_a_path_that_is_no_text_is_refused(tmp_path):
    command = [sys.executable, "-m", "bench.cli", "run", "--out", os.fsencode(tmp_path) + b"/\xff"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert found.stderr.startswith("bench: ")
    assert "is no text in UTF-8: rename it" in found.stderr
    assert not list(tmp_path.iterdir())
