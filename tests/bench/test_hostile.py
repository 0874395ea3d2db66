"""Files and names from strangers: nothing in them is run, nothing leaves its folder, and no input gives a traceback."""

import contextlib
import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from baselines import external
from bench import checkpoints, codec, config, importing, logs, passport, runner, tables
from bench.config import RunConfig, validate
from bench.errors import BenchError, CheckpointError
from bench.overrides import override
from bench.records import FILE_NAME, RecordsFile, read_run
from bench.train import Recipe, fit
from tests import tiny
from tests.bench.fake_runs import make_run
from tests.bench.test_records import COST, HEADER, record
from tests.bench.test_train import Objective

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
    passport.open_checkpoint(str(path), passport.Request(task=tiny.TASK, options={}, said={}))


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
    "preset": named(".toml", lambda path: config.load_preset(str(path))),
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
    header = replace(
        run.header, methods=(name,), dataset=name, subset=name, class_names=(name, "1"), command=name
    )
    records = tuple(replace(one, method=name) for one in run.records)
    costs = tuple(replace(one, method=name, device=name) for one in run.costs)
    with RecordsFile.create_or_resume(tmp_path / "inside", header) as file:
        file.append(*records, *costs)
    tables.write_tables([read_run(tmp_path / "inside")], tmp_path / "inside")
    assert [path.name for path in tmp_path.iterdir()] == ["inside"]
    ours = {"records.jsonl", ".lock", "cost.csv", "cost.md", "acr.csv", "acr.md"}
    ours |= {f"certified_accuracy.{kind}" for kind in ("csv", "md", "tex")}
    assert {path.name for path in (tmp_path / "inside").iterdir()} == ours


@EXAMPLES
@given(st.text(min_size=1))
def test_a_presets_run_lies_below_the_runs_whatever_the_presets_name(name):
    folder = runner.run_folder(RunConfig(preset=Path(name).stem, methods=("rrcm",)))
    assert folder.parent == runner.RUNS
    assert folder.name not in (".", "..")


def no_traceback(read, path, content):
    """Read a file of this content: whatever comes is a result or one of our errors."""
    path.write_bytes(content)
    with contextlib.suppress(BenchError):
        read(path)


def mutated(whole):
    """Return a strategy: a file with pieces cut out, doubled or replaced by rubbish."""
    place = st.integers(0, len(whole))
    rubbish = st.one_of(
        st.binary(max_size=6), st.sampled_from([b"NaN", b"1e999", b"-1", b"[", b"}", b"\n", b'"', b"\t"])
    )
    edit = st.tuples(place, st.integers(0, 12), rubbish)

    def apply(edits):
        content = whole
        for start, length, new in edits:
            content = content[:start] + new + content[start + length :]
        return content

    return st.lists(edit, min_size=1, max_size=4).map(apply)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("hostile")


RECORDS = b"".join(map(codec.encode, (HEADER, record(), record(20), COST)))
LOG = b"idx\tlabel\tpredict\tradius\tcorrect\ttime\n0\t3\t3\t0.5\t1\t0:00:01.5\n20\t8\t-1\t0.0\t0\t2.5\n"


@EXAMPLES
@given(st.one_of(st.binary(max_size=300), mutated(RECORDS)))
def test_no_records_file_gives_a_traceback(folder, content):
    no_traceback(read_run, folder / FILE_NAME, content)
    no_traceback(
        lambda path: RecordsFile.create_or_resume(path.parent, HEADER).close(), folder / FILE_NAME, content
    )


@EXAMPLES
@given(st.one_of(st.binary(max_size=300), mutated(LOG)))
def test_no_log_gives_a_traceback(folder, content):
    def read(path):
        log = logs.read_log(path)
        one = validate(RunConfig(methods=("m",), sigmas=(0.5,), dataset="cifar10"), ["m"])
        logs.log_header(log, one, command="", git_revision="", earlier={})
        logs.log_records(log, one)
        logs.log_notes(log, one)

    no_traceback(read, folder / "log.tsv", content)


PRESET = b'dataset = "cifar10"\nsigmas = [0.25, 0.5]\nn = 1000\nalpha = 0.001\n[options.rrcm]\ndepth = 3\n'


@EXAMPLES
@given(st.one_of(st.binary(max_size=300), mutated(PRESET), st.just(b"a = " + b"[" * 5000)))
def test_no_preset_gives_a_traceback(folder, content):
    read = lambda path: validate(config.load_preset(str(path)), ["rrcm", "dds"])  # noqa: E731
    no_traceback(read, folder / "preset.toml", content)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@EXAMPLES
@given(st.dictionaries(st.sampled_from([*config.to_json(RunConfig()), "sigma"]), VALUES, max_size=4))
def test_no_value_of_any_option_gives_a_traceback(changes):
    with contextlib.suppress(BenchError):
        changed = validate(override(RunConfig(), changes), ["rrcm", "dds"])
        json.dumps(config.to_json(changed))
        config.run_name(changed)


def saved(tmp, save):
    save(tmp)
    return tmp.read_bytes()


@pytest.fixture(scope="module")
def checkpoint_files(folder):
    """Return the bytes of a safetensors file, a zip archive of torch.save and one of its older form."""
    tensors = {"a.weight": torch.zeros(2, 3), "b": torch.ones(1)}
    path = folder / "checkpoint"
    return [
        saved(path, lambda at: checkpoints.save_checkpoint(at, tensors, config={}, training={})),
        saved(path, lambda at: torch.save({"state_dict": tensors, "arch": "resnet50"}, at)),
        saved(path, lambda at: torch.save(tensors, at, _use_new_zipfile_serialization=False)),
        pickle.dumps({"a": [1, 2.0, "x"]}),
    ]


@EXAMPLES
@given(st.data())
def test_no_checkpoint_gives_a_traceback(folder, checkpoint_files, data):
    content = data.draw(st.one_of(st.binary(max_size=200), *map(mutated, checkpoint_files)))
    for suffix in (".pt", ".safetensors"):
        no_traceback(checkpoints.load_state, folder / f"checkpoint{suffix}", content)
    path = folder / "checkpoint.pt"
    (folder / "out.safetensors").unlink(missing_ok=True)
    no_traceback(import_checkpoint_to(folder / "out.safetensors"), path, content)


def import_checkpoint_to(out):
    return lambda path: importing.import_checkpoint(path, out, command="", said={})


def test_a_file_that_is_no_checkpoint_is_named_with_what_it_is(tmp_path):
    (tmp_path / "page.pt").write_text("<html>not found</html>")
    with pytest.raises(CheckpointError, match=r"is a web page, expected a file written by torch.save"):
        checkpoints.load_torch_file(tmp_path / "page.pt")
