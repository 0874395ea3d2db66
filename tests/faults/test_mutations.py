"""Every file that a command reads, changed by chance: the command ends with 0, 1 or 2 and one line at most.

Some changes of each are tried every time; `MUTATIONS=5000 pytest -m slow tests/faults/test_mutations.py` tries more,
from the seed MUTATIONS_SEED on.
"""

import json
import os
import random
import shutil

import pytest
import torch

from bench.cost import records as cost
from bench.training import checkpoints
from tests.support import fake_costs, synthetic_method
from tests.support.tiny import arguments, bench

pytestmark = pytest.mark.usefixtures("undrawn")

VALUES = [
    None, True, False, 0, -1, 1, 2**31, 2**62, 2**63, -(2**70), 10**30, 0.0, -0.5, 1e-320, 1e308, "", "x", "=1+1",
    "a\n\tb",     "\x1b[2J", "[/red]", "\x00", "٣", "0.5_0", "no_such_module:make", "../../x", "é" * 300,
    [], [[]], [1], [None], {}, {"a": {"b": []}}, ["x"] * 50,
]  # fmt: skip
"""What takes the place of a value."""

TOKENS = [
    *"\t\n\r,;:|=[]{}\"'#$%\\ \x00\x1b",
    "NaN",
    "1e999",
    "-1",
    "9" * 400,
    "é",
    "٣",
    "-->",
    "<!--",
    "= [",
    "\ufeff",
    "\ud7ff",
]
"""What is put among the bytes."""


def changed_bytes(content, generator):
    """Return bytes with pieces cut out, doubled, moved or replaced."""
    for _ in range(generator.randint(1, 3)):
        start = generator.randint(0, len(content))
        piece = content[start : start + generator.choice([0, 1, 1, 4, 40, 4000])]
        rest = content[start + len(piece) :]
        put = generator.choice([b"", piece * 2, bytes([generator.randrange(256)]), None])
        new = generator.choice(TOKENS).encode() if put is None else put
        content = content[:start] + new + (rest if generator.random() < 0.95 else b"")
    return content


def changed_value(value, generator):
    """Return a JSON value with one of its parts, however deep, replaced, left out or doubled."""
    if not isinstance(value, dict | list) or not value or generator.random() < 0.15:
        return generator.choice(VALUES)
    if isinstance(value, list):
        place = generator.randrange(len(value))
        new = [changed_value(value[place], generator)] if generator.random() < 0.8 else [value[place]] * 2
        return [*value[:place], *new, *value[place + 1 :]]
    key = generator.choice([*value])
    if generator.random() < 0.1:
        return {name: one for name, one in value.items() if name != key}
    return value | {key: changed_value(value[key], generator)}


def changed_lines(content, generator):
    """Return lines of JSON with a value in one of them changed, lines doubled or moved, or bytes changed."""
    if generator.random() < 0.25:
        return changed_bytes(content, generator)
    lines = content.splitlines(keepends=True)
    place = 0 if generator.random() < 0.5 else generator.randrange(len(lines))
    if generator.random() < 0.1:
        lines.insert(generator.randrange(len(lines) + 1), lines[place])
    else:
        value = changed_value(json.loads(lines[place]), generator)
        lines[place] = json.dumps(value).encode() + b"\n"
    return b"".join(lines)


def changed_cells(content, generator):
    """Return a table with one of its cells changed, or its bytes."""
    if generator.random() < 0.4:
        return changed_bytes(content, generator)
    separator = b"\t" if b"\t" in content else b","
    lines = [line.split(separator) for line in content.split(b"\n")]
    row = generator.choice(lines)
    row[generator.randrange(len(row))] = str(generator.choice(VALUES)).encode("utf-8", "replace")
    return b"\n".join(map(separator.join, lines))


def changed_header(content, generator):
    """Return a safetensors file with what it says of itself or of its tensors changed, or its bytes."""
    if generator.random() < 0.3:
        return changed_bytes(content, generator)
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    if generator.random() < 0.7:
        told = header["__metadata__"]
        key = generator.choice([*told])
        told[key] = json.dumps(changed_value(json.loads(told[key]), generator))
    else:
        header = changed_value(header, generator)
    new = json.dumps(header).encode()
    return len(new).to_bytes(8, "little") + new + content[8 + size :]


