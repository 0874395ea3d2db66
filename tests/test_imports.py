"""The arrows between packages, and that importing has no cost where the command line needs it to have none."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from bench.config.methods import BUILT_IN

ROOT = Path(__file__).parents[1]

ORDER = (
    "protocol types errors",
    "smoothing | config | device",
    "data | records",
    "training",
    "report | methods",
    "runs",
    "cost | checks",
    "commands",
    "cli",
)
"""Packages of bench from the bottom up: a module imports its own package and the lines below, never its neighbours."""

LEVEL = {name: level for level, line in enumerate(ORDER) for name in line.replace("|", "").split()}

KIT = {"bench.types", "bench.errors", "bench.smoothing", "bench.training", "bench.config.names"}
"""What the files of methods may import of bench."""

PATHS = [
    path for package in ("bench", "baselines", "rrcm") for path in sorted((ROOT / package).rglob("*.py"))
]


def imports(path):
    """Return the dotted modules of this project that a file imports, those inside functions included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports by a relative name"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] in ("bench", "baselines", "rrcm")}


def part(path):
    return path.relative_to(ROOT).with_suffix("").parts[1]


def test_bench_imports_from_below_only():
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in PATHS
        if part(path) in LEVEL
        for name in imports(path)
        if not name.startswith("bench.")
        or (name.split(".")[1] != part(path) and LEVEL[name.split(".")[1]] >= max(LEVEL[part(path)], 1))
    ]
    assert not wrong


def test_methods_know_the_kit_alone():
    wrong = []
    for package, more in (("baselines", set()), ("rrcm", {"baselines.consistency"})):
        allowed = tuple(f"{one}." for one in KIT | more | {package})
        for path in (ROOT / package).rglob("*.py"):
            found = [name for name in imports(path) if not f"{name}.".startswith(allowed)]
            wrong += [f"{path.relative_to(ROOT)} imports {name}" for name in found]
    assert not wrong


BASELINES = ("networks", "parts noisy", "purifiers", "sizes")
"""What is below the methods in baselines/, from the bottom up; the methods are above all of it."""


def test_baselines_import_from_below_only():
    level = {name: number for number, line in enumerate(BASELINES) for name in line.split()}
    for path in (ROOT / "baselines").rglob("*.py"):
        mine = level.get(part(path), len(BASELINES))
        used = {name.split(".")[1] for name in imports(path) if name.startswith("baselines.")} - {part(path)}
        assert not {name for name in used if level.get(name, len(BASELINES)) >= mine < len(BASELINES)}, path


def test_every_module_of_bench_has_a_level():
    top = {
        path.stem if path.suffix else path.name
        for path in (ROOT / "bench").iterdir()
        if path.suffix in ("", ".py")
    }
    assert top - {"__init__", "__pycache__", "guide"} == set(LEVEL)


HEAVY = "sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
TORCHLESS = (
    "bench bench.cli bench.commands.printing bench.config.run bench.methods.registry "
    "bench.report.tables.accuracy bench.smoothing.stats"
)


@pytest.mark.parametrize("module", TORCHLESS.split())
def test_importing_without_torch(module):
    code = f"import sys, {module}; {HEAVY}"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


NOT_IMPORTED = {
    "--help": "numpy torch rich",
    "list methods": "numpy torch",
    "list datasets": "numpy torch",
    "list presets": "numpy torch",
    "list models": "numpy torch",
    "list recipes": "numpy torch",
    "status results/mnist5k": "torch matplotlib pandas scipy.optimize",
    "compare results/mnist5k": "torch matplotlib seaborn scipy.optimize",
}
"""Command -> what it has no use for, and would wait for."""


@pytest.mark.parametrize(("command", "heavy"), NOT_IMPORTED.items())
def test_a_command_imports_what_it_uses(command, heavy):
    code = (
        f"import sys; from bench.cli import cli; cli({command.split()}, standalone_mode=False); "
        f"sys.exit(', '.join({set(heavy.split())} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT, capture_output=True, text=True)
    assert not done.stderr.strip()


NAMES_METHODS = {"config/methods.py", "cost/presets.py", "report/rates.py"}
"""The table of built-in methods, the presets of costs, and the reference of speedups."""


def test_bench_knows_no_method():
    known = []
    for path in (ROOT / "bench").rglob("*.py"):
        nodes = ast.walk(ast.parse(path.read_text()))
        texts = {
            node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        named = {text for text in texts if text in BUILT_IN or text.startswith(("baselines.", "rrcm."))}
        known += [(str(path.relative_to(ROOT / "bench")), name) for name in named]
    assert {path for path, _ in known} == NAMES_METHODS, known


def test_folders_and_files_can_be_taken_in_at_a_glance():
    folders = {path.parent for path in PATHS}
    crowded = [
        folder
        for folder in folders
        if len([*folder.glob("[!_]*.py")]) > (13 if folder.name == "rrcm" else 12)  # rrcm mirrors its paper
    ]
    long = [
        path for path in (*PATHS, *(ROOT / "tests").rglob("*.py")) if len(path.read_text().splitlines()) > 400
    ]
    assert not crowded
    assert not long
