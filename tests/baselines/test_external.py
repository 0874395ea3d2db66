"""Denoisers and classifiers of other programs: mixed freely, strict about their files, never running code."""

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from diffusers import (
    CMStochasticIterativeScheduler,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DiffusionPipeline,
    EDMEulerScheduler,
    UNet2DModel,
)
from safetensors.torch import save_file

from baselines.dds import METHOD, Config
from baselines.networks.diffusion import DiffusionDenoiser
from baselines.parts import external
from baselines.parts.external import (
    ResizedClassifier,
    from_pipeline,
    from_released,
    load_classifier,
    load_denoiser,
)
from baselines.parts.names import foreign_files
from baselines.parts.openai_flags import PRESETS, Flags
from baselines.parts.openai_unet import convert, network
from baselines.purifiers.denoised import DenoisedClassifier
from bench.config.run import RunConfig
from bench.errors import CheckpointError, UsageError
from bench.runs.train import train_method
from bench.types import Protocol, Task
from tests.baselines.test_openai_unet import SMALL, released
from tests.support.smoothing import certify
from tests.support.tiny import OPTIONS, TASK, image_tree, job

COLOUR = Task(dataset="tiny", channels=3, image_size=8, num_classes=2)
FLAGS = "--image_size 8 --num_heads 2 --noise_schedule linear --diffusion_steps 1000"
TIMM = "resnet10t"  # the smallest that needs no option; its own size is 176


def unet(**changes):
    torch.manual_seed(0)
    sizes = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",), "add_attention": False}
    return UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8,),
        norm_num_groups=4,
        **sizes,
        **changes,
    )


def pipeline(folder, scheduler=DDIMScheduler, network=None, **options):
    DDPMPipeline(network or unet(), scheduler(**options)).save_pretrained(folder)
    return str(folder)


class Brightness(torch.nn.Module):
    def forward(self, x):
        bright = x.mean(dim=(1, 2, 3))
        return torch.stack([0.5 - bright, bright - 0.5], dim=1)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_saved_pipeline_certifies_as_the_object_in_memory(tmp_path, prediction):
    options = {
        "prediction_type": prediction,
        "beta_schedule": "squaredcos_cap_v2",
        "num_train_timesteps": 200,
    }
    loaded = load_denoiser(pipeline(tmp_path, **options), "", TASK)
    abar = DDPMScheduler(**options).alphas_cumprod.double()
    memory = DiffusionDenoiser(unet().eval(), abar, prediction=prediction)
    protocol = Protocol(n0=20, n=100, alpha=0.001, seed=0)
    certificates = [
        certify(
            DenoisedClassifier(denoiser, Brightness()),
            torch.full((1, 8, 8), 0.55),
            sigma=0.5,
            index=3,
            protocol=protocol,
            batch_size=64,
            num_classes=2,
        )
        for denoiser in (loaded, memory)
    ]
    assert certificates[0] == certificates[1]
    assert sum(count for _, count in certificates[0].counts_estimation) == 100


def test_released_file_alone_needs_only_the_flags_that_shapes_do_not_tell(tmp_path):
    torch.save(released(SMALL), tmp_path / "model.pt")
    x_noisy = torch.randn(2, 3, 8, 8)
    ours = load_denoiser(str(tmp_path / "model.pt"), FLAGS, COLOUR)
    expected = convert(released(SMALL), SMALL, tmp_path)
    with torch.no_grad():
        assert torch.equal(ours.unet(x_noisy, 3).sample, expected(x_noisy, 3).sample)


def test_released_safetensors_may_carry_its_flags(tmp_path):
    config = '{"image_size": 8, "num_heads": 2, "noise_schedule": "cosine", "diffusion_steps": 1000}'
    save_file(released(SMALL), tmp_path / "model.safetensors", {"config": config})
    assert len(from_released(tmp_path / "model.safetensors").alphas_cumprod) == 1000


def test_files_of_foreign_parts_are_told_for_the_header(tmp_path):
    config = Config(
        task=TASK,
        sigma=0.5,
        denoiser="unet.pt",
        classifier=f"transformers:{tmp_path}",
    )
    assert foreign_files(config) == {"denoiser": Path("unet.pt"), "classifier": tmp_path}
    config = Config(
        task=TASK, sigma=0.5, denoiser="hub:o/n", classifier=TIMM, classifier_checkpoint="resnet.pt"
    )
    assert foreign_files(config) == {"classifier_checkpoint": Path("resnet.pt")}


HERE = "tests.baselines.test_external"


def bright():
    return Brightness()


def unet_path():
    return "unet.pt"


def schedule_of_nothing():
    return DiffusionDenoiser(unet(), DDPMScheduler().alphas_cumprod.double())


