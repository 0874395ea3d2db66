"""Released checkpoints: recognised by their names, measured by their shapes, checked name by name."""

import json
import os
from pathlib import Path

import pytest
import safetensors
import torch
from safetensors.torch import load_file

from bench.errors import CheckpointError, UsageError
from bench.methods import registry
from bench.methods.importing import import_checkpoint
from bench.training.checkpoints import load_checkpoint
from bench.training.released import ReleasedFile
from bench.types import Task
from rrcm import presets, pretrain
from rrcm.checkpoints import RELEASED
from rrcm.encoder import Encoder, EncoderConfig
from rrcm.heads import Classifier
from tests.support.tiny import job

GOLDEN = Path(os.environ.get("GOLDEN_DIR", Path(__file__).parents[3] / "shared" / "golden"))
SIZES = EncoderConfig(
    image_size=8, patch_size=4, in_channels=1, embed_dim=16, depth=2, num_heads=2, hidden_dim=8, output_dim=6
)
SAID = {"sigma": 0.5, "num_heads": 2, "layernorm": True}
OPTIONS = {"patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2, "hidden_dim": 8, "output_dim": 6}


def released_classifier():
    """Return a fine-tuned dictionary of a small model in the released layout, the projector included."""
    encoder = Encoder(SIZES)
    projector = encoder.projection_head.state_dict(prefix="base_model.projection_head.")
    return {**Classifier(encoder, 3).state_dict(), **projector}


def convert(content, folder, *, which=None, out="rrcm_sigma_0.5.safetensors", **said):
    path = folder / "released.pth"
    torch.save(content, path)
    return import_checkpoint(path, folder / out, command="", which=which, said={**SAID, **said})


@pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"no reference tensors at {GOLDEN}")
@pytest.mark.parametrize("layernorm", [0, 1])
def test_released_classifier_gives_the_released_logits_through_the_common_protocol(layernorm, tmp_path):
    golden = GOLDEN / f"rrcm_classifier_layernorm_{layernorm}.safetensors"
    tensors = load_file(golden)
    with safetensors.safe_open(golden, "pt") as file:
        config = json.loads(file.metadata()["config"])
    names = [name for name in tensors if name.startswith(("base_model.", "linear_head."))]
    said = {"num_heads": config["num_heads"], "layernorm": bool(layernorm)}
    convert({f"module.{name}": tensors[name] for name in names}, tmp_path, **said)
    task = Task(dataset="cifar10", channels=3, image_size=32, num_classes=10)
    sizes = {key: config[key] for key in OPTIONS}
    method = registry.configure("rrcm", task, 0.5, {**sizes, "layernorm": bool(layernorm)})
    classify = registry.load("rrcm").build(method, tmp_path / "rrcm_sigma_0.5.safetensors")
    for sigma in (0.25, 0.5, 1.0):
        logits, expected = (
            classify(tensors["in.image"] + tensors[f"in.noise_{sigma}"], sigma),
            tensors[f"out.logits_{sigma}"],
        )
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("which", "file"), [(None, "nnet_ema"), ("online", "nnet"), ("target", "target_model")]
)
def test_pre_training_folder_gives_the_network_asked_for_and_training_starts_from_it(which, file, tmp_path):
    folder = tmp_path / "300000.ckpt"
    folder.mkdir()
    weights = {name: Encoder(SIZES).state_dict() for name in ("nnet", "nnet_ema", "target_model")}
    for name, tensors in weights.items():
        torch.save({f"module.{key}": value for key, value in tensors.items()}, folder / f"{name}.pth")
    work = job(tmp_path)
    out = work.folder / "rrcm_pretrained.safetensors"
    said = {"sigma": None, "num_heads": 2, "layernorm": None}
    sentences = import_checkpoint(folder, out, command="", which=which, said=said)
    assert "projector 8 and 6, images 1x8x8" in sentences[0]
    encoder = pretrain.load_or_train(SIZES, pretrain.SMALL, work)
    assert all(torch.equal(value, weights[file][name]) for name, value in encoder.state_dict().items())


def test_another_network_of_a_folder_is_refused(tmp_path):
    with pytest.raises(UsageError, match="--which is second, expected one of ema, online, target"):
        import_checkpoint(tmp_path, tmp_path / "a.safetensors", command="", which="second", said={})


def read_tensors(tensors):
    path = Path("released.pth")
    return RELEASED.read(ReleasedFile(path=path, content=tensors, tensors=tensors, said={}))


