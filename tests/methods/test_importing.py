"""Files that users bring: damaged, foreign or hostile ones end in one clear sentence and run nothing."""

import hashlib
import os
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from baselines.parts.external import load_denoiser
from baselines.parts.openai_unet import denoiser
from bench.errors import CheckpointError, UsageError
from bench.methods import registry
from bench.methods.importing import import_checkpoint
from bench.records.file import read_run
from bench.training.checkpoints import load_metadata, save_checkpoint
from bench.types import Task
from tests.baselines.test_openai_unet import SMALL, released
from tests.support.tiny import TASK, bench, image_tree
from tests.training.test_checkpoints import Planted

pytestmark = pytest.mark.usefixtures("undrawn")

GOLDEN = Path(os.environ.get("GOLDEN_DIR", Path(__file__).parents[3] / "shared" / "golden"))
COLOUR = replace(TASK, channels=3)
NOTHING_SAID = {"sigma": None, "num_heads": None, "layernorm": None}


def convert(path, method=None, **said):
    out = path.with_name("out.safetensors")
    return import_checkpoint(path, out, command="", method=method, said=NOTHING_SAID | said)


def refusal(path):
    with pytest.raises(CheckpointError) as error:
        convert(path)
    assert not path.with_name("out.safetensors").exists()
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("wrapped", [False, True])
def test_code_in_a_file_is_not_run(tmp_path, protocol, wrapped):
    path, trace = tmp_path / "model.pth", tmp_path / "trace"
    content = {"base_model.cls_token": Planted(str(trace))}
    if wrapped:
        torch.save(content, path, pickle_protocol=protocol)
    else:
        path.write_bytes(pickle.dumps(content, protocol=protocol))
    assert "nothing of it was run" in refusal(path)
    assert not trace.exists()


def test_cut_off_download_says_so(tmp_path):
    path = tmp_path / "model.pth"
    torch.save({"base_model.cls_token": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:2000])
    assert "is cut off or damaged" in refusal(path)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>Too many downloads</html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a pointer of Git LFS"),
        (b"\x1f\x8b\x08\x00", "a gzip archive"),
        (b"hello", "of an unknown kind"),
    ],
)
def test_file_of_another_kind_is_named(tmp_path, content, kind):
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    assert f"is {kind}" in refusal(path)


def residual_file(folder):
    network = registry.backbone("cifar_resnet8").make(COLOUR, 0.5)
    state = {f"1.module.{name}": value for name, value in network[1].state_dict().items()}
    torch.save({"arch": "cifar_resnet8", "epoch": 90, "state_dict": state}, folder / "checkpoint.pth.tar")
    return folder / "checkpoint.pth.tar", network.eval()


def test_method_of_a_residual_network_is_the_one_that_is_said(tmp_path):
    path, _ = residual_file(tmp_path)
    sentences = convert(path, method="consistency", sigma=0.25)
    assert "consistency-cifar_resnet8_sigma_0.25.safetensors" in sentences[-1]
    assert load_metadata(tmp_path / "out.safetensors")["config"]["method"] == "consistency"
    torch.save(released(SMALL), tmp_path / "unet.pt")
    with pytest.raises(UsageError, match=r"--method is macer, but .* is no checkpoint of it"):
        import_checkpoint(
            tmp_path / "unet.pt",
            tmp_path / "unet.safetensors",
            command="",
            method="macer",
            said=NOTHING_SAID,
        )


@pytest.mark.parametrize("method", ["gaussian", "consistency", "smoothadv", "macer"])
def test_released_network_is_taken_as_it_is_through_the_option_checkpoint(tmp_path, method):
    path, network = residual_file(tmp_path)
    config = registry.configure(method, COLOUR, 0.25, {"checkpoint": str(path)}, trains=False)
    assert config.backbone.name == "cifar_resnet8"
    x = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(registry.load(method).build(config, path)(x, 0.25), network(x))


def test_run_takes_the_file_without_a_zoo_and_records_its_digest(tmp_path, monkeypatch, capsys):
    path, _ = residual_file(tmp_path)
    data = ["--dataset", "folder", "--data-dir", image_tree(tmp_path / "data"), "--image-size", 8]
    given = ["--set", f"gaussian.checkpoint={path}", "--methods", "gaussian", "--sigmas", "0.25"]
    sizes = ["--n", 20, "--n0", 10, "--limit", 1, "--cost-repetitions", 0, "--device", "cpu"]
    out = tmp_path / "run"
    (tmp_path / "none").mkdir()
    assert bench(monkeypatch, "run", *data, *given, *sizes, "--zoo", tmp_path / "none", "--out", out) == 0
    run = read_run(out)
    assert run.header.checkpoints == {"gaussian/0.25": hashlib.sha256(path.read_bytes()).hexdigest()}
    assert bench(monkeypatch, "replay", out, "--index", run.records[0].index) == 0
    assert bench(monkeypatch, "train", "gaussian", *data, *given[:2], "--sigma", "0.25") == 2
    assert "has nothing to train with these options" in capsys.readouterr().err
    path.unlink()
    assert bench(monkeypatch, "replay", out, "--index", run.records[0].index) == 1
    assert f"No file at {path}" in capsys.readouterr().err