def test_functions_of_the_users_own_are_parts(tmp_path):
    config = Config(task=TASK, sigma=0.5, denoiser=f"{HERE}:schedule_of_nothing", classifier=f"{HERE}:bright")
    assert (METHOD.checkpoint_name(config), foreign_files(config)) == (None, {})
    method = METHOD.build(config, None)
    x_noisy = torch.rand(3, 1, 8, 8)
    with torch.no_grad():
        expected = Brightness()(schedule_of_nothing().eval().denoise_pixels(x_noisy, 0.5))
        assert torch.equal(method(x_noisy, 0.5), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"denoiser": f"{HERE}:bright"},
            r"bright returned a Brightness, expected a denoiser: \(x_noisy, sigma_model, keys\) -> x_hat",
        ),
        ({"classifier": f"{HERE}:pipeline"}, "pipeline cannot be called: missing a required argument"),
        ({"classifier": f"{HERE}:unet_path"}, "returned a str, expected a torch module"),
        ({"classifier": "torch:get_num_threads"}, "cannot be called: no signature found"),
        (
            {"classifier": "owner/name"},
            r"is not known to timm \(.*\): give timm's name, transformers:NAME, or hf-hub",
        ),
        (
            {"classifier": f"{HERE}:bright", "classifier_checkpoint": "a.pt"},
            "brings its own weights; leave classifier_checkpoint out",
        ),
    ],
)
def test_functions_that_are_no_parts_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        METHOD.build(Config(task=TASK, sigma=0.5, **options), None)


class Planted:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


def write_code(path):
    path.write_bytes(pickle.dumps({"weight": Planted(str(path.with_name("trace")))}))


def write_zipped_code(path):
    torch.save({"weight": Planted(str(path.with_name("trace")))}, path)


def write_truncated(path):
    torch.save(released(SMALL), path)
    path.write_bytes(path.read_bytes()[:-1000])


def write_page(path):
    path.write_text("<!DOCTYPE html><html><body>404</body></html>")


def write_nothing(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("write", [write_code, write_zipped_code, write_truncated, write_page, write_nothing])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_wrong_file_is_one_clear_line_and_runs_nothing(tmp_path, write, suffix):
    path = tmp_path / f"model{suffix}"
    write(path)
    with pytest.raises(CheckpointError, match=r"model\.\w+ (is|holds) ") as error:
        load_denoiser(str(path), FLAGS, COLOUR)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "trace").exists()


def test_file_that_holds_no_weights_or_is_not_there_is_refused(tmp_path):
    torch.save([torch.zeros(1)], tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match="holds no state dict"):
        load_denoiser(str(tmp_path / "list.pt"), "", COLOUR)
    with pytest.raises(CheckpointError, match=r"No file at .*none\.pt: name a checkpoint"):
        load_denoiser(str(tmp_path / "none.pt"), "", COLOUR)


def test_denoiser_that_cannot_take_the_images_is_refused(tmp_path):
    with pytest.raises(
        UsageError, match="of 1 channels and a side that 1 divides, but the data set has 3x8x8"
    ):
        load_denoiser(pipeline(tmp_path), "", COLOUR)
    torch.save(released(SMALL), tmp_path / "model.pt")
    with pytest.raises(
        UsageError, match="of 3 channels and a side that 2 divides, but the data set has 3x9x9"
    ):
        load_denoiser(str(tmp_path / "model.pt"), FLAGS, replace(COLOUR, image_size=9))


def test_published_imagenet_denoiser_takes_both_sides_that_tables_know(monkeypatch, tmp_path):
    flags = Flags(**PRESETS["256x256_diffusion_uncond"])
    with torch.device("meta"):
        whole = DiffusionDenoiser(network(flags), torch.ones(1))
    monkeypatch.setattr(external, "from_released", lambda path, flags: whole)
    for side in (224, 256):
        assert load_denoiser("file.pt", "", replace(COLOUR, image_size=side)) is whole


@pytest.mark.parametrize(
    ("scheduler", "options", "message"),
    [
        (EDMEulerScheduler, {}, "scheduler is EDMEulerScheduler, which has no betas"),
        (
            CMStochasticIterativeScheduler,
            {},
            "is a consistency model.* a denoiser of consistency-model, not of dds",
        ),
        (DDIMScheduler, {"prediction_type": "score"}, "prediction_type 'score', expected epsilon"),
    ],
)
def test_pipeline_of_another_kind_is_refused(tmp_path, scheduler, options, message):
    with pytest.raises(UsageError, match=message):
        from_pipeline(pipeline(tmp_path, scheduler, **options) and tmp_path)


def test_class_conditional_pipeline_is_refused(tmp_path):
    pipeline(tmp_path, network=unet(num_class_embeds=2))
    with pytest.raises(UsageError, match="must be told a class"):
        from_pipeline(tmp_path)


