"""`botplatform store`: move what is stored from one place to another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from botplatform.cli.invocation import invocation_of
from botplatform.errors import SettingsError
from botplatform.store.copying import copy_store
from botplatform.store.opening import open_store
from botplatform.store.sqlite import SqliteEventStore

__all__ = ["app"]

app: Final = typer.Typer(no_args_is_help=True, add_completion=False, help="Move what is stored.")
DIFFERS: Final = 1
"""Exit code when the two journals are not equal."""
TELL_EVERY: Final = 100_000
SHOWN: Final = 5


@app.callback()
def group() -> None:
    """Move what is stored from one place to another."""


@app.command()
def copy(
    ctx: typer.Context,
    source: Annotated[Path, typer.Argument(metavar="FILE", help="The SQLite file to copy; it stays as it is.")],
) -> None:
    """Copy an event store from a SQLite file into the database of storage.url.

    Stop the storage engine first, and start it with storage.url afterwards: it goes on in the log where the copy ends.
    A copy that was interrupted goes on where it stopped. The journals of both are compared at the end.
    """
    storage = invocation_of(ctx).settings().storage
    if storage.url is None:
        raise SettingsError(
            "storage.url is missing: it names the database to copy into, BOTPLATFORM_STORAGE__URL sets it"
        )

    def tell(count: int) -> None:
        if not count % TELL_EVERY:
            typer.echo(f"{count:,} events", err=True)

    with SqliteEventStore(source, read_only=True) as old, open_store(storage) as new:
        copied = copy_store(old, new, tell)
        typer.echo(
            f"copied {copied.events:,} events to {new.where}; its journal has {copied.orders:,} orders and "
            f"{copied.fills:,} executions, and its newest event is number {new.last_sequence():,} of the log"
        )
    if copied.differing:
        shown = ", ".join(copied.differing[:SHOWN])
        typer.echo(
            f"botplatform: {len(copied.differing)} orders or executions are not as in {source}, as {shown}: events of "
            "theirs were deleted, or the file was written to meanwhile; stop storage and copy again",
            err=True,
        )
        raise typer.Exit(DIFFERS)