def test_file_of_another_method_is_refused_and_one_of_another_sigma_is_named(tmp_path, monkeypatch, capsys):
    path = tmp_path / "macer.safetensors"
    network = registry.backbone("cifar_resnet8").make(COLOUR, 0.5)
    declared = {"method": "macer", "backbone": "cifar_resnet8", "sigma": 0.5}
    save_checkpoint(path, network.state_dict(), config=declared, training={})
    data = ["--dataset", "folder", "--data-dir", image_tree(tmp_path / "data"), "--image-size", 8]
    sizes = [
        "--n",
        20,
        "--n0",
        10,
        "--limit",
        1,
        "--cost-repetitions",
        0,
        "--device",
        "cpu",
        "--sigmas",
        "0.25",
    ]
    given = [*data, *sizes, "--out", tmp_path / "run"]
    assert (
        bench(monkeypatch, "run", *given, "--methods", "gaussian", "--set", f"gaussian.checkpoint={path}")
        == 1
    )
    assert f"{path} was made by macer: give it as macer.checkpoint, not gaussian's" in capsys.readouterr().err
    assert bench(monkeypatch, "run", *given, "--methods", "macer", "--set", f"macer.checkpoint={path}") == 0
    said = capsys.readouterr()
    assert " ".join((said.out + said.err).split()).count("was trained at sigma 0.5 and is used at 0.25") == 1


def test_file_that_does_not_say_its_network_is_no_checkpoint_of_the_option(tmp_path):
    torch.save({"state_dict": {"weight": torch.zeros(1)}}, tmp_path / "model.pth")
    save_file({"weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    for name, message in (("pth", "holds no arch and state_dict"), ("safetensors", "says no backbone")):
        with pytest.raises(CheckpointError, match=message):
            registry.configure("gaussian", COLOUR, 0.25, {"checkpoint": str(tmp_path / f"model.{name}")})


def test_files_that_need_no_import_say_what_takes_them(tmp_path):
    path = tmp_path / "ours.safetensors"
    save_checkpoint(path, {"weight": torch.zeros(1)}, config={"method": "gaussian"}, training={})
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "model_index.json").write_text("{}")
    for source, message in (
        (path, "`bench doctor --checkpoint"),
        (tmp_path / "pipeline", "`--set METHOD.denoiser="),
    ):
        with pytest.raises(UsageError, match=message):
            convert(source)


def test_safetensors_file_needs_no_import(tmp_path):
    path = tmp_path / "model.pth"
    save_file({"weight": torch.zeros(1)}, path)
    assert "is a safetensors file" in refusal(path)


@pytest.mark.parametrize(
    ("content", "likeness"),
    [
        ({"patch_embed.proj.weight": torch.zeros(1)}, "a vision transformer of another form"),
        ({"layer1.0.conv1.weight": torch.zeros(1)}, "a residual network of another form"),
        ({"model": {"fc.weight": torch.zeros(1)}}, "another model, with names such as fc.weight"),
        ({"step": 3, "best": 0.5}, "a dict with the keys step, best and no state dict"),
        (torch.zeros(3), "a Tensor and no state dict"),
    ],
)
def test_checkpoint_of_another_model_is_likened(tmp_path, content, likeness):
    path = tmp_path / "model.pt"
    torch.save(content, path)
    assert likeness in refusal(path)


def test_missing_file_is_one_sentence(tmp_path):
    assert "No file at" in refusal(tmp_path / "none.pth")


@pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"no reference tensors at {GOLDEN}")
def test_released_residual_network_gives_the_released_logits_as_a_baseline(tmp_path):
    source, out = GOLDEN / "cifar_resnet_checkpoint.pth.tar", tmp_path / "out.safetensors"
    arch = torch.load(source, weights_only=True)["arch"]
    sentences = import_checkpoint(source, out, command="", said=NOTHING_SAID | {"sigma": 0.25})
    assert sentences[-1].startswith(
        f"`--zoo DIR` of run and train finds it as DIR/<data set>/gaussian-{arch}_sigma_0.25.s"
    )
    task = Task(dataset="cifar10", channels=3, image_size=32, num_classes=10)
    config = registry.configure("gaussian", task, 0.25, {"backbone": arch})
    tensors = load_file(GOLDEN / "cifar_resnet_io.safetensors")
    logits = registry.load("gaussian").build(config, out)(tensors["in.image"], 0.25)
    torch.testing.assert_close(logits, tensors["out.logits"], rtol=1e-4, atol=1e-4)


