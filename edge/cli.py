"""The ``edge`` command: a table of subcommands, and the one place where errors become exit codes."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from edge.addresses.secrets import redacted
from edge.daemon import logs
from edge.errors import EdgeError

# subcommand -> function, in the order of --help; a module is imported when its command is called or listed
COMMANDS = {
    "demo": "edge.commands.demo:demo",
    "run": "edge.commands.run:run",
    "check": "edge.commands.check:check",
    "probe": "edge.commands.probe:probe",
    "record": "edge.commands.record:record",
    "replay": "edge.commands.replay:replay",
    "swap": "edge.commands.swap:swap",
    "explain": "edge.commands.explain:explain",
    "selftest": "edge.commands.selftest:selftest",
    "doctor": "edge.commands.doctor:doctor",
    "inspect": "edge.commands.inspect:inspect",
    "models": "edge.commands.models:models",
    "bench": "edge.commands.bench:bench",
    "train": "edge.commands.train:train",
    "eval": "edge.commands.eval:evaluate_command",
    "teach": "edge.commands.teach:teach",
    "data": "edge.commands.data:data",
    "calibrate": "edge.commands.calibrate:calibrate",
    "quantize": "edge.commands.quantize:quantize",
    "qat": "edge.commands.qat:qat",
    "lint": "edge.commands.lint:lint",
    "export": "edge.commands.export:export",
    "build": "edge.commands.build:build",
    "track": "edge.commands.track:track",
    "track-eval": "edge.commands.track_eval:track_eval",
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
        single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        single.command(cmd_name)(getattr(importlib.import_module(module), function))
        return typer.main.get_command(single)


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Real-time vision on edge devices: train, quantize, build engines, run them on cameras.",
)


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option(help="Show tracebacks and debug messages.")] = False,
    quiet: Annotated[bool, typer.Option(help="Only warnings and errors.")] = False,
) -> None:
    logs.set_up(logging.DEBUG if debug else logging.WARNING if quiet else logging.INFO)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and end the process: 0 done, 1 failed, 2 wrong arguments, 3 the machine lacks something."""
    sys.exit(run_command(sys.argv[1:] if arguments is None else arguments))


def run_command(arguments: Sequence[str]) -> int:
    """Run the command; its exit code."""
    command: Any = typer.main.get_command(app)
    try:
        result = command.main(args=list(arguments), prog_name="edge", standalone_mode=False)
    except EdgeError as error:
        if "--debug" in arguments:
            logging.exception("failed")
        typer.echo(f"error: {redacted(str(error))}", err=True)
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
