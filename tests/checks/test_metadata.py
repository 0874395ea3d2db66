"""Checkpoints of every kind are opened, say what they are, and go on trial; wrong ones end in one sentence."""

import pickle
from dataclasses import replace

import pytest
import torch
from torch import nn

from bench.checks.doctor.examine import examine
from bench.checks.doctor.images import choose_images
from bench.checks.doctor.metadata import Request, open_checkpoint
from bench.errors import CheckpointError, UsageError
from bench.methods import registry
from bench.training.checkpoints import save_checkpoint
from tests.baselines.test_consistency_model import folder as pipeline_folder
from tests.baselines.test_openai_unet import SMALL, released
from tests.support.tiny import OPTIONS, TASK, bench, image_tree, job, split
from tests.training.test_checkpoints import Planted

FLAGS = "--image_size 8 --diffusion_steps 1000 --noise_schedule linear --num_heads 2"
COLOUR = replace(TASK, channels=3)


def opened(source, task=TASK, **changes):
    said = {"num_heads": None, "layernorm": None, "flags": None}
    values = {"task": task, "options": {name: dict(options) for name, options in OPTIONS.items()}}
    request = Request(**({**values, "said": said} | changes))
    subject = open_checkpoint(str(source), request)
    return subject, dict(subject.metadata)


def trained(method, folder):
    module = registry.load(method)
    config = registry.configure(method, TASK, 0.5, OPTIONS[method])
    module.train(config, job(folder))
    return folder / "zoo" / module.checkpoint_name(config)


@pytest.mark.parametrize("method", ["gaussian", "consistency", "rrcm"])
def test_classifiers_of_the_zoo_declare_method_input_and_sigma(tmp_path, method):
    subject, rows = opened(trained(method, tmp_path))
    assert rows["made by"] == "bench train"
    assert rows["method"].startswith(method)
    assert (rows["input"], rows["sigma"]) == ("[-1,1]", "0.5")
    assert subject.is_told_sigma == (method == "rrcm")
    assert ("the grid time nearest" in rows["time"]) == (method == "rrcm")
    assert subject.classifier(torch.rand(3, 1, 8, 8), 0.5, torch.arange(3)).shape == (3, 2)


def test_method_of_two_parts_is_tried_part_by_part(tmp_path):
    subject, rows = opened(trained("dds", tmp_path))
    assert "predicts the noise, cosine schedule" in rows["denoiser"]
    assert (subject.sigma, rows["sigma"]) == (0.0, "clean images")
    assert subject.denoiser(torch.rand(2, 1, 8, 8), 0.5).shape == (2, 1, 8, 8)


def test_consistency_model_says_its_times_and_is_tried_part_by_part(tmp_path):
    subject, rows = opened(trained("consistency-model", tmp_path))
    assert rows["denoiser"] == "consistency model, one call, the time 2 sigma, of 0.002 to 4"
    images = choose_images(split(per_class=50), seed=0)
    asked = [answer.question for answer in examine(subject, images, torch.device("cpu"))]
    assert asked == ["denoiser, range", "input", "labels", "sigma"]


def test_pipeline_of_a_consistency_model_is_opened_as_one(tmp_path):
    _, rows = opened(pipeline_folder(tmp_path))
    assert rows["denoiser"] == "consistency model, one call, the time 2 sigma, of 0.002 to 80"


def test_encoder_without_a_head_has_metadata_and_no_trial(tmp_path):
    trained("rrcm", tmp_path)
    subject, rows = opened(tmp_path / "zoo" / "rrcm_pretrained.safetensors")
    assert (subject.classifier, subject.denoiser) == (None, None)
    assert "without a head" in rows["method"]
    assert "embed_dim 16" in rows["sizes"]


def residual_network(task):
    network = registry.backbone("cifar_resnet8").make(task, 0.5).eval()
    nn.init.normal_(network[1].fc.bias)
    return network


def test_released_residual_network_is_opened_as_it_is(tmp_path):
    network = residual_network(COLOUR)
    path = tmp_path / "checkpoint.pth.tar"
    state = {f"1.module.{name}": value for name, value in network[1].state_dict().items()}
    torch.save({"arch": "cifar_resnet8", "epoch": 90, "state_dict": state, "optimizer": {}}, path)
    subject, rows = opened(path, COLOUR, sigma=0.25)
    assert rows["made by"] == (
        "cifar_resnet8 of 2 classes after its normalisation, trained on noise of sigma 0.25"
    )
    assert rows["input"] == "CIFAR-10 normalisation"
    assert rows["imported from"].startswith("checkpoint.pth.tar, SHA-256")
    x = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(subject.classifier(x, 0.25, torch.arange(2)), network(x))