def test_released_lenet_becomes_a_baseline(tmp_path):
    task = Task(dataset="mnist", channels=1, image_size=28, num_classes=10)
    released = registry.backbone("lenet").make(task, 0.5)
    torch.save({"arch": "lenet", "state_dict": released.state_dict()}, tmp_path / "checkpoint.pth.tar")
    out = tmp_path / "out.safetensors"
    import_checkpoint(tmp_path / "checkpoint.pth.tar", out, command="", said={"sigma": 0.5})
    classifier = registry.load("gaussian").build(
        registry.configure("gaussian", task, 0.5, {"backbone": "lenet"}), out
    )
    x = torch.rand(2, 1, 28, 28)
    assert torch.equal(classifier(x, 0.5), released(x))


def test_residual_network_with_other_names_is_refused(tmp_path):
    path = tmp_path / "model.pth.tar"
    torch.save({"arch": "cifar_resnet20", "state_dict": {"conv1.weight": torch.zeros(16, 3, 3, 3)}}, path)
    assert "expected 1.conv1.weight" in refusal(path)


def test_residual_network_of_an_unknown_arch_is_refused(tmp_path):
    path, state = (
        tmp_path / "model.pth.tar",
        {"1.conv1.weight": torch.zeros(4, 3, 3, 3), "1.fc.weight": torch.zeros(2, 4)},
    )
    torch.save({"arch": "resnet_of_mine", "state_dict": state}, path)
    assert "holds 'resnet_of_mine', which is no network known here" in refusal(path)


def test_which_needs_a_folder_and_out_a_new_safetensors_name(tmp_path):
    path = tmp_path / "model.pth"
    torch.save({}, path)
    with pytest.raises(UsageError, match="not a folder"):
        import_checkpoint(path, tmp_path / "a.safetensors", command="", which="ema", said=NOTHING_SAID)
    with pytest.raises(UsageError, match=r"ends in \.safetensors"):
        import_checkpoint(path, tmp_path / "a.pth", command="", said=NOTHING_SAID)
    (tmp_path / "out.safetensors").touch()
    with pytest.raises(UsageError, match="give another --out"):
        convert(path)


def test_command_prints_what_a_wrong_file_is_in_one_line(tmp_path, monkeypatch, capsys):
    path = tmp_path / "model.pth"
    path.write_bytes(b"<html>")
    assert bench(monkeypatch, "import-checkpoint", path, "--out", tmp_path / "a.safetensors") == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "is a web page" in captured.err


SMALL_FLAGS = "--image_size 8 --diffusion_steps 1000 --noise_schedule linear --num_heads 2"


def test_unet_of_a_released_program_is_imported_and_denoises_as_before(tmp_path):
    source, out = tmp_path / "model.pt", tmp_path / "out.safetensors"
    state = released(SMALL)
    torch.save({f"module.{name}": value for name, value in state.items()}, source)
    sentences = convert(source, flags=SMALL_FLAGS)
    assert sentences[0] == (
        "U-Net of improved-diffusion or guided-diffusion: images 3x8x8, widths 32, 64, 1 blocks each, attention at 4"
    )
    assert sentences[1] == "1000 steps, linear schedule, predicts the noise, input [-1,1]"
    assert sentences[-1].startswith("`--set dds.denoiser=FILE`")
    x_noisy, task = torch.rand(2, 3, 8, 8), Task(dataset="", channels=3, image_size=8, num_classes=2)
    ours = load_denoiser(str(out), "", task)
    with torch.no_grad():
        before = denoiser(state, SMALL, source).eval().denoise_pixels(x_noisy, 0.5)
        assert torch.equal(ours.denoise_pixels(x_noisy, 0.5), before)


def test_guided_diffusion_is_told_by_what_it_added(tmp_path):
    source = tmp_path / "model.pt"
    torch.save(released(replace(SMALL, resblock_updown=True)), source)
    assert convert(source, flags=SMALL_FLAGS)[0].startswith("U-Net of guided-diffusion: ")


def test_unets_that_cannot_be_used_say_why(tmp_path):
    path = tmp_path / "model.pt"
    torch.save(released(SMALL), path)
    with pytest.raises(UsageError, match="does not tell image_size, diffusion_steps, noise_schedule"):
        convert(path)
    with pytest.raises(CheckpointError, match=r"another model's weights .* input_blocks"):
        convert(path, flags=f"{SMALL_FLAGS} --num_res_blocks 2")
    torch.save({"input_blocks.0.0.weight": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="is no state dict of improved-diffusion or guided-diffusion"):
        convert(path, flags=SMALL_FLAGS)
    torch.save(released(replace(SMALL, class_cond=True)), path)
    with pytest.raises(UsageError, match=r"class-conditional U-Net .* bring an unconditional one"):
        convert(path, flags=SMALL_FLAGS)


def test_cut_off_unet_says_so(tmp_path):
    path = tmp_path / "model.pt"
    torch.save(released(SMALL), path)
    path.write_bytes(path.read_bytes()[:-100])
    assert "is cut off or damaged" in refusal(path)
