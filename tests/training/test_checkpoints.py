"""Checkpoint files: strict, tensors only, and clear about what is wrong."""

import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from bench.errors import CheckpointError
from bench.training.checkpoints import load_checkpoint, load_state, load_weights, save_checkpoint


def saved(folder, dtype=torch.float32):
    path = folder / "deep" / "model.safetensors"
    save_checkpoint(
        path, nn.BatchNorm1d(3).state_dict(), config={"sigma": 0.5}, training={"seconds": 1.5}, dtype=dtype
    )
    return path


def test_checkpoint_says_what_it_is_and_loads_strictly(tmp_path):
    tensors, metadata = load_checkpoint(saved(tmp_path))
    assert metadata == {"config": {"sigma": 0.5}, "training": {"seconds": 1.5}}
    load_weights(nn.BatchNorm1d(3), tensors, tmp_path)


def test_only_floats_are_stored_in_half_precision(tmp_path):
    tensors, _ = load_checkpoint(saved(tmp_path, torch.float16))
    assert (tensors["weight"].dtype, tensors["num_batches_tracked"].dtype) == (torch.float16, torch.int64)


def test_a_tensor_beyond_the_range_of_half_precision_stays_as_it_is(tmp_path):
    tensors = {"large": torch.tensor([1.0, 70_000.0]), "plain": torch.ones(2)}
    save_checkpoint(tmp_path / "a.safetensors", tensors, config={}, training={}, dtype=torch.float16)
    read, _ = load_checkpoint(tmp_path / "a.safetensors")
    assert torch.equal(read["large"], tensors["large"])
    assert read["plain"].dtype == torch.float16


def test_truncated_checkpoint_is_one_clear_line(tmp_path):
    path = saved(tmp_path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        load_checkpoint(path)


def test_plain_texts_of_other_programs_are_no_damage(tmp_path):
    path = tmp_path / "model.safetensors"
    said = {"format": "pt", "modelspec.title": "x", "config": '{"sigma": 0.5}'}
    save_file({"weight": torch.ones(2)}, path, said)
    tensors, metadata = load_checkpoint(path)
    assert (tensors["weight"].tolist(), metadata) == (
        [1, 1],
        {"modelspec.title": "x", "config": {"sigma": 0.5}},
    )


@pytest.mark.parametrize("key", ["config", "training"])
@pytest.mark.parametrize("said", ["[]", "a text"])
def test_configuration_that_is_no_object_is_refused(tmp_path, key, said):
    path = tmp_path / "model.safetensors"
    save_file({"weight": torch.ones(2)}, path, {key: said})
    with pytest.raises(
        CheckpointError, match=f"says {key} {said!r}, expected a JSON object".replace("[", r"\[")
    ):
        load_checkpoint(path)


class Planted:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_pickle_with_code_in_it_is_refused_and_runs_nothing(tmp_path):
    path, trace = tmp_path / "model.safetensors", tmp_path / "trace"
    path.write_bytes(pickle.dumps(Planted(str(trace))))
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        load_checkpoint(path)
    assert not trace.exists()


def test_missing_checkpoint_names_the_remedy(tmp_path):
    with pytest.raises(CheckpointError, match="train it with `bench train`"):
        load_checkpoint(tmp_path / "none.safetensors")


def test_state_dict_with_numbers_for_names_is_refused(tmp_path):
    torch.save({0: torch.zeros(1)}, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="holds no state dict, expected tensors by name"):
        load_state(tmp_path / "model.pt")


def test_weights_of_another_model_are_named(tmp_path):
    with pytest.raises(CheckpointError) as error:
        load_weights(nn.Linear(2, 3), {"weight": torch.zeros(3, 4), "extra": torch.zeros(1)}, tmp_path)
    assert "missing bias; unexpected extra; weight has shape (3, 4), expected (3, 2)" in str(error.value)