def test_pipeline_with_missing_parts_or_other_weights_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="is no readable diffusers pipeline"):
        from_pipeline(tmp_path)
    pipeline(tmp_path)
    weights = unet().state_dict()
    del weights["conv_in.bias"]
    save_file(weights, tmp_path / "unet" / "diffusion_pytorch_model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"holds other weights .*missing_keys \['conv_in.bias'\]"):
        from_pipeline(tmp_path)


def test_classifier_sees_its_own_size_resized_and_normalised():
    network = torch.nn.Flatten()
    classifier = ResizedClassifier(network, (4, 4), (0.5,) * 3, (0.25,) * 3)
    seen = classifier(torch.full((1, 3, 8, 8), 0.75))
    torch.testing.assert_close(seen, torch.ones(1, 48))


@pytest.fixture(scope="module")
def classifier_file(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("timm") / "classifier.pt"
    torch.save({"state_dict": timm.create_model(TIMM, num_classes=2).state_dict()}, path)
    return str(path)


def test_timm_classifier_has_timms_size_and_normalisation(classifier_file):
    classifier = load_classifier(TIMM, classifier_file, COLOUR)
    data = timm.data.resolve_model_data_config(classifier.network)
    assert (classifier.resize.size, classifier.normalize.mean) == (
        tuple(data["input_size"][1:]),
        data["mean"],
    )


def test_classifier_that_does_not_fit_is_refused(classifier_file):
    with pytest.raises(UsageError, match="has 2 classes and 3 channels, but the data set has 2 and 1"):
        load_classifier(TIMM, classifier_file, TASK)
    with pytest.raises(CheckpointError, match=r"fc.weight has shape \(2, 512\), expected \(5, 512\)"):
        load_classifier(TIMM, classifier_file, replace(COLOUR, num_classes=5))
    with pytest.raises(UsageError, match="classifier 'resnet10z' is not known to timm"):
        load_classifier("resnet10z", classifier_file, COLOUR)


def test_any_denoiser_mixes_with_any_classifier(tmp_path, classifier_file):
    own = Config(task=COLOUR, sigma=0.5, channels=(8, 8))
    torch.save(released(SMALL), tmp_path / "model.pt")
    foreign = {"denoiser": {"denoiser": str(tmp_path / "model.pt"), "denoiser_flags": FLAGS}}
    foreign["classifier"] = {"classifier": TIMM, "classifier_checkpoint": classifier_file}
    for options in (
        {},
        foreign["denoiser"],
        foreign["classifier"],
        foreign["denoiser"] | foreign["classifier"],
    ):
        with torch.no_grad():
            logits = METHOD.build(replace(own, **options), None)(torch.rand(1, 3, 8, 8), 0.5)
        assert logits.shape == (1, 2)
    assert (
        METHOD.checkpoint_name(replace(own, **foreign["denoiser"]))
        == METHOD.checkpoint_name(own)
        == "dds.safetensors"
    )
    assert METHOD.checkpoint_name(replace(own, **foreign["denoiser"], **foreign["classifier"])) is None


def test_a_foreign_denoiser_leaves_our_classifiers_weights_and_training_alone(tmp_path):
    config = Config(task=TASK, sigma=0.5, **OPTIONS["dds"])
    mixed = replace(config, denoiser=pipeline(tmp_path / "pipeline"), reverse_steps=3)
    work = job(tmp_path)
    METHOD.train(mixed, work)
    ours, both = (METHOD.build(one, work.folder / "dds.safetensors") for one in (config, mixed))
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(ours.classifier(x), both.classifier(x))
    assert both.denoiser.chain.steps == 3
    assert both(x, 0.5, torch.arange(2)).shape == (2, 2)


def test_options_that_need_another_are_refused():
    with pytest.raises(UsageError, match="denoiser_flags is given without denoiser"):
        Config(task=TASK, sigma=0.5, denoiser_flags="--num_heads 2")
    with pytest.raises(UsageError, match="classifier_checkpoint is given without classifier"):
        Config(task=TASK, sigma=0.5, classifier_checkpoint="a.pt")


def test_hub_names_go_to_diffusers_only_with_their_prefix(tmp_path, monkeypatch):
    asked = []
    with pytest.raises(CheckpointError, match="No file at owner/name"):
        load_denoiser("owner/name", "", TASK)
    folder = pipeline(tmp_path)
    monkeypatch.setattr(
        DiffusionPipeline,
        "download",
        classmethod(lambda cls, name, **rest: asked.append((name, rest)) or folder),
    )
    load_denoiser("hub:owner/name", "", TASK)
    assert asked == [("owner/name", {"use_safetensors": True})]


def test_hub_that_cannot_be_reached_is_one_line(monkeypatch):
    def fail(name, **_):
        raise OSError("no network\nat all")

    monkeypatch.setattr(DiffusionPipeline, "download", fail)
    with pytest.raises(CheckpointError, match=r"hub:owner/name cannot be fetched: no network$"):
        load_denoiser("hub:owner/name", "", TASK)


def test_training_a_mixture_of_foreign_parts_is_refused(tmp_path):
    config = RunConfig(
        dataset="folder",
        data_dir=image_tree(tmp_path),
        image_size=8,
        zoo=tmp_path,
        options={"dds": {"denoiser": "a", "classifier": "b"}},
    )
    with pytest.raises(UsageError, match="'dds' has nothing to train with these options"):
        train_method("dds", 0.5, config, command="", report=print)
