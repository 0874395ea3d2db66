"""The commands for a GPU, in results/cost/README.md and tests/on_a_gpu.sh, are ones that can be run there."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from bench.cli import cli
from bench.commands.cost import _mode

ROOT = Path(__file__).parents[2]
README, SCRIPT = ROOT / "results" / "cost" / "README.md", ROOT / "tests" / "on_a_gpu.sh"
NINE_MINUTES = 540

pytestmark = pytest.mark.skipif(not README.exists(), reason="a source distribution holds no results")


def table():
    """Return (command, seconds of one call) of each row, in order."""
    rows = re.findall(r"^\| \d+ \| `(.+?)` \| (?:\d+ x )?(\d+) \| .+ \|$", README.read_text(), re.MULTILINE)
    return [(command, int(seconds)) for command, seconds in rows]


def in_script():
    """Return the commands of `bench` in the script, and the seconds after which each part of it is ended."""
    parts = re.findall(r'^part "\w+" (\d+) (.+)$', SCRIPT.read_text(), re.MULTILINE)
    commands = [command.replace("python -m bench.cli", "bench") for _, command in parts]
    return [command for command in commands if command.startswith("bench ")], [
        int(limit) for limit, _ in parts
    ]


def test_there_are_ten_commands_at_most_and_none_takes_more_than_nine_minutes():
    rows = table()
    assert 5 <= len(rows) <= 10
    assert max(seconds for _, seconds in rows) <= NINE_MINUTES
    assert sum(in_script()[1]) <= dict(rows)["bash tests/on_a_gpu.sh"]


@pytest.mark.parametrize("command", [one for one, _ in table() if one.startswith("bench ")] + in_script()[0])
def test_each_command_is_understood(command):
    _, name, *arguments = shlex.split(command.replace("--index I", "--index 3"))
    context = cli.commands[name].make_context(name, arguments)
    if name == "cost":
        _mode(context)
        limit = context.params["max_seconds"]
        assert context.params["certifier"] or limit <= NINE_MINUTES


def test_the_script_is_one_that_bash_reads():
    assert subprocess.run(["bash", "-n", SCRIPT], check=False).returncode == 0
    assert "pytest -v -m gpu" in SCRIPT.read_text()
    assert len(in_script()[0]) == 1
