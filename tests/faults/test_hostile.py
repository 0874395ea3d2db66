"""Files and names from strangers: nothing in them is run, nothing leaves its folder, and no input gives a traceback."""

import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st

from baselines.parts import external
from bench.checks.doctor import metadata
from bench.config.run import RunConfig, load_preset
from bench.errors import BenchError, CheckpointError
from bench.methods import importing
from bench.records import logs
from bench.records.file import RecordsFile, read_run
from bench.report.comparison import compare
from bench.report.write import write_tables
from bench.runs import runner
from bench.training import checkpoints
from bench.training.loop import Recipe, fit
from tests.support import tiny
from tests.support.fake_runs import make_run
from tests.training.test_loop import Objective

EXAMPLES = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


class Planted:
    """An object whose pickle makes a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def resume_training(path):
    work = tiny.job(path.parent)
    work.workspace.mkdir(parents=True)
    shutil.copy(path, work.workspace / "stage.pt")
    fit("stage", Objective(work), Recipe(max_steps=1, batch_size=8), work)


def released_folder(path):
    folder = path.parent / "7.ckpt"
    folder.mkdir()
    for name in (
        "ema_model.pt",
        "model.pt",
        "target_model.pt",
        "pytorch_model.bin",
        "custom_checkpoint_0.pkl",
    ):
        shutil.copy(path, folder / name)
    import_checkpoint(folder)


def import_checkpoint(path):
    importing.import_checkpoint(path, path.parent / "out.safetensors", command="", said={})


def diffusers_folder(path):
    folder = path.parent / "pipeline"
    for part in ("unet", "scheduler"):
        (folder / part).mkdir(parents=True)
    (folder / "scheduler" / "scheduler_config.json").write_text('{"_class_name": "DDPMScheduler"}')
    (folder / "unet" / "config.json").write_text('{"_class_name": "UNet2DModel", "sample_size": 8}')
    shutil.copy(path, folder / "unet" / "diffusion_pytorch_model.bin")
    external.from_pipeline(folder)


def named(suffix, read):
    """Return what reads a copy of the file under another ending."""
    return lambda path: read(Path(shutil.copy(path, path.with_suffix(suffix))))


def doctor(path):
    metadata.open_checkpoint(str(path), metadata.Request(task=tiny.TASK, options={}, said={}))


READERS = {
    "torch file": checkpoints.load_torch_file,
    "state dict": checkpoints.load_state,
    "zoo": named(".safetensors", checkpoints.load_checkpoint),
    "bench import-checkpoint": import_checkpoint,
    "released folder": released_folder,
    "bench doctor": doctor,
    "released denoiser": external.from_released,
    "diffusers pipeline": diffusers_folder,
    "timm classifier": lambda path: external.load_classifier("resnet10t", str(path), tiny.TASK),
    "unfinished training": resume_training,
    "records": read_run,
    "log": logs.read_log,
    "preset": named(".toml", lambda path: load_preset(str(path))),
}


@pytest.mark.parametrize("form", ["torch.save", "pickle"])
@pytest.mark.parametrize("reader", READERS)
def test_a_planted_pickle_makes_no_file(tmp_path, reader, form):
    planted, path = tmp_path / "planted", tmp_path / "evil.pt"
    content = {"state_dict": {"weight": torch.zeros(1), "evil": Planted(planted)}, "arch": "resnet50"}
    torch.save(content, path) if form == "torch.save" else path.write_bytes(pickle.dumps(content))
    with pytest.raises(BenchError):
        READERS[reader](path)
    assert not planted.exists()
    pickle.loads(pickle.dumps(Planted(planted))).close()
    assert planted.exists()  # the trap works


HOSTILE = [
    "../../evil",
    "/etc/evil",
    "..",
    "a/../../b",
    "nul\x00",
    "<script>",
    "\x1b[31m",
    "$(rm -rf)",
    "%s{x}",
    "|",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_in_a_log_or_a_preset_stay_names(tmp_path, name):
    """Tables of hostile method, class and data set names: files of our own names in the folder, and nowhere else."""
    run = make_run(tmp_path / "inside", methods=("rrcm",), images=4)
    more = {"class_names": (name, *"123456789"), "batch_sizes": {name: 1}}
    header = replace(run.header, methods=(name,), dataset=name, subset=name, command=name, **more)
    records = tuple(replace(one, method=name) for one in run.records)
    costs = tuple(replace(one, method=name, device=name) for one in run.costs)
    with RecordsFile.create_or_resume(tmp_path / "inside", header) as file:
        file.append(*records, *costs)
    write_tables(compare([read_run(tmp_path / "inside")]), tmp_path / "inside")
    assert [path.name for path in tmp_path.iterdir()] == ["inside"]
    ours = {"records.jsonl", ".lock"}
    ours |= {
        f"{name}.{kind}"
        for name in ("certified_accuracy", "best", "acr", "cost")
        for kind in ("csv", "md", "tex")
    }
    ours |= {f"p_lower.{kind}" for kind in ("csv", "md")}
    assert {path.name for path in (tmp_path / "inside").iterdir()} == ours


@EXAMPLES
@given(st.text(min_size=1))
def test_a_presets_run_lies_below_the_runs_whatever_the_presets_name(name):
    folder = runner.run_folder(RunConfig(preset=Path(name).stem, methods=("rrcm",)))
    assert folder.parent == runner.RUNS
    assert folder.name not in (".", "..")


def test_a_file_that_is_no_checkpoint_is_named_with_what_it_is(tmp_path):
    (tmp_path / "page.pt").write_text("<html>not found</html>")
    with pytest.raises(CheckpointError, match=r"is a web page, expected a file written by torch.save"):
        checkpoints.load_torch_file(tmp_path / "page.pt")
