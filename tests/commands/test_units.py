"""What a user says in another unit, of another size or of another data set is refused in one line, or understood."""

import shlex

import numpy as np
import pytest
from PIL import Image

from bench.config.run import load_preset
from bench.errors import UsageError
from bench.records.file import read_run
from bench.smoothing.api import certify
from tests.support.tiny import bench, image_tree

pytestmark = pytest.mark.usefixtures("undrawn")

ROWS = "idx\tlabel\tpredict\tradius\tcorrect\ttime\n"
CIFAR = ROWS + "0\t3\t3\t0.4\t1\t1.0\n20\t7\t7\t1.96\t1\t1.0\n9980\t5\t5\t0.4\t1\t1.0\n"


def error_of(monkeypatch, capsys, line, code=2):
    """Return the one line on stderr of a command that fails."""
    assert bench(monkeypatch, *shlex.split(line)) == code
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize(
    "line",
    [
        "run --dry-run --sigma 0.5,128",
        "train gaussian --sigma 128",
        "predict x.png --method rrcm --sigma 128",
        "import-log a.tsv --dataset cifar10 --sigma 128 --alpha 0.001 --n 9 --method m --out log",
        "check-log a.tsv --sigma 128 --n 1000 --alpha 0.001",
        "doctor --checkpoint x.pt --sigma 128",
        "cost --preset paper-cifar10 --sigma 128",
    ],
)
def test_a_sigma_in_levels_of_a_byte_is_refused_with_its_value_in_pixel_units(
    line, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert "sigma is 128, expected at most 4" in (error := error_of(monkeypatch, capsys, line))
    assert "128 of 255 levels is 128/255 = 0.5020" in error


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("run --sigma 64/255,0.5", "0.25098039215686274,0.5"),
        ("run --preset own.toml", "0.25,0.25098039215686274"),
    ],
)
def test_fractions_are_understood_wherever_a_sigma_is_typed(line, shown, tmp_path, monkeypatch, capsys):
    (tmp_path / "own.toml").write_text('methods = ["gaussian"]\nsigmas = [0.25, "64/255"]\n')
    monkeypatch.chdir(tmp_path)
    assert bench(monkeypatch, *line.split(), "--dry-run") == 0
    assert f"sigmas = {shown}\n" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["64/0", "many", "1/2/3", "64/", "inf"])
@pytest.mark.parametrize(
    "command",
    ["run --dry-run", "train gaussian", "certify x.png --method rrcm", "export-log run --method rrcm"],
)
def test_a_wrong_sigma_is_spoken_of_as_one(command, text, monkeypatch, capsys):
    error = error_of(monkeypatch, capsys, f"{command} --sigma {text}")
    assert (
        f"sigma is {text!r}, expected a noise level in pixel units of [0,1], such as 0.5 or 128/255" in error
    )
    assert "list" not in error


def test_a_wrong_sigma_of_a_preset_is_spoken_of_as_one(tmp_path):
    (tmp_path / "own.toml").write_text('sigmas = ["half"]\n')
    with pytest.raises(UsageError, match="sigma is 'half', expected a noise level"):
        load_preset(str(tmp_path / "own.toml"))


def test_python_refuses_a_sigma_of_another_unit():
    import torch

    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
    with pytest.raises(UsageError, match="at most 4, got 64: divide one of 0 to 255 by 255"):
        certify(model, torch.zeros(1, 2, 2), sigma=64)


def test_a_fraction_certifies_compares_and_replays(root, monkeypatch, capsys):
    data = ["--dataset", "folder", "--data-dir", root / "data", "--image-size", 8, "--device", "cpu"]
    (root / "levels.py").write_text(
        "import torch\nmake = lambda: lambda x: torch.stack([x.mean((1, 2, 3)), 0.4 - x.mean((1, 2, 3))], 1)\n"
    )
    monkeypatch.chdir(root)
    sizes = ["--n", 100, "--n0", 10, "--sigmas", "64/255", "--cost-repetitions", 0, "--limit", 2]
    assert bench(monkeypatch, "run", *data, *sizes, "--methods", "levels:make", "--out", "fraction") == 0
    run = read_run(root / "fraction")
    assert run.header.sigmas == (64 / 255,)
    for sigma in ("64/255", "0.25098"):
        assert bench(monkeypatch, "compare", "fraction", "--sigmas", sigma) == 0
        assert "levels:make" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["certify", "predict"])
