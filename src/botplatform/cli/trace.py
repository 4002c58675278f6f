"""`botplatform trace`: the whole chain of any id, from the event store and the newest part of the log."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple

import typer
from rich.console import Console
from rich.text import Text

from botplatform.cli.invocation import invocation_of
from botplatform.core.event_bus import check_pattern, matches
from botplatform.core.events import Event
from botplatform.errors import BusError, SettingsError, StoreError, UnknownId
from botplatform.settings import Settings
from botplatform.store.sqlite import SqliteEventStore
from botplatform.telemetry.summary import printable
from botplatform.trace import Asked, Chain, Growing, LogTail, Source, Step, StoreSource, find_chain, read_asked
from botplatform.trace.view import heading, step_line, step_object, tree_lines

if TYPE_CHECKING:
    from botplatform.trace.log import LogReader

__all__ = ["trace"]

SCAN: Final = 50_000
NOT_SEEN: Final = 1
"""Exit code when `--timeout` is over and `--until` was not seen."""
CLIENT: Final = "botplatform-events"
"""Name of the connection: who may watch events may trace them."""


class Wanted(NamedTuple):
    """What to show, and for how long."""

    asked: Asked
    follow: bool
    until: str
    timeout_s: float
    scan: int
    as_json: bool


class Places(NamedTuple):
    """Where to look; None for what cannot be reached, and what to say of it."""

    store: SqliteEventStore | None
    log: LogReader | None
    notes: list[str]


def trace(
    ctx: typer.Context,
    event_id: Annotated[
        str,
        typer.Argument(
            metavar="ID", help="A correlation, order, trade, event or trace id, 8 characters of one, or a traceparent."
        ),
    ],
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Show what comes of it as well, as it comes.")] = False,
    until: Annotated[str, typer.Option(help="Follow until an event of this type or pattern: order.filled.")] = "",
    timeout: Annotated[float, typer.Option(min=0, help="Follow for so many seconds; 0 for no limit.")] = 0.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object for each event, causes first.")
    ] = False,
    store: Annotated[
        Path | None, typer.Option(help="Look only in this event store: that of a backtest, or a copy.")
    ] = None,
    scan: Annotated[int, typer.Option(min=1, help="Newest events of the log to look through, at most.")] = SCAN,
) -> None:
    """Show the chain of an id as a tree: what caused what, when, and how long each step took.

    From the event store of the settings, and what the log has beyond it; where one cannot be reached, from the other
    alone, which is said on standard error. Times count from the making of the first event. The line of what was asked
    for is marked. With tracing.ui_url set, the address of the trace in Jaeger is there too.
    """
    settings = invocation_of(ctx).settings()
    wanted = Wanted(
        read_asked(event_id), follow or bool(until), check_pattern(until) if until else "", timeout, scan, as_json
    )
    if store is not None and wanted.follow:
        raise SettingsError("--follow needs the log, and --store means without it: leave one of them out")
    seen = asyncio.run(_traced(settings, wanted, store))
    if not seen:
        raise typer.Exit(NOT_SEEN)


class Shown:
    """What is printed, and whether what was waited for was among it."""

    def __init__(self, settings: Settings, wanted: Wanted) -> None:
        self.wanted = wanted
        self.ended = False
        self._jaeger = str(getattr(getattr(settings, "tracing", None), "ui_url", ""))
        self._console = Console(highlight=False, soft_wrap=True)

    def note(self, notes: list[str]) -> None:
        """Say on standard error what was not looked in."""
        for each in notes:
            typer.echo(f"botplatform: {printable(each)}", err=True)

    def chain(self, chain: Chain) -> None:
        """Show a chain as it is known."""
        for step in chain.steps:
            self._look(step)
            if self.wanted.as_json:
                self._object(step)
        if not self.wanted.as_json:
            for line in (*heading(chain, self._jaeger), Text(), *tree_lines(chain)):
                self._console.print(line)

    def step(self, step: Step) -> None:
        """Show what was added to the chain."""
        self._look(step)
        if self.wanted.as_json:
            self._object(step)
        else:
            self._console.print(step_line(step))

    def _look(self, step: Step) -> None:
        self.ended |= bool(self.wanted.until) and not step.apart and matches(self.wanted.until, step.event.type)

    def _object(self, step: Step) -> None:
        sys.stdout.write(json.dumps(step_object(step, self._jaeger)) + "\n")
        sys.stdout.flush()


async def _traced(settings: Settings, wanted: Wanted, store: Path | None) -> bool:
    """Show the chain; tell whether `--until` was seen, where it was given."""
    async with AsyncExitStack() as stack:
        places = await _reached(stack, settings, store, needs_log=wanted.follow)
        tail, read_to, notes = await _tail(places, wanted.scan)
        sources: list[Source] = [*([] if places.store is None else [StoreSource(places.store)]), tail]
        found = find_chain(wanted.asked, sources)
        shown = Shown(settings, wanted)
        shown.note([*places.notes, *notes])
        if found is None:
            if not wanted.follow:
                raise UnknownId(f"nothing has the id {wanted.asked.shown}: looked in {_looked(places, tail)}")
            growing = Growing(wanted.asked)
        else:
            chain, growing = found
            shown.chain(chain)
            if shown.ended:
                return True
        if wanted.follow:
            assert places.log is not None
            await _follow(places.log, tail, read_to, growing, shown)
        return shown.ended or not wanted.until


async def _reached(stack: AsyncExitStack, settings: Settings, store: Path | None, *, needs_log: bool) -> Places:
    """Open the store and connect to the log; raise when neither can be reached, or one that is needed cannot."""
    if store is not None:
        return Places(stack.enter_context(SqliteEventStore(store, read_only=True)), None, [])
    opened, log, notes = None, None, list[str]()
    missing: StoreError | None = None
    try:
        opened = stack.enter_context(SqliteEventStore(settings.storage.path, read_only=True))
    except StoreError as e:
        missing = e
        notes.append(f"only the log was looked in: {e}")
    try:
        log = await _connected(stack, settings)
    except BusError as e:
        if needs_log:
            raise
        if opened is None:
            raise BusError(f"there is nothing to look in: {missing}; {e}") from e
        notes.append(f"only the event store was looked in: {e}")
    return Places(opened, log, notes)


async def _connected(stack: AsyncExitStack, settings: Settings) -> LogReader:
    from botplatform.bus.jetstream.connection import connect_nats  # noqa: PLC0415  # takes a while to import
    from botplatform.trace.log import LogReader, check_listening  # noqa: PLC0415  # as above

    if settings.bus.backend != "jetstream":
        raise BusError(f"bus.backend is {settings.bus.backend}, whose log ends with its process")
    await check_listening(settings.nats)
    connection = await stack.enter_async_context(await connect_nats(settings.nats, name=CLIENT))
    return LogReader(connection, settings.bus.stream)


async def _tail(places: Places, scan: int) -> tuple[LogTail, int, list[str]]:
    """Read what the log has beyond the store, within bounds; return it, up to where it was read, and what to say."""
    if places.log is None:
        return LogTail([], lambda _subject, _body: None), 0, []
    from botplatform.bus.jetstream.stored import Counters, decode_stored  # noqa: PLC0415  # takes a while to import

    counters = Counters()

    def decode(subject: str, data: bytes) -> Event | None:
        return decode_stored(subject, data, counters)

    end = await places.log.last_sequence()
    stored = 0 if places.store is None else places.store.last_sequence()
    notes = []
    if stored > end:
        notes.append(f"the event store has events of another log than {places.log.where}")
        stored = 0
    begin = max(stored, end - scan)
    if begin > stored:
        notes.append(f"only the newest {scan:,} of {end:,} events of {places.log.where} were looked through (--scan)")
    return LogTail(await places.log.read(begin, end), decode), end, notes


def _looked(places: Places, tail: LogTail) -> str:
    store = f"the event store {places.store.path}" if places.store is not None else ""
    log = f"the newest {len(tail):,} events of {places.log.where}" if places.log is not None else ""
    return " and ".join(filter(None, (store, log)))


async def _follow(log: LogReader, tail: LogTail, after: int, growing: Growing, shown: Shown) -> None:
    """Show what comes, until what was wanted was seen, or the time is over."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(shown.wanted.timeout_s or None):
            async for message in log.follow(after):
                found = tail.about(message, growing.asked, growing.chains)
                step = None if found is None else growing.add(found)
                if step is not None:
                    shown.step(step)
                if shown.ended:
                    return
