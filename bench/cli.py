"""The command line: `bench --help` lists the commands; each group of them has a file in `bench/commands/`.

Only the commands print, and only this file exits. Results go to stdout, progress to stderr.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from bench.commands import checks, cost, doctor, images, logs, names, report, run, train
from bench.commands.terminal.help import Sectioned
from bench.commands.terminal.streams import replace_lacking
from bench.device.heap import keep_memory
from bench.errors import BenchError, TerminatedError, UsageError, clipped, plain

LONGEST = 4000
"""Characters of a message, at most."""

ALIASES = {"import": "import-log", "export": "export-log"}
"""Shorter names that are understood, and not listed."""


READERS = ("report", "compare", "status")
"""Commands that run no network: what they free is the system's again, so that a million records fit."""

CONTINUED = ("run", "train", "cost", "audit")
"""Commands that continue where they stopped when they are repeated."""


class Commands(Sectioned):
    """A group that lists its commands in sections and hints at mistyped ones."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order of their definition."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command, or fail with the nearest one."""
        from bench.config.names import nearest_hint

        args = [ALIASES.get(name, name) for name in args[:1]] + args[1:]
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            raise click.UsageError(
                f"unknown command {args[0]!r}; {nearest_hint(args[0], self.commands)}", ctx
            )
        return super().resolve_command(ctx, args)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="rrcm-bench", prog_name="bench")
def cli() -> None:
    """Certify image classifiers by randomized smoothing under one protocol, and measure what that costs.

    Start with `bench run`: it needs no network, no GPU and about 6 minutes. `bench guide` is the manual.
    """


def main() -> None:
    """Run the command line.

    Exit codes: 0 done, 1 a BenchError (one line on stderr), 2 wrong usage, 130 Ctrl-C, 143 SIGTERM.
    """
    replace_lacking()
    if sys.argv[1:2] not in ([name] for name in READERS):
        keep_memory()
    try:
        _check_arguments(sys.argv[1:])
        code = cli.main(standalone_mode=False)
    except UsageError as error:
        _fail(str(error), 2)
    except TerminatedError as error:
        _fail(str(error), 143)
    except BenchError as error:
        _fail(str(error), 1)
    except click.exceptions.NoArgsIsHelpError as error:  # its message is the whole help
        click.echo(error.format_message())
        sys.exit(error.exit_code)
    except click.ClickException as error:
        _fail(error.format_message(), error.exit_code)
    except OSError as error:  # a full disk or a read-only folder, wherever it is met
        _fail(f"{error}{_kept()}", 1)
    except (click.Abort, KeyboardInterrupt):  # before RuntimeError, which Abort is
        _fail(f"interrupted{_kept()}", 130)
    except SystemExit:
        if "_BENCH_COMPLETE" in os.environ:  # click ends so where a shell completes a word; no command does
            raise
        _fail(f"the code of a model has called sys.exit: remove that call{_kept()}", 1)
    except (RuntimeError, MemoryError) as error:
        # A signal that torch met while it wrote a file, which it then could not close.
        ended = error.__context__
        if isinstance(ended, KeyboardInterrupt):
            _fail(f"interrupted{_kept()}", 130)
        if isinstance(ended, TerminatedError):
            _fail(str(ended), 143)
        if not _is_out_of_memory(error):
            raise
        _fail(
            f"out of memory ({error}): everything certified is kept; repeat the command with a smaller "
            "--batch-size, or on a device with more memory",
            1,
        )
    sys.exit(code if isinstance(code, int) else 0)


def _kept() -> str:
    """Return what is kept, for a command that continues when it is repeated; "" for others."""
    if sys.argv[1:2] not in ([name] for name in CONTINUED):
        return ""
    return "; everything certified is kept, repeat the command to continue"


def _check_arguments(arguments: Sequence[str]) -> None:
    """Refuse bytes that are no text: the command line is kept in headers, which are text.

    Raises:
        UsageError: an argument, such as a path, is not UTF-8.
    """
    for argument in arguments:
        if any("\ud800" <= character <= "\udfff" for character in argument):
            raise UsageError(
                f"{argument.encode('utf-8', 'backslashreplace').decode()} is no text in UTF-8: rename it"
            )


def _is_out_of_memory(error: RuntimeError | MemoryError) -> bool:
    from bench.device.batching import is_out_of_memory

    return isinstance(error, MemoryError) or is_out_of_memory(error)


def _fail(message: str, code: int) -> None:
    click.echo(f"bench: {clipped(plain(' '.join(message.split())), LONGEST)}", err=True)
    sys.exit(code)


for command in (
    run.run,
    train.train,
    train.curves,
    report.report,
    report.compare,
    run.status,
    run.merge,
    run.plan,
    report.readme,
    logs.import_log,
    logs.export_log,
    logs.check_log,
    images.certify,
    images.predict,
    checks.recertify,
    checks.replay,
    checks.audit,
    checks.selftest,
    cost.cost,
    train.import_checkpoint,
    doctor.doctor,
    names.list_names,
    names.guide,
    names.completion,
):
    cli.add_command(command)


if __name__ == "__main__":
    main()
