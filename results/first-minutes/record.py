"""Type README's commands in a fresh clone and environment, in a terminal of 80 columns, and record what it shows.

python results/first-minutes/record.py [LOG]      (a POSIX system; half an hour; needs pyte, a terminal emulator)

Writes commands.md and recording.txt beside this file. LOG: the published log that `bench check-log LOG.tsv` reads.
"""

import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from fcntl import ioctl
from pathlib import Path
from struct import pack
from termios import TIOCSWINSZ

import pyte

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
COLUMNS, LINES = 80, 24

WHOLE = ("pip install", "bench run  ")
"""Commands that run to their end; every other one is interrupted by Ctrl-C after SECONDS, `pytest` too."""

SECONDS = 60

MYNET = """from torch import nn


def make():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
"""


@dataclass(frozen=True, kw_only=True)
class Typed:
    """A command, its seconds, its exit code, whether it was interrupted, its screen, its widest line."""

    command: str
    seconds: float
    code: int
    is_interrupted: bool
    screen: str
    width: int


def commands(readme: str) -> list[str]:
    """Return the shell commands of README in its order: those of its blocks, then those of its tables and sentences."""
    blocks = [text for language, text in re.findall(r"```(\w*)\n(.*?)```", readme, re.DOTALL) if not language]
    text = re.sub(r"```.*?```", "", readme, flags=re.DOTALL)
    lines = [line.split(" #")[0].strip() for block in blocks for line in block.splitlines()]
    lines = [part for line in lines for part in line.split(" && ")]
    return list(dict.fromkeys([*lines, *re.findall(r"`(bench [^`A-Z]*[^`]*)`", text)]))


def typed(command: str, folder: Path, environment: dict[str, str]) -> Typed:
    """Run a command in a terminal, interrupted after SECONDS unless it is one of WHOLE."""
    started = time.monotonic()
    child, master = pty.fork()
    if child == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a recorder in the background ignores it
        os.chdir(folder)
        os.execvpe("bash", ["bash", "-c", command], environment)
    ioctl(master, TIOCSWINSZ, pack("HHHH", LINES, COLUMNS, 0, 0))
    is_whole = any(f"{command}  ".startswith(start) for start in WHOLE)
    raw, is_interrupted = b"", False
    while True:
        if not is_interrupted and not is_whole and time.monotonic() - started > SECONDS:
            is_interrupted = True
            os.write(master, b"\x03")
        if not select.select([master], [], [], 0.2)[0]:
            continue
        try:
            part = os.read(master, 65536)
        except OSError:  # Linux says so when the terminal's last process has ended
            break
        if not part:
            break
        raw += part
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    seconds = time.monotonic() - started
    screen, width = seen(raw.decode(errors="replace"), folder)
    return Typed(
        command=command, seconds=seconds, code=code, is_interrupted=is_interrupted, screen=screen, width=width
    )


def seen(output: str, folder: Path) -> tuple[str, int]:
    """Return what a terminal shows of an output, with all that scrolled out of it, and the width of the widest line."""
    screen = pyte.HistoryScreen(COLUMNS, LINES, history=100_000, ratio=1.0)
    pyte.Stream(screen).feed(output)
    scrolled = ["".join(row[column].data for column in range(COLUMNS)) for row in screen.history.top]
    text = "\n".join(line.rstrip() for line in [*scrolled, *screen.display]).rstrip()
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07", "", output)
    width = max((len(line) for line in re.split(r"[\r\n]+", plain)), default=0)
    return text.replace(str(folder.parent), "~"), width


def newcomer(folder: Path) -> tuple[Path, dict[str, str]]:
    """Make the clone, the virtual environment and the module that README's text speaks of."""
    clone, environment = folder / "rrcm-bench", folder / "environment"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    for log in sys.argv[1:]:
        shutil.copy(log, clone / "LOG.tsv")
    kept = {name: os.environ[name] for name in ("HOME", "LANG", "PIP_INDEX_URL") if name in os.environ}
    path = f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return clone, {**kept, "PATH": path, "TERM": "xterm", "PYTHONIOENCODING": "utf-8"}


def table(recorded: list[Typed]) -> str:
    """Return the table of README.md."""
    rows = ["| command | seconds | exit code | widest line |", "| --- | ---: | ---: | ---: |"]
    for one in recorded:
        end = "Ctrl-C" if one.is_interrupted else str(one.code)
        width = "" if one.command.startswith(("pip", "pytest")) else str(one.width)
        rows.append(f"| `{one.command.replace('|', chr(92) + '|')}` | {one.seconds:.1f} | {end} | {width} |")
    return "\n".join(rows) + "\n"


def main() -> None:
    """Record all commands of README."""
    with tempfile.TemporaryDirectory() as temporary:
        clone, environment = newcomer(Path(temporary))
        recorded = []
        for command in commands((ROOT / "README.md").read_text()):
            if "mynet" in command:
                (clone / "mynet.py").write_text(MYNET)
            recorded.append(typed(command, clone, environment))
            write(recorded)
            print(f"{recorded[-1].seconds:7.1f} s  exit {recorded[-1].code:3}  {command}", flush=True)


def write(recorded: list[Typed]) -> None:
    """Write recording.txt and commands.md beside this file."""
    shown = [
        one for one in recorded if not one.command.startswith(("pip", "pytest"))
    ]  # their lines are not ours
    text = "\n\n".join(f"$ {one.command}\n{one.screen}\n[{one.seconds:.1f} s]" for one in shown)
    (HERE / "recording.txt").write_text(text + "\n")
    (HERE / "commands.md").write_text(table(recorded))


if __name__ == "__main__":
    main()