def test_sigma_of_the_command_is_the_declaration(tmp_path):
    assert opened(trained("gaussian", tmp_path), sigma=1.0)[0].sigma == 1.0


def test_unet_of_a_released_program_is_opened_with_its_flags(tmp_path):
    path = tmp_path / "unet.pt"
    torch.save(released(SMALL), path)
    said = {"num_heads": None, "layernorm": None, "flags": FLAGS}
    subject, rows = opened(path, COLOUR, said=said)
    assert rows["made by"].startswith("U-Net of improved-diffusion or guided-diffusion: images 3x8x8")
    assert "linear schedule" in rows["denoiser"]
    assert subject.classifier is None
    assert subject.denoiser(torch.rand(2, 3, 8, 8), 0.5).shape == (2, 3, 8, 8)


def of_pixels():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 2))


def of_everything():
    return lambda x_noisy, sigma, keys=None: torch.zeros(len(x_noisy), 2) + sigma


HERE = "tests.checks.test_metadata"


def test_plug_in_is_a_module_of_pixels_or_a_classifier():
    for name, is_told in (("of_pixels", False), ("of_everything", True)):
        subject, rows = opened(f"{HERE}:{name}")
        assert rows["made by"] == f"plug-in {HERE}:{name}"
        assert (rows["input"], rows["sigma"]) == ("[0,1]", "not told")
        assert subject.is_told_sigma == is_told


def test_file_that_does_not_say_its_method_needs_one(tmp_path):
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, residual_network(TASK).state_dict(), config={}, training={})
    with pytest.raises(UsageError, match="give --method"):
        opened(path)
    options = {"gaussian": {"backbone": "cifar_resnet8"}}
    assert opened(path, method="gaussian", options=options)[1]["sigma"] == "not told"


def test_file_of_another_data_set_is_named_by_its_own_path(tmp_path):
    task = replace(TASK, channels=3)
    state = {f"1.module.{name}": value for name, value in residual_network(task)[1].state_dict().items()}
    torch.save({"arch": "cifar_resnet8", "state_dict": state}, tmp_path / "colour.pth.tar")
    with pytest.raises(CheckpointError, match=rf"{tmp_path}/colour.pth.tar holds another model"):
        opened(tmp_path / "colour.pth.tar")


def test_method_that_contradicts_the_file_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, residual_network(TASK).state_dict(), config={"method": "gaussian"}, training={})
    with pytest.raises(UsageError, match="says that gaussian made it, not rrcm: leave --method out"):
        opened(path, method="rrcm")


def test_state_dict_of_another_model_is_refused_with_its_names(tmp_path):
    path = trained("gaussian", tmp_path)
    with pytest.raises(CheckpointError, match="holds another model's weights"):
        opened(path, replace(TASK, num_classes=3))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("code.pt", "nothing of it was run"),
        ("page.safetensors", "is not a readable safetensors file"),
        ("absent.pt", "No file at"),
    ],
)
def test_wrong_file_is_one_line_and_runs_no_code(tmp_path, monkeypatch, capsys, name, said):
    trace = tmp_path / "trace"
    (tmp_path / "code.pt").write_bytes(pickle.dumps({"weight": Planted(str(trace))}))
    (tmp_path / "page.safetensors").write_bytes(b"<html><body>404</body></html>")
    data = ["--dataset", "folder", "--data-dir", image_tree(tmp_path / "data"), "--image-size", "8"]
    assert bench(monkeypatch, "doctor", "--checkpoint", tmp_path / name, *data) == 1
    captured = capsys.readouterr()
    assert (captured.out, captured.err.count("\n")) == ("", 1)
    assert said in captured.err
    assert not trace.exists()


def test_command_prints_the_metadata_and_a_verdict_per_question_and_fails_if_one_accuses(
    tmp_path, monkeypatch, capsys
):
    data = ["--dataset", "folder", "--data-dir", image_tree(tmp_path / "data"), "--image-size", "8"]
    sizes = [f"--set=gaussian.{name}={value}" for name, value in OPTIONS["gaussian"].items()]
    path = tmp_path / "gaussian.safetensors"
    save_checkpoint(
        path,
        residual_network(COLOUR).state_dict(),
        config={"method": "gaussian", "backbone": "cifar_resnet8", "sigma": 0.5},
        training={"command": "bench train gaussian"},
    )
    code = bench(monkeypatch, "doctor", "--checkpoint", path, *data, *sizes, "--device", "cpu")
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split()[:2] == ["made", "by"] for line in lines)
    assert [line.split(":")[0] for line in lines[-3:]] == ["input", "labels", "sigma"]
    assert code == any("looks like" in line for line in lines[-3:])
