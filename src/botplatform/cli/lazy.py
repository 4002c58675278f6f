"""The group of all commands: lists them without importing them, and says expected errors in one sentence."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from botplatform.errors import BotPlatformError

INTERRUPTED: Final = 130
"""Exit code after Ctrl-C, as shells have it."""


class Command(NamedTuple):
    """Where a command is."""

    module: str
    """Below `botplatform.cli`."""
    attribute: str
    """A function, or a `typer.Typer` of several commands."""
    summary: str
    """What it does, in one line of the list of commands."""


COMMANDS: Final = {
    "demo": Command("demo", "demo", "See everything at work: market, strategies, orders and profit, live."),
    "backtest": Command("backtest", "backtest", "Run the engines over recorded market data, as fast as they go."),
    "run": Command("run", "run", "Run engines against the configured bus until stopped."),
    "setup": Command("run", "setup", "Create the streams, consumers and buckets; can be repeated."),
    "venue": Command("venue", "venue", "Run the paper venue as a process of its own, with a durable book."),
    "halt": Command("run", "halt", "Stop trading: only cancels pass, until resumed."),
    "reduce": Command("run", "reduce", "Let only orders pass that cut exposure, until resumed."),
    "resume": Command("run", "resume", "Let all orders pass again."),
    "permissions": Command("permissions", "permissions", "Print the NATS permissions that engines and people need."),
    "load": Command("load", "load", "Publish a synthetic market at a steady rate."),
    "audit": Command("audit", "audit", "Count what is missing, doubled or out of order in the log."),
    "probe": Command("probe", "probe", "Send one chain through every engine, without an order, and wait for it."),
    "trace": Command("trace", "trace", "Show the whole chain of any id: what caused what, and when."),
    "events": Command("events", "app", "Watch, decode and publish events."),
    "dlq": Command("dlq", "app", "Look at events that no engine could handle, and decide what becomes of them."),
    "store": Command("store", "app", "Copy the event store from a file into a database."),
    "config": Command("config", "app", "Show and check the settings."),
}


class LazyCommands(TyperGroup):
    """The commands of `COMMANDS`, each imported when it is called."""

    _listing = False

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002  # click's signature
        """Name all commands, the ones for newcomers first."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002  # click's signature
        """Import a command; while they are only listed, return its summary."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        if self._listing:
            return TyperCommand(cmd_name, help=entry.summary)
        found = getattr(import_module(f"botplatform.cli.{entry.module}"), entry.attribute)
        if not isinstance(found, typer.Typer):
            single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
            single.command(cmd_name)(found)
            found = single
        command = typer.main.get_command(found)
        command.name = cmd_name
        return command

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help without importing the commands."""
        self._listing = True
        try:
            super().format_help(ctx, formatter)
        finally:
            self._listing = False

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        """Complete a command's name without importing the commands."""
        self._listing = True
        try:
            return super().shell_complete(ctx, incomplete)
        finally:
            self._listing = False

    def invoke(self, ctx: Any) -> Any:
        """Run the command; say an expected error in one sentence on standard error."""
        try:
            return super().invoke(ctx)
        except BotPlatformError as e:
            typer.echo(f"botplatform: {' '.join(str(e).split())}", err=True)
            raise typer.Exit(e.exit_code) from e
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