def test_an_image_that_is_not_as_the_data_set_is_refused_unless_it_is_to_be_fitted(
    command, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    large = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    Image.fromarray(large).save("large.png")
    Image.new("RGB", (28, 28), (200, 10, 10)).save("red.png")
    Image.new("RGB", (28, 28), (9, 9, 9)).save("grey.png")
    options = "--method gaussian --sigma 0.5 --n 20 --device cpu"
    for name, what in (("large", "64x64 in grey"), ("red", "28x28 in colour")):
        error = error_of(monkeypatch, capsys, f"{command} {name}.png {options}", code=1)
        assert f"{name}.png is {what}, and images of mnist5k are 28x28 in grey" in error
        assert bench(monkeypatch, command, f"{name}.png", *options.split(), "--fit") == 0
    assert bench(monkeypatch, command, "grey.png", *options.split()) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--dataset mnist5k --sigma 0.5", "certifies image 9980, but mnist5k has 1,000 test images"),
        ("--dataset mnist --sigma 0.5", "says class 3 of image 0, which is 7 in mnist; 2 of 2 labels differ"),
        (
            "--dataset cifar10 --sigma 0.25",
            "holds a radius of 1.96, which n = 100000 samples cannot certify at sigma",
        ),
        ("--dataset cifar10 --sigma 0.25", "the name of the file says 0.5: give the sigma"),
        ("--dataset cifar10 --sigma 1", "--sigma is 1, but the name of log cifar_sigma_0.50.tsv says 0.5"),
    ],
)
def test_a_log_of_another_data_set_or_sigma_is_refused(options, message, tmp_path, monkeypatch, capsys):
    (tmp_path / "cifar_sigma_0.50.tsv").write_text(CIFAR)
    monkeypatch.chdir(tmp_path)
    rest = "--alpha 0.001 --n 100000 --method m --out log"
    assert message in error_of(monkeypatch, capsys, f"import-log cifar_sigma_0.50.tsv {options} {rest}")
    assert not (tmp_path / "log").exists()
    words = f"import-log cifar_sigma_0.50.tsv --dataset cifar10 --sigma 0.5 {rest}"
    assert bench(monkeypatch, *words.split()) == 0


def test_labels_that_contradict_the_data_set_at_hand_are_refused(tmp_path, monkeypatch, capsys):
    (tmp_path / "a.tsv").write_text(ROWS + "0\t0\t0\t0.4\t1\t1.0\n1\t5\t5\t0.4\t1\t1.0\n")
    monkeypatch.chdir(tmp_path)
    line = "import-log a.tsv --dataset mnist5k --sigma 0.5 --alpha 0.001 --n 100 --method m --out log"
    assert "says class 5 of image 1, which is 1 in mnist5k; 1 of 2 labels" in error_of(
        monkeypatch, capsys, line
    )


def test_a_log_with_more_classes_than_the_data_set_is_refused(tmp_path, monkeypatch, capsys):
    (tmp_path / "a.tsv").write_text(ROWS + "1000\t77\t77\t0.4\t1\t1.0\n")
    monkeypatch.chdir(tmp_path)
    line = "import-log a.tsv --dataset svhn --sigma 0.5 --alpha 0.001 --n 100 --method m --out log"
    assert "holds class 77, but svhn has 10 classes" in error_of(monkeypatch, capsys, line)


def test_a_plan_without_the_data_still_says_what_n_can_certify(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert bench(monkeypatch, "plan", "--preset", "imagenet", "--methods", "gaussian") == 1
    captured = capsys.readouterr()
    assert "Largest radius that n = 10,000 certifies" in captured.out
    assert "imagenet needs the folder" in captured.err


def test_a_limit_beyond_the_images_is_told(root, monkeypatch, capsys):
    (root / "bright.py").write_text(
        "import torch\nmake = lambda: lambda x: torch.stack([x.mean((1, 2, 3)), 0.4 - x.mean((1, 2, 3))], 1)\n"
    )
    monkeypatch.chdir(root)
    data = [
        "--dataset",
        "folder",
        "--data-dir",
        "data",
        "--device",
        "cpu",
        "--out",
        "beyond",
        "--sigma",
        "0.5",
    ]
    sizes = ["--n", 20, "--n0", 10, "--limit", 500, "--cost-repetitions", 0]
    assert bench(monkeypatch, "run", *data, *sizes, "--methods", "bright:make") == 0
    assert "limit is 500, and there are 8 images: all are certified" in " ".join(
        capsys.readouterr().err.split()
    )


def test_a_zoo_that_is_not_there_is_refused_and_not_made(tmp_path, monkeypatch, capsys):
    image_tree(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    line = "run --dataset folder --data-dir data --methods gaussian --sigma 0.5 --zoo nope --device cpu"
    assert bench(monkeypatch, *shlex.split(line)) == 2
    assert "--zoo is nope, which is no folder: mend the name, or make the folder" in capsys.readouterr().err
    assert not (tmp_path / "nope").exists()


def test_radii_of_a_log_are_chosen_for_its_noise_and_said(tmp_path, monkeypatch, capsys):
    log = tmp_path / "log.tsv"
    log.write_text(f"{ROWS}0\t7\t7\t0.1\t1\t1.0\n")
    options = (
        "--dataset",
        "mnist",
        "--method",
        "m",
        "--alpha",
        "0.001",
        "--n",
        "1000",
        "--out",
        tmp_path / "run",
    )
    for sigma, said in (
        ("0.12", "0, 0.05, 0.1, 0.15, 0.2, 0.25, chosen up to R_max = 0.295 at sigma 0.12"),
        ("0.5", ""),
    ):
        assert bench(monkeypatch, "import-log", log, "--sigma", sigma, *options) == 0
        assert said in capsys.readouterr().err
    assert read_run(tmp_path / "run").header.radii == (0.0, 0.25, 0.5, 0.75, 1.0)
