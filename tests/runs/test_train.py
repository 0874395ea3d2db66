"""`bench train` and `bench run` take no checkpoint for another training's."""

import pytest
from safetensors.torch import load_file

from bench.training.checkpoints import load_metadata
from tests.support.tiny import OPTIONS, arguments, bench, image_tree


@pytest.fixture
def train(tmp_path, monkeypatch, capsys):
    """`bench train gaussian` on a tiny data set: returns the exit code and the error line."""
    image_tree(tmp_path / "data")
    options = [f"--set=gaussian.{name}={value}" for name, value in OPTIONS["gaussian"].items()]

    def run(*more, command="train"):
        names = ["gaussian"] if command == "train" else ["--methods", "gaussian", "--out", tmp_path / "run"]
        data = [
            "--dataset",
            "folder",
            "--data-dir",
            tmp_path / "data",
            "--image-size",
            "8",
            "--device",
            "cpu",
        ]
        code = bench(monkeypatch, command, *names, *data, "--zoo", tmp_path / "zoo", *options, *more)
        return code, capsys.readouterr().err

    return run


@pytest.fixture
def checkpoint(tmp_path):
    return tmp_path / "zoo" / "folder" / "gaussian_sigma_0.5.safetensors"


def seed_of(checkpoint):
    return load_metadata(checkpoint)["training"]["seed"]


def test_a_finished_checkpoint_is_replaced_only_where_asked(train, checkpoint):
    assert train()[0] == 0
    first = checkpoint.read_bytes()
    code, message = train("--seed", "1")
    assert (code, checkpoint.read_bytes()) == (2, first)
    assert "--again trains it anew and replaces it, --zoo DIR trains another elsewhere" in message
    weights = load_file(checkpoint)
    assert train("--seed", "1", "--again")[0] == 0
    assert seed_of(checkpoint) == 1
    assert any((value != weights[name]).any() for name, value in load_file(checkpoint).items())


def test_a_training_whose_time_was_up_goes_on(train, checkpoint):
    assert train("--max-seconds", "0")[0] == 0
    assert load_metadata(checkpoint)["training"]["steps"] == [0]
    assert train()[0] == 0
    assert load_metadata(checkpoint)["training"]["steps"] == [2]
    assert train()[0] == 2


def test_a_run_refuses_a_checkpoint_that_was_trained_with_other_options(train):
    assert train()[0] == 0
    code, message = train("--set", "gaussian.learning_rate=0.1", "--sigmas", "0.5", command="run")
    assert code == 1
    assert "was trained with learning_rate 0.001, not 0.1: leave --set gaussian.learning_rate out" in message


def test_one_noise_level_is_trained_at_a_time(train):
    code, message = train("--sigma", "0.25,0.5")
    assert code == 2
    assert "--sigma is 0.25,0.5, expected one noise level" in message


def test_two_methods_that_share_a_checkpoint_must_agree_on_how_it_is_trained(tmp_path, monkeypatch, capsys):
    image_tree(tmp_path / "data")
    (tmp_path / "zoo").mkdir()
    options = ["--methods", "dds,densepure", "--sigmas", "0.5", "--set", "densepure.max_steps=3"]
    assert bench(monkeypatch, "run", *arguments(tmp_path, *options, "--out", tmp_path / "run")) == 1
    assert "dds.safetensors was trained with max_steps 2, not 3" in " ".join(capsys.readouterr().err.split())


def test_a_run_takes_a_checkpoint_of_another_recipe_and_says_so(train, checkpoint):
    assert train("--set", "gaussian.learning_rate=0.1", "--held-out", "0")[0] == 0
    assert load_metadata(checkpoint)["training"]["held_out_images"] == 0
    small = ["--sigmas", "0.5", "--n", "20", "--n0", "5", "--limit", "1", "--cost-repetitions", "0"]
    code, message = train(*small, command="run")
    assert code == 0
    told = " ".join(message.split())
    assert "trained by other options than `bench train gaussian` has: learning_rate 0.1, not 0.001." in told


@pytest.mark.parametrize("change", [("--n", "30"), ("--seed", "1"), ("--set", "gaussian.learning_rate=0.1")])
def test_a_folder_that_cannot_take_the_run_is_refused_before_anything_is_trained(train, checkpoint, change):
    checkpoint.parent.mkdir(parents=True)
    small = ["--n", "20", "--n0", "5", "--limit", "1", "--cost-repetitions", "0"]
    assert train(*small, "--sigmas", "0.5", command="run")[0] == 0
    code, message = train(*small, "--sigmas", "0.25", *change, command="run")
    assert code == 1
    assert "records.jsonl was made under another " in message
    assert [one.name for one in checkpoint.parent.glob("*.safetensors")] == [checkpoint.name]


def test_a_folder_of_shards_is_refused_before_anything_is_trained(train, checkpoint, tmp_path):
    checkpoint.parent.mkdir(parents=True)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "records-1-of-2.jsonl").touch()
    code, message = train("--sigmas", "0.5", command="run")
    assert code == 1
    assert "holds shards of a run" in message
    assert not checkpoint.exists()


def test_an_option_of_another_method_is_told(train):
    code, message = train("--set", "rrcm.depth=3")
    assert code == 0
    assert (
        "note: rrcm.depth=3 is an option of another method and plays no part in training gaussian" in message
    )