def of_run(root, folder):
    shutil.copytree(root / "run", folder / "run", ignore=shutil.ignore_patterns("*.p[nd]*"))
    run = folder / "run"
    commands = [
        ("status", run), ("compare", run), ("report", run),
        ("recertify", run, "--alpha", 0.01, "--out", folder / "new"),
        ("export-log", run, "--method", "rrcm", "--sigma", 0.25), ("cost", "--run", run), ("merge", run),
        ("replay", run, "--index", 6, "--methods", "gaussian"),
        ("run", *arguments(root, "--out", run, "--methods", "gaussian")),
    ]  # fmt: skip
    return run / "records.jsonl", commands, changed_lines


def of_shard(root, folder):
    _, *_ = of_run(root, folder)
    run = folder / "run"
    (run / "records.jsonl").rename(run / "records-1-of-1.jsonl")
    return run / "records-1-of-1.jsonl", [("status", run), ("merge", run)], changed_lines


AUDIT = ("--methods=rrcm", "--sigmas=0.25", "--images=1", "--samples=1", "--steps=1", "--restarts=1")


def of_attacks(root, folder):
    of_run(root, folder)
    run = folder / "run"
    audit = ("audit", run, *AUDIT)
    shutil.copytree(root / "audited", run / "audit")
    return run / "audit" / "attack.jsonl", [audit], changed_lines


def of_costs(root, folder):
    timed = [*fake_costs.repetitions("a", (1.0, 1.1, 1.2)), *fake_costs.repetitions("b", (2.0, 2.1, 2.4))]
    with cost.open_cost_file(folder / "cost", fake_costs.HEADER) as file:
        file.append(fake_costs.SESSION, fake_costs.size("a"), fake_costs.size("b"), *timed)
        pair = {"method": "a", "setting": "float32", "batch_size": 8}
        file.append(cost.StageSplit(**pair, stages={"noise": 0.1, "host": 0.2}))
        file.append(cost.EnergyUse(**pair, samples=80, seconds=1.0, joules=300.0))
        file.append(cost.WholeImage(**pair, samples=1000, seconds=12.0))
        file.append(cost.Failure(**(pair | {"batch_size": 64}), reason="out of memory"))
    return folder / "cost" / "records.jsonl", [("cost", "--report", "--out", folder / "cost")], changed_lines


LOG = (
    "idx\tlabel\tpredict\tradius\tcorrect\ttime\n0\t3\t3\t0.5\t1\t0:00:01.5\n20\t8\t-1\t0.0\t0\t2.5\n"
    "40\t0\t0\t0.25\t1\t1.0\n"
)
OF_LOG = ["--sigma", "0.5", "--n", "1000", "--alpha", "0.001"]


def of_log(root, folder):
    path = folder / "log.tsv"
    path.write_text(LOG)
    given = (*OF_LOG, "--dataset", "cifar10", "--method", "m", "--out", folder / "imported")
    check = ("check-log", path, *OF_LOG)
    again = (*check, "--recertify", 0.01, "--dataset", "cifar10")
    return path, [check, again, ("import-log", path, *given)], changed_cells


PRESET = """description = "x"
dataset = "cifar10"
methods = ["rrcm", "dds"]
sigmas = [0.25, 0.5]
n = 1000
alpha = 0.001
radii = [0.0, 0.5]
batch_size = "auto"
[options.rrcm]
depth = 3
[options.dds]
classifier = "resnet18"
"""


def of_preset(root, folder):
    path = folder / "preset.toml"
    path.write_text(PRESET)
    return path, [("run", "--dry-run", "--preset", path)], changed_bytes


def of_subset(root, folder):
    path = folder / "subset.txt"
    path.write_text("0\n1\n5\n")
    data = ("--dataset", "folder", "--data-dir", root / "data", "--image-size", 8, "--device", "cpu")
    sizes = ("--n", 20, "--n0", 5, "--sigmas", 0.25, "--methods", "brightness", "--cost-repetitions", 0)
    run = ("run", *data, *sizes, "--subset", f"file:{path}", "--out", folder / "new")
    return path, [run], changed_bytes


def of_curves(root, folder):
    path = folder / "curves.csv"
    source = next(iter((root / "zoo" / "training").rglob("gaussian*.csv")))
    shutil.copy(source, path)
    return path, [("curves", path, "--out", folder / "curves.png")], changed_cells


