"""Files and options by chance: whatever a reader is given, it ends with a result or with one of our errors.

A few examples of each are tried every time. `pytest -m slow -s tests/faults/test_fuzz.py` goes on with new ones for
FUZZ_SECONDS in all (600 unless the environment says otherwise). The files that are changed by chance, the corpus, are
those below.
"""

import contextlib
import itertools
import json
import os
import pickle
import signal
import tempfile
import time
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, seed, settings, strategies as st

from bench.checks.doctor import metadata
from bench.config.overrides import override
from bench.config.run import RunConfig, load_preset, run_name, to_json, validate
from bench.errors import BenchError
from bench.methods import importing
from bench.records import logs
from bench.records.codec import RUN
from bench.records.file import FILE_NAME, RecordsFile, read_run
from bench.records.log_check import Claim, check_log
from bench.training import checkpoints
from tests.records.test_file import COST, HEADER, record
from tests.support import tiny

HANG_SECONDS = 30
"""Time of the processor after which an example counts as hanging; a slow machine's waiting does not count."""

METHODS = ["rrcm", "dds"]
RECORDS = b"".join(map(RUN.encode, (HEADER, record(), record(20), COST)))
LOG = b"idx\tlabel\tpredict\tradius\tcorrect\ttime\n0\t3\t3\t0.5\t1\t0:00:01.5\n20\t8\t-1\t0.0\t0\t2.5\n"
PRESET = b'dataset = "cifar10"\nsigmas = [0.25, 0.5]\nn = 1000\nalpha = 0.001\n[options.rrcm]\ndepth = 3\n'


def checkpoint_files():
    """Return the bytes of a safetensors file, a zip archive of torch.save, one of its older form, and a pickle."""
    tensors = {"a.weight": torch.zeros(2, 3), "b": torch.ones(1)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint"
        checkpoints.save_checkpoint(path, tensors, config={}, training={})
        files = [path.read_bytes()]
        for older in ({}, {"_use_new_zipfile_serialization": False}):
            torch.save({"state_dict": tensors, "arch": "resnet50"}, path, **older)
            files.append(path.read_bytes())
    return [*files, pickle.dumps({"a": [1, 2.0, "x"]})]


def changed(whole):
    """Return a strategy: a file with pieces cut out, doubled or replaced by rubbish."""
    place = st.integers(0, len(whole))
    rubbish = st.one_of(
        st.binary(max_size=6), st.sampled_from([b"NaN", b"1e999", b"-1", b"[", b"}", b"\n", b'"', b"\t"])
    )
    piece = st.tuples(place, st.integers(0, 40)).map(lambda cut: whole[cut[0] : sum(cut)])
    edit = st.tuples(place, st.integers(0, 12), st.one_of(rubbish, piece))

    def apply(edits):
        content = whole
        for start, length, new in edits:
            content = content[:start] + new + content[start + length :]
        return content

    return st.lists(edit, min_size=1, max_size=4).map(apply)


def file_of(path, content):
    path.write_bytes(content)
    return path


def read_records(folder, content):
    path = file_of(folder / FILE_NAME, content)
    with contextlib.suppress(BenchError):
        read_run(path)
    RecordsFile.create_or_resume(folder, HEADER).close()


def read_log(folder, content):
    path = file_of(folder / "log.tsv", content)
    with contextlib.suppress(BenchError):
        check_log(logs.read_log(path, allows_repeats=True), Claim(sigma=0.5, n=1000, alpha=0.001))
    log = logs.read_log(path)
    one = validate(RunConfig(methods=("m",), sigmas=(0.5,), dataset="cifar10"), ["m"])
    logs.log_header(log, one, command="", git_revision="")
    logs.log_records(log, one)
    logs.log_notes(log, one)


def read_preset(folder, content):
    path = file_of(folder / "preset.toml", content)
    resolved(lambda: load_preset(str(path)))


def read_options(folder, options):
    resolved(lambda: override(RunConfig(), options))


def resolved(make):
    made = validate(make(), METHODS)
    json.dumps(to_json(made))
    run_name(made)


def read_checkpoint(folder, content):
    out = folder / "out.safetensors"
    out.unlink(missing_ok=True)
    path = file_of(folder / "checkpoint.pt", content)
    request = metadata.Request(task=tiny.TASK, options={}, said={})
    for read in (
        checkpoints.load_state,
        lambda path: importing.import_checkpoint(path, out, command="", said={}),
        lambda path: metadata.open_checkpoint(str(path), request),
    ):
        with contextlib.suppress(BenchError):
            read(path)
    checkpoints.load_state(file_of(folder / "checkpoint.safetensors", content))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
RANDOM = st.binary(max_size=300)
READERS = {
    "records": (RANDOM | changed(RECORDS), read_records),
    "log": (RANDOM | changed(LOG), read_log),
    "preset": (RANDOM | changed(PRESET) | st.just(b"a = " + b"[" * 5000), read_preset),
    "options": (
        st.dictionaries(st.sampled_from([*to_json(RunConfig()), "sigma"]), VALUES, max_size=4),
        read_options,
    ),
    "checkpoint": (
        st.deferred(lambda: st.one_of(RANDOM, *map(changed, checkpoint_files()))),
        read_checkpoint,
    ),
}


@contextlib.contextmanager
def no_hang():
    """Fail where the block takes HANG_SECONDS of the processor."""

    def stop(*_):
        raise AssertionError(f"no end within {HANG_SECONDS} seconds of the processor")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, HANG_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def attempt(name, folder, number, examples):
    """Give a reader this many inputs of its kind, by chance from the seed `number`; return how many it was given."""
    inputs, read = READERS[name]
    tried = 0

    @seed(number)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(inputs)
    def one(content):
        nonlocal tried
        tried += 1
        with no_hang(), contextlib.suppress(BenchError):
            read(folder, content)

    one()
    return tried


@pytest.mark.parametrize("name", READERS)
def test_no_input_gives_a_traceback_or_a_hang(tmp_path, name):
    attempt(name, tmp_path, number=0, examples=60)


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_no_input_of_very_many_gives_a_traceback_or_a_hang(tmp_path, name):
    began, cpu_began, tried = time.monotonic(), time.process_time(), 0
    for number in itertools.count(1):
        tried += attempt(name, tmp_path, number, examples=50)
        seconds = time.monotonic() - began
        if seconds > float(os.environ.get("FUZZ_SECONDS", "600")) / len(READERS):
            break
    cpu_seconds = time.process_time() - cpu_began
    print(
        f"{name}: {tried} inputs in {seconds:.0f} s, {cpu_seconds:.0f} s of them of the processor: no fault"
    )
