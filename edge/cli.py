"""The ``edge`` command: a table of subcommands, and the one place where errors become exit codes."""

from __future__ import annotations

import difflib
import importlib
import logging
import os
import platform
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from edge.addresses.printable import printable
from edge.addresses.secrets import redacted
from edge.daemon import logs
from edge.errors import EdgeError, UsageError

# group of --help -> subcommand -> function; a module is imported when its command is called or listed
GROUPS = {
    "Run": {
        "demo": "edge.commands.demo:demo",
        "run": "edge.commands.run:run",
        "probe": "edge.commands.probe:probe",
        "discover": "edge.commands.discover:discover",
        "init": "edge.commands.init:init",
        "check": "edge.commands.check:check",
        "swap": "edge.commands.swap:swap",
        "service": "edge.commands.service:service",
        "users": "edge.commands.users:users",
        "analyze": "edge.commands.analyze:analyze",
    },
    "What happened, and how well": {
        "explain": "edge.commands.explain:explain",
        "why": "edge.commands.why:why",
        "what-if": "edge.commands.what_if:what_if",
        "tracks": "edge.commands.tracks:tracks",
        "accuracy": "edge.commands.accuracy:accuracy",
        "certify": "edge.commands.certify:certify",
        "audit": "edge.commands.audit:audit",
        "test": "edge.commands.test:test",
        "night": "edge.commands.night:night",
    },
    "This machine": {
        "doctor": "edge.commands.doctor:doctor",
        "bench": "edge.commands.bench:bench",
        "selftest": "edge.commands.selftest:selftest",
    },
    "Models": {
        "models": "edge.commands.models:models",
        "inspect": "edge.commands.inspect:inspect",
        "lint": "edge.commands.lint:lint",
        "train": "edge.commands.train:train",
        "eval": "edge.commands.eval:evaluate_command",
        "export": "edge.commands.export:export",
        "calibrate": "edge.commands.calibrate:calibrate",
        "quantize": "edge.commands.quantize:quantize",
        "qat": "edge.commands.qat:qat",
        "build": "edge.commands.build:build",
    },
    "Data": {
        "data": "edge.commands.data:data",
        "teach": "edge.commands.teach:teach",
        "capture": "edge.commands.capture:capture",
        "replay": "edge.commands.replay:replay",
        "track": "edge.commands.track:track",
        "track-eval": "edge.commands.track_eval:track_eval",
    },
}
COMMANDS = {name: function for group in GROUPS.values() for name, function in group.items()}
# typer's own words do not fit a line
COMPLETION = {
    "install_completion": "Complete commands in this shell.",
    "show_completion": "Print the shell's script for it.",
}
# what other tools call it
OTHER_WORDS = {
    "analyse": "analyze",
    "archive": "analyze",
    "detect": "run",
    "cameras": "discover",
    "onvif": "discover",
    "scan": "discover",
    "predict": "run",
    "start": "run",
    "serve": "run",
    "val": "eval",
    "validate": "check",
    "benchmark": "bench",
    "info": "inspect",
    "convert": "export",
    "compile": "build",
    "label": "teach",
    "record": "capture",
    "status": "explain",
    "passwd": "users",
    "user": "users",
}


# newer versions of typer carry their own click: the class is found through what both have
_WRONG_ARGUMENTS: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


class LazyGroup(TyperGroup):
    """Finds subcommands in the table above."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module, function = COMMANDS[cmd_name].split(":")
        group = next(title for title, commands in GROUPS.items() if cmd_name in commands)
        single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        single.command(cmd_name, rich_help_panel=group)(getattr(importlib.import_module(module), function))
        return typer.main.get_command(single)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            raise UsageError(f"No such command '{args[0]}'; {_nearest(args[0])}")
        return super().resolve_command(ctx, args)


def _nearest(word: str) -> str:
    close = OTHER_WORDS.get(word) or next(iter(difflib.get_close_matches(word, COMMANDS, n=1)), None)
    return f"did you mean: edge {close}" if close else "the commands are listed by: edge --help"


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Real-time vision on edge devices: train, quantize, build, run on cameras.",
)


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        from importlib.metadata import version

        typer.echo(f"edge {version('edgeloop')}, Python {platform.python_version()}, {platform.machine()}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Print the version and end.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and debug messages.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Only warnings and errors.")] = False,
) -> None:
    logs.set_up(logging.DEBUG if debug else logging.WARNING if quiet else logging.INFO)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and end the process: 0 done, 1 failed, 2 wrong arguments, 3 the machine lacks something."""
    given = sys.argv[1:] if arguments is None else arguments
    if "run" in given:
        # a daemon that has not read its file yet need not read it again
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    code = run_command(given)
    if any(thread.daemon for thread in threading.enumerate()):
        # a thread that hangs in a library is left behind; Python's own end would tear it out of there and abort
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def run_command(arguments: Sequence[str]) -> int:
    """Run the command; its exit code."""
    command: Any = typer.main.get_command(app)
    for option in command.params:
        option.help = COMPLETION.get(option.name, option.help)
    try:
        result = command.main(args=list(arguments), prog_name="edge", standalone_mode=False)
    except EdgeError as error:
        if "--debug" in arguments:
            logging.exception("failed")
        typer.echo(f"error: {printable(redacted(str(error)))}", err=True)
        return error.exit_code
    except _WRONG_ARGUMENTS as error:
        error.show()
        return 2
    except (typer.Abort, KeyboardInterrupt):
        typer.echo("stopped", err=True)
        return 130
    except BrokenPipeError:
        # the reader of our output went away: nobody is left to tell
        sys.stderr.close()
        return 0
    return result if isinstance(result, int) else 0
