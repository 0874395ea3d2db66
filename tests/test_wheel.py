"""What `pip install` gives: the wheel holds presets, checkpoints, page and published numbers, and finds them."""

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

MOST_BYTES = 40_000_000

FEW = "--limit 1 --n 20 --n0 5 --sigma 0.5 --methods rrcm,dds --cost-repetitions 0"

FOUND = """
from importlib import resources
from bench.methods import zoo
from bench.report.published import claims, published_numbers
print(zoo.__file__)
print(zoo.find(None, "mnist5k", "gaussian_sigma_0.5.safetensors"))
print(len(published_numbers("cifar10")), len(claims("cifar10")))
print(resources.files("bench.report.page").joinpath("page.js"))
"""

MISSING = """
from dataclasses import replace
from bench.config.methods import methods
from bench.config.run import load_preset, validate
from bench.data.sets import task_of
from bench.runs.workbench import enter_with
config = validate(replace(load_preset("mnist5k"), methods=tuple(methods())), methods())
print(*(key for key, one in enter_with(config, task_of(config), lambda note: None).items() if one.is_missing))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Return the folder of a fresh environment that holds the wheel; libraries are those of this one."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "-w", folder, ROOT]
    subprocess.run([*pip, *build], check=True, capture_output=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "env"], check=True)
    [site] = (folder / "env" / "lib").glob("*/site-packages")
    [wheel] = folder.glob("*.whl")
    assert wheel.stat().st_size < MOST_BYTES
    subprocess.run([*pip, "install", "--no-deps", "--target", site, wheel], check=True, capture_output=True)
    (site / "libraries.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return folder / "env"


def said(installed, *arguments):
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [installed / "bin" / "python", *arguments]
    return subprocess.run(
        command, cwd=installed, env=clean, check=True, capture_output=True, text=True
    ).stdout


def test_the_wheel_lists_its_presets_by_the_command_that_it_installs(installed):
    [script] = installed.glob("lib/*/site-packages/bin/bench")
    assert "imagenet" in said(installed, script, "list", "presets")


def test_the_wheel_runs_the_main_job_without_the_checkout(installed):
    [script] = installed.glob("lib/*/site-packages/bin/bench")
    results = json.loads(
        said(installed, script, "run", *FEW.split(), "--device", "cpu", "--out", "run", "-q", "--json")
    )
    assert {row["images"] for row in results["acr"]} == {1}
    assert (installed / "run" / "certified_accuracy.tex").is_file()


def test_the_wheel_finds_its_checkpoints_its_page_and_published_numbers(installed):
    module, checkpoint, counts, script = said(installed, "-c", FOUND).splitlines()
    assert all(
        Path(path).is_relative_to(installed) and Path(path).is_file() for path in (module, checkpoint, script)
    )
    assert all(int(count) > 0 for count in counts.split())


def test_the_wheel_has_the_checkpoints_of_all_methods_for_the_main_job(installed):
    assert said(installed, "-c", MISSING).split() == []
