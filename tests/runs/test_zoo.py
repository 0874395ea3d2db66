"""Where checkpoints are found and written: ./zoo is written to, the program's own is read only."""

import shutil

import pytest

from bench.training.checkpoints import load_metadata
from tests.support.tiny import OPTIONS, arguments, bench, image_tree


@pytest.fixture
def train(tmp_path, monkeypatch, capsys):
    """Return a function: options -> exit code and stderr of `bench train rrcm` on a tiny data set."""
    image_tree(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    sizes = [f"--set=rrcm.{name}={value}" for name, value in OPTIONS["rrcm"].items()]

    def run(*options):
        data = ["--dataset", "folder", "--data-dir", "data", "--device", "cpu"]
        code = bench(monkeypatch, "train", "rrcm", *data, *sizes, *options)
        return code, " ".join(capsys.readouterr().err.split())

    return run


@pytest.fixture
def shipped(train, tmp_path):
    """The program's zoo, which holds a pre-trained encoder."""
    code, error = train("--stage", "pretrain", "--zoo", "results/zoo")
    assert code == 0
    assert "note: results/zoo is not there yet, and is made" in error
    return tmp_path / "results" / "zoo" / "folder"


def test_the_pretrained_encoder_is_found_where_finished_checkpoints_are(train, shipped, tmp_path):
    before = {path.name: path.read_bytes() for path in shipped.iterdir()}
    code, error = train("--sigma", "0.37")
    assert code == 0
    assert "rrcm_pretrained" not in error  # no stage of pre-training
    assert [path.name for path in (tmp_path / "zoo" / "folder").iterdir()] == ["rrcm_sigma_0.37.safetensors"]
    assert {path.name: path.read_bytes() for path in shipped.iterdir()} == before


def test_an_encoder_of_other_sizes_or_another_seed_is_not_taken(train, shipped):
    code, error = train("--sigma", "0.37", "--set", "rrcm.embed_dim=32")
    assert code == 1
    assert "rrcm_pretrained.safetensors was made with embed_dim 16, not 32: --zoo DIR makes another" in error
    code, error = train("--sigma", "0.37", "--seed", "1")
    assert code == 1
    assert "was made with seed 0, not 1: --zoo DIR makes another elsewhere" in error


def test_what_comes_with_the_program_is_trained_again_only_where_asked_and_elsewhere(
    train, shipped, tmp_path
):
    code, error = train("--stage", "pretrain")
    assert code == 2
    assert (
        "rrcm_pretrained.safetensors is there already: --again trains another into zoo/folder, which takes"
        in error
    )
    held = shipped / "rrcm_pretrained.safetensors"
    before = held.read_bytes()
    assert train("--stage", "pretrain", "--again")[0] == 0
    assert held.read_bytes() == before
    assert load_metadata(tmp_path / "zoo" / "folder" / held.name)["training"]["is_complete"]


def test_options_without_a_part_in_training_are_named(monkeypatch, capsys, tmp_path):
    image_tree(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    data = ["--dataset", "folder", "--data-dir", "data", "--device", "cpu", "--max-seconds", 0]
    sizes = [f"--set=dds.{name}={value}".replace("(8, 8)", "8,8") for name, value in OPTIONS["dds"].items()]
    bench(monkeypatch, "train", "dds", *data, *sizes, "--set", "dds.reverse_steps=2")
    error = " ".join(capsys.readouterr().err.split())
    assert "note: dds.reverse_steps says how a checkpoint is used and plays no part in its training" in error


def test_a_file_that_is_another_methods_is_refused_and_one_of_another_sigma_named(root, monkeypatch, capsys):
    zoo = root / "zoo" / "folder"
    shutil.copy(zoo / "rrcm_sigma_0.5.safetensors", zoo / "rrcm_sigma_0.25.safetensors")
    image = root / "data" / "test" / "dark" / "0.png"
    options = arguments(root)
    own = [word for word in options if not word.startswith("--set") or "rrcm" in word]
    data, places = own[: own.index("--n")], own[own.index("--zoo") :]
    order = ("predict", image, "--method", "rrcm", "--sigma", "0.25", "--n", 10, *data, *places)
    assert bench(monkeypatch, *order) == 0
    assert (
        "rrcm_sigma_0.25.safetensors was trained at sigma 0.5 and is used at 0.25" in capsys.readouterr().err
    )
    shutil.copy(zoo / "consistency_sigma_0.25.safetensors", zoo / "rrcm_sigma_0.25.safetensors")
    assert bench(monkeypatch, *order) == 1
    assert "rrcm_sigma_0.25.safetensors was made by consistency" in capsys.readouterr().err


def test_a_network_of_another_folders_classes_is_refused(root, monkeypatch, capsys):
    for part in ("train", "test"):
        (root / "data" / part / "dark").rename(root / "data" / part / "night")
    assert bench(monkeypatch, "run", *arguments(root, "--out", root / "other")) == 1
    error = capsys.readouterr().err
    assert "was trained on other classes (bright, dark) than those of the images (bright, night)" in error
