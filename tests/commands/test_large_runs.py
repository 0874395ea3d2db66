"""The scripts of the guide on large runs, as written: a shell and our command line understand them."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from bench.cli import cli
from bench.records.shards import parse_shard

PAGE = (Path(__file__).parents[2] / "bench" / "guide" / "large-runs.md").read_text()
SCRIPTS = re.findall(r"```bash\n(.*?)```", PAGE, flags=re.DOTALL)
COMMANDS = [
    line.removesuffix('"').partition('--wrap "')[2] or line
    for block in re.findall(r"```\w*\n(.*?)```", PAGE, flags=re.DOTALL)
    for line in block.splitlines()
    if "bench " in line
]
ENVIRONMENT = {
    "SLURM_ARRAY_TASK_ID": "3",
    "SLURM_JOB_NODELIST": "node[1-4]",
    "SLURM_NNODES": "4",
    "head": "node1",
    "others": "3",
    "port": "6379",
}
[SHARDS], [RAY] = ([script for script in SCRIPTS if word in script] for word in ("--array", "ray start"))


def words(line):
    """Return a line's words after the shell has put values in; a line in the background without its end."""
    for name, value in ENVIRONMENT.items():
        line = line.replace(f"${name}", value)
    return shlex.split(line.removesuffix("&").strip())


def parsed(line):
    """Return the parameters of a line that runs `bench`; raise click's error where one is unknown."""
    every = words(line)
    name, *options = every[every.index("bench") + 1 :]
    return cli.commands[name].make_context(name, options).params


def lines_with(script, text):
    return [line for line in script.splitlines() if text in line]


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_has_options_of_ours(line):
    assert parsed(line)


@pytest.mark.parametrize("script", [SHARDS, RAY], ids=["shards", "ray"])
def test_scripts_are_bash_and_their_commands_ours(script):
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    directives = lines_with(script, "#SBATCH")
    assert (
        script.splitlines()[1 : 1 + len(directives)] == directives
    )  # SLURM reads them up to the first command
    assert all(line.startswith("#SBATCH --") for line in directives)
    [command] = lines_with(script, "bench ")
    assert parsed(command)["preset"] == "imagenet"
    assert command.startswith("exec ")  # so that SLURM's SIGTERM to the batch shell is the command's


def test_the_array_has_as_many_tasks_as_shards():
    [command] = lines_with(SHARDS, "bench ")
    shard = parse_shard(parsed(command)["shard"])
    assert f"#SBATCH --array=1-{shard.count}" in SHARDS
    assert shard.number == 3


def test_head_workers_and_run_meet_at_one_port():
    head, others = (words(line) for line in lines_with(RAY, "ray start"))
    [waiting], [command] = lines_with(RAY, "ray status"), lines_with(RAY, "bench ")
    assert {"--head", "--port=6379", "--nodelist=node1", "--nodes=1"} <= set(head)
    assert {"--address=node1:6379", "--exclude=node1", "--nodes=3", "--ntasks=3"} <= set(others)
    assert "--address=node1:6379" in words(waiting)
    assert parsed(command)["address"] == "node1:6379"
    assert parsed(command)["engine"] == "ray"


def test_as_many_workers_are_asked_for_as_the_nodes_have_gpus():
    numbers = {
        name: int(value) for name, value in re.findall(r"#SBATCH --([\w-]+)=(\d+)$", RAY, re.MULTILINE)
    }
    [command] = lines_with(RAY, "bench ")
    taken = parsed(command)
    assert taken["workers"] * taken["gpus_per_worker"] == numbers["nodes"] * numbers["gpus-per-node"]