@pytest.mark.parametrize("name", presets.ENCODERS)
def test_named_sizes_are_known_by_their_shapes_with_heads_and_layernorm(name):
    preset = presets.ENCODERS[name]
    config = registry.configure("rrcm", preset.task, 0.5, {"encoder": name})
    with torch.device("meta"):
        encoder = Encoder(config.sizes)
        projector = encoder.projection_head.state_dict(prefix="base_model.projection_head.")
        weights = {**Classifier(encoder, 7).state_dict(), **projector}
    imported = read_tensors(weights)
    assert f": {name} (patch" in imported.description[0]
    layernorm = str(preset.options.layernorm).lower()
    assert imported.description[2] == f"options: --set rrcm.encoder={name} --set rrcm.layernorm={layernorm}"
    assert imported.config["num_heads"] == preset.options.num_heads
    assert imported.config["layernorm"] == preset.options.layernorm
    assert not any("projection_head" in key for key in imported.tensors)
    bare = {key: value for key, value in weights.items() if "projection_head" not in key}
    assert f": {name} (patch" in read_tensors(bare).description[0]


def test_imported_file_says_what_it_is_and_where_it_came_from(tmp_path):
    sentences = convert(released_classifier(), tmp_path)
    _, metadata = load_checkpoint(tmp_path / "rrcm_sigma_0.5.safetensors")
    assert metadata["config"]["sigma"] == 0.5
    assert metadata["config"]["num_heads"] == 2
    assert metadata["training"]["imported_from"] == "released.pth"
    assert "classifier of 3 classes, fine-tuned at sigma 0.5" in sentences[0]
    assert "head 51; the projector is left out" in sentences[1]
    assert sentences[2].split()[1:] == [
        word for name, value in OPTIONS.items() for word in ("--set", f"rrcm.{name}={value}")
    ] + ["--set", "rrcm.layernorm=true"]
    assert sentences[3].endswith("DIR/<data set>/rrcm_sigma_0.5.safetensors")


def test_other_heads_or_layernorm_than_the_files_are_refused(tmp_path):
    convert(released_classifier(), tmp_path)
    path, module = tmp_path / "rrcm_sigma_0.5.safetensors", registry.load("rrcm")
    task = Task(dataset="tiny", channels=1, image_size=8, num_classes=3)
    module.build(registry.configure("rrcm", task, 0.5, OPTIONS), path)
    for wrong, remedy in (
        ({"num_heads": 4}, "rrcm.num_heads=2"),
        ({"layernorm": False}, "rrcm.layernorm=true"),
    ):
        with pytest.raises(CheckpointError, match=f"add --set {remedy}"):
            module.build(registry.configure("rrcm", task, 0.5, {**OPTIONS, **wrong}), path)


def test_every_missing_unexpected_and_misshapen_key_is_named(tmp_path):
    content = released_classifier()
    del content["base_model.blocks.1.norm2.bias"]
    content["base_model.extra"] = torch.zeros(1)
    content["base_model.norm.weight"] = torch.zeros(5)
    with pytest.raises(CheckpointError) as error:
        convert(content, tmp_path)
    for part in (
        "missing base_model.blocks.1.norm2.bias",
        "unexpected base_model.extra",
        "base_model.norm.weight has shape (5,), expected (16,)",
    ):
        assert part in str(error.value)
    assert not list(tmp_path.glob("*.safetensors"))


def test_long_lists_of_keys_are_counted_and_named_in_full(tmp_path):
    names = [f"base_model.extra{number}" for number in range(20)]
    with pytest.raises(CheckpointError, match="20 unexpected") as error:
        convert(released_classifier() | {name: torch.zeros(1) for name in names}, tmp_path)
    assert str(error.value).endswith(f"{'; '.join(f'unexpected {name}' for name in names)}.")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("base_model.pos_embed", None, "missing pos_embed"),
        ("base_model.pos_embed", torch.zeros(1, 7, 16), "7 positions, expected 2 and a square number"),
        ("module.linear_head.bias", torch.zeros(3), "with and without the prefix module"),
        ("linear_head.bias", None, "missing linear_head.bias"),
    ],
)
def test_names_and_shapes_that_tell_the_sizes_must_be_there(name, value, message, tmp_path):
    content = released_classifier()
    if value is None:
        del content[name]
    else:
        content[name] = value
    with pytest.raises(CheckpointError, match=message):
        convert(content, tmp_path)


@pytest.mark.parametrize(
    ("unsaid", "remedy"), [("num_heads", "--num-heads"), ("layernorm", "--layernorm or")]
)
def test_what_no_shape_tells_must_be_said_for_a_new_size(unsaid, remedy, tmp_path):
    with pytest.raises(UsageError, match=f"give {remedy}"):
        convert(released_classifier(), tmp_path, **{unsaid: None})


def test_folder_without_the_network_says_what_it_holds(tmp_path):
    (tmp_path / "optimizer.pth").touch()
    with pytest.raises(CheckpointError, match=r"holds optimizer.pth, and no nnet_ema.pth"):
        import_checkpoint(tmp_path, tmp_path / "a.safetensors", command="", said=SAID)
