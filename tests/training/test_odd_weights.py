"""Checkpoints that are not what they seem: other kinds of numbers, and files that unpack to more than they are."""

import io
import pickle
import zipfile

import pytest
import torch
from torch import nn

from bench.errors import CheckpointError
from bench.training import checkpoints
from bench.training.released import arch_and_state


def network():
    return nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floating_point_weights_of_another_size_are_taken(tmp_path, dtype):
    half = {
        name: value.to(dtype) if value.is_floating_point() else value
        for name, value in network().state_dict().items()
    }
    made = network()
    checkpoints.load_weights(made, half, tmp_path)
    assert torch.equal(made[0].weight, half["0.weight"].float())
    assert made[0].weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "convert", "message"),
    [
        ("0.weight", lambda value: value.to(torch.int8), "0.weight as int8, expected float32"),
        ("0.weight", lambda value: value.to(torch.uint8), "0.weight as uint8, expected float32"),
        ("0.weight", lambda value: value.to(torch.int64), "0.weight as int64, expected float32"),
        ("0.weight", lambda value: value > 0, "0.weight as bool, expected float32"),
        ("0.weight", lambda value: value.to(torch.complex64), "0.weight as complex64, expected float32"),
        ("0.weight", lambda value: value.to(torch.float8_e4m3fn), "0.weight as float8_e4m3fn, expected"),
        (
            "0.weight",
            lambda value: torch.quantize_per_tensor(value, 0.1, 0, torch.qint8),
            "0.weight as qint8",
        ),
        ("1.num_batches_tracked", lambda value: value > 0, "tracked as bool, expected int64"),
        ("0.weight", lambda value: value.to("meta"), "holds no plain values for 0.weight"),
        ("0.weight", lambda value: value.to_sparse(), "holds no plain values for 0.weight"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_weights_of_another_kind_are_refused(tmp_path, name, convert, message):
    state = network().state_dict()
    with pytest.raises(CheckpointError, match=message):
        checkpoints.load_weights(network(), state | {name: convert(state[name])}, tmp_path / "file")


def test_a_file_that_unpacks_to_far_more_than_it_is_is_not_read(tmp_path):
    path = tmp_path / "bomb.pt"
    torch.save({"weight": torch.zeros(2)}, path)
    with zipfile.ZipFile(path) as archive:
        parts = {one.filename: archive.read(one) for one in archive.infolist()}
    for name, size in (("/data.pkl", 2**24), ("/data/0", 2**28)):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for part, content in parts.items():
                archive.writestr(part, bytes(size) if part.endswith(name) else content)
        assert path.stat().st_size < 2**20
        with pytest.raises(CheckpointError, match=r"would unpack to (16,777|268,4)"):
            checkpoints.load_torch_file(path)


def test_ordinary_files_are_read_also_from_a_compressed_archive(tmp_path):
    path = tmp_path / "file.pt"
    torch.save({"weight": torch.rand(100, 100)}, path)
    whole = checkpoints.load_torch_file(path)["weight"]
    with zipfile.ZipFile(path) as archive:
        parts = {one.filename: archive.read(one) for one in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for part, content in parts.items():
            archive.writestr(part, content)
    assert torch.equal(checkpoints.load_torch_file(path)["weight"], whole)


def test_a_value_of_any_size_in_a_file_gives_a_short_message(tmp_path):
    path = tmp_path / "x.safetensors"
    header = b'{"__metadata__":{"config":"' + b"9" * 10**7 + b'"}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load_metadata(path)
    assert len(str(caught.value)) < 500
    content = io.BytesIO()
    pickle.dump({"x" * 10**6: 1}, content)
    (tmp_path / "x.pt").write_bytes(content.getvalue())
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load_state(tmp_path / "x.pt")
    assert len(str(caught.value)) < 500


def test_names_that_become_one_without_their_prefix_are_refused(tmp_path):
    path = tmp_path / "twice.pt"
    torch.save({"module.weight": torch.zeros(2), "weight": torch.ones(2)}, path)
    with pytest.raises(CheckpointError, match="holds names twice, with and without a prefix"):
        checkpoints.load_state(path)
    both = {"1.conv1.weight": torch.zeros(2), "module.1.conv1.weight": torch.ones(2)}
    with pytest.raises(CheckpointError, match="holds names twice"):
        arch_and_state({"arch": "resnet20", "state_dict": both}, path)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_program_of_torch_is_no_checkpoint(tmp_path):
    path = tmp_path / "program.pt"
    torch.jit.script(nn.Linear(2, 2)).save(path)
    with pytest.raises(CheckpointError, match="is a TorchScript program, no checkpoint"):
        checkpoints.load_torch_file(path)


def test_tensors_that_share_their_memory_are_stored(tmp_path):
    one = torch.arange(4.0)
    checkpoints.save_checkpoint(
        tmp_path / "a.safetensors", {"x": one, "y": one, "z": one[1:]}, config={}, training={}
    )
    tensors, _ = checkpoints.load_checkpoint(tmp_path / "a.safetensors")
    assert torch.equal(tensors["z"], one[1:])
