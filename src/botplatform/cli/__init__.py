"""The command line: `botplatform`. Each command is a module of its own, imported when it is used."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from botplatform.cli.invocation import Invocation, hoisted
from botplatform.cli.lazy import LazyCommands

__all__ = ["app", "main"]

TERMINATED: Final = 128 + signal.SIGTERM
"""Exit code after SIGTERM, as shells have it."""

app: Final = typer.Typer(
    name="botplatform",
    cls=LazyCommands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:  # noqa: FBT001  # typer hands the flag over
    if wanted:
        from botplatform import __version__  # noqa: PLC0415  # reading it takes as long as everything else

        typer.echo(f"botplatform {__version__}")
        raise typer.Exit


@app.callback()
def start(
    ctx: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(help="YAML file of settings. Default: $BOTPLATFORM_CONFIG, else ./botplatform.yaml if it exists."),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Set one setting, for example feed.seed=3. Can be given more than once."
        ),
    ] = None,
    version: Annotated[  # noqa: ARG001, FBT002  # its callback does the work; an option has a default
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """An event-driven trading platform: engines that talk through events alone, on NATS JetStream.

    Start with `botplatform demo`; `botplatform COMMAND --help` tells more.

    Settings come from a YAML file, from BOTPLATFORM_… variables (nats.url is
    BOTPLATFORM_NATS__URL) and from --set, each stronger than the one before;
    --config and --set may also stand behind the command.
    """
    ctx.obj = Invocation(config, tuple(overrides or ()))


def main() -> None:
    """Run the command line; an error that is expected is one sentence on standard error and an exit code.

    SIGTERM ends also a command that has not begun to listen to it, and even the first process of a container, which
    the kernel spares otherwise.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    app(args=hoisted(sys.argv[1:]), prog_name="botplatform")
