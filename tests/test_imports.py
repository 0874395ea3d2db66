"""The arrows between modules, and that importing has no cost where the command line needs it to have none."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LEVELS = (
    {"errors"},
    {"catalogue", "cost_presets", "philox", "processes", "termination", "types"},
    {
        "appending",
        "augmentation",
        "checkpoints",
        "curves",
        "documents",
        "folders",
        "hardware",
        "markup",
        "network_sizes",
        "noise",
        "overrides",
        "power",
        "published",
        "recipes",
        "stats",
        "zoo",
    },
    {
        "codec",
        "config",
        "counting",
        "data",
        "engine",
        "estimation",
        "plug_in",
        "quick_reading",
        "scalings",
        "subsets",
        "trials",
    },
    {"batches", "origin"},
    {
        "arithmetic",
        "batching",
        "cost",
        "cost_records",
        "logs",
        "metrics",
        "moments",
        "records",
        "registry",
        "smoothing",
        "train",
        "trial_images",
    },
    {
        "api",
        "attack",
        "comparison",
        "cost_plan",
        "cost_work",
        "dispatch",
        "importing",
        "paired",
        "progress",
        "recertify",
        "shards",
        "synthetic",
        "training",
        "trainings",
        "log_check",
    },
    {
        "certifying",
        "cost_estimate",
        "cost_summary",
        "denoiser_trials",
        "equal_accuracy",
        "passport",
        "process_engine",
        "ray_engine",
        "selftest",
    },
    {"cost_run", "doctor", "selftest_method"},
    {
        "cost_figures",
        "cost_tables",
        "curve_figures",
        "doctor_tables",
        "figures",
        "plan",
        "plot_style",
        "published_figures",
        "published_tables",
        "runner",
        "sample_tables",
        "tables",
        "log_check_tables",
    },
    {
        "certifier_cost",
        "cost_plots",
        "cost_report",
        "paired_tables",
        "pareto_figure",
        "rebuild",
        "single",
        "trainings_tables",
        "page_pictures",
        "page_plots",
    },
    {"audit", "cost_request", "replay", "page_data", "trainings_figures"},
    {"audit_log", "audit_tables", "page", "paired_run"},
    {"audit_run"},
    {"display"},
    {"commands"},
    {"cli"},
)
"""Modules of bench from the bottom up; a module imports from levels below its own."""

DRAWN = {
    ("commands", "commands"),
    ("cost_figures", "plot_style"),
    ("curve_figures", "plot_style"),
    ("figures", "cost_figures"),
    ("figures", "plot_style"),
    ("figures", "published_figures"),
    ("published_figures", "plot_style"),
    ("tables", "cost_tables"),
    ("tables", "sample_tables"),
}
"""Imports within a level."""

METHODS_MAY_IMPORT = {
    "augmentation",
    "catalogue",
    "checkpoints",
    "data",
    "errors",
    "noise",
    "plug_in",
    "processes",
    "recipes",
    "train",
    "types",
}


def imports(path):
    """Return the dotted modules that a file imports from this project, those inside functions included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] in ("bench", "baselines", "rrcm")}


def bench_modules(path):
    parts = [name.split(".") for name in imports(path)]
    return {part[1] for part in parts if part[0] == "bench" and len(part) > 1 and is_module(part[1])}


def is_module(name):
    return (ROOT / "bench" / f"{name}.py").exists() or name == "commands"


def level(name):
    return next(number for number, names in enumerate(LEVELS) if name in names)


FILES = sorted((ROOT / "bench").rglob("[!_]*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_bench_modules_import_from_below_only(path):
    module = path.relative_to(ROOT / "bench").parts[0].removesuffix(".py")
    wrong = {
        name for name in bench_modules(path) if level(name) >= level(module) and (module, name) not in DRAWN
    }
    assert not wrong
    assert not any(name.startswith(("baselines", "rrcm")) for name in imports(path))


@pytest.mark.parametrize("package", ["baselines", "rrcm"])
def test_methods_know_only_the_contracts(package):
    for path in sorted((ROOT / package).glob("*.py")):
        assert bench_modules(path) <= METHODS_MAY_IMPORT, path
        if package == "baselines":
            assert not any(name.startswith("rrcm") for name in imports(path)), path


@pytest.mark.parametrize("module", ["bench", "bench.cli", "bench.config", "bench.registry", "bench.stats"])
def test_importing_without_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_file_is_longer_than_400_lines():
    files = [
        path for package in ("bench", "baselines", "rrcm", "tests") for path in (ROOT / package).rglob("*.py")
    ]
    assert {path.name for path in files if len(path.read_text().splitlines()) > 400} == set()