def of_page(root, folder):
    path = folder / "page.md"
    (folder / "table.md").write_text("| a |\n")
    path.write_text("# x\n<!-- table: table.md -->\nold\n<!-- end of table -->\nend\n")
    return path, [("readme", path)], changed_bytes


def of_checkpoint(root, folder):
    path = folder / "checkpoint.safetensors"
    zoo = root / "zoo" / "folder"
    names = ("gaussian_sigma_0.25", "rrcm_sigma_0.25", "dds")
    shutil.copy(zoo / f"{random.Random(str(folder)).choice(names)}.safetensors", path)
    data = ("--dataset", "folder", "--data-dir", root / "data", "--image-size", 8, "--device", "cpu")
    run = arguments(root, "--methods", "gaussian", "--set", f"gaussian.checkpoint={path}", "--limit", 1)
    commands = [
        ("doctor", "--checkpoint", path, *data),
        ("import-checkpoint", path, "--out", folder / "out.safetensors"),
        ("run", *run, "--cost-repetitions", 0, "--sigmas", "0.25", "--out", folder / "new"),
    ]
    return path, commands, changed_header


def of_torch_file(root, folder):
    path = folder / "checkpoint.pt"
    tensors, _ = checkpoints.load_checkpoint(root / "zoo" / "folder" / "gaussian_sigma_0.25.safetensors")
    is_older = random.Random(str(folder)).random() < 0.5
    content = {"arch": "resnet", "state_dict": tensors}
    torch.save(content, path, _use_new_zipfile_serialization=not is_older)
    data = ("--dataset", "folder", "--data-dir", root / "data", "--image-size", 8, "--device", "cpu")
    commands = [
        ("doctor", "--checkpoint", path, *data),
        ("import-checkpoint", path, "--out", folder / "out.safetensors"),
    ]
    return path, commands, changed_bytes


FILES = [
    of_run, of_shard, of_attacks, of_costs, of_log, of_preset, of_subset, of_curves, of_page,
    of_checkpoint, of_torch_file,
]  # fmt: skip


@pytest.fixture(scope="session")
def audited(trained):
    """The trained run, with a log of attacks beside it."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        run = shutil.copytree(trained / "run", trained / "copy")
        assert bench(monkeypatch, "audit", run, *AUDIT) == 0
        (run / "audit").rename(trained / "audited")
        shutil.rmtree(run)
    return trained


FINDING = ("doctor", "check-log", "replay", "audit")
"""Commands that end with 1 where they find something wrong, and print what."""


def attempt(make, root, folder, seed, monkeypatch, capsys):
    """Change one file by chance from a seed and read it by one of its commands; return that command."""
    generator = random.Random(f"{make.__name__} {seed}")
    folder.mkdir()
    path, commands, changed = make(root, folder)
    path.write_bytes(changed(path.read_bytes(), generator))
    command = generator.choice(commands)
    code = bench(monkeypatch, *command)
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if line.startswith("bench: ")]
    assert code in (0, 1, 2), command
    assert len(lines) <= 1
    assert code == 0 or lines or command[0] in FINDING, command
    assert all(len(line) < 4200 for line in lines)
    assert "Traceback" not in error
    assert "\x1b[2J" not in error
    shutil.rmtree(folder)
    return command


@pytest.mark.parametrize("make", FILES, ids=lambda make: make.__name__)
def test_no_changed_file_gives_more_than_a_line(make, audited, tmp_path, monkeypatch, capsys):
    synthetic_method.register(monkeypatch)
    monkeypatch.chdir(tmp_path)
    for seed in range(12):
        attempt(make, audited, tmp_path / "file", seed, monkeypatch, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("make", FILES, ids=lambda make: make.__name__)
def test_no_changed_file_of_many_gives_more_than_a_line(make, audited, tmp_path, monkeypatch, capsys):
    synthetic_method.register(monkeypatch)
    monkeypatch.chdir(tmp_path)
    first = int(os.environ.get("MUTATIONS_SEED", "1000"))
    faults = {}
    for seed in range(first, first + int(os.environ.get("MUTATIONS", "1000")) // len(FILES)):
        try:
            attempt(make, audited, tmp_path / f"file-{seed}", seed, monkeypatch, capsys)
        except Exception as error:
            faults[seed] = error
    assert not faults, "\n".join(f"{seed}: {error!r}" for seed, error in faults.items())
