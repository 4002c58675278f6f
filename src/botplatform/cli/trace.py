"""`botplatform trace`: the whole chain of any id, from the event store and the newest part of the log."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple

import typer

from botplatform.cli.invocation import invocation_of
from botplatform.core.events import Event
from botplatform.core.patterns import check_pattern, matches
from botplatform.errors import BusError, SettingsError, StoreError, UnknownId
from botplatform.store.event_store import EventStore
from botplatform.store.opening import open_reader
from botplatform.store.sqlite import SqliteEventStore
from botplatform.telemetry.summary import printable
from botplatform.trace import Asked, Chain, Growing, LogTail, Source, Step, StoreSource, find_chain, read_asked
from botplatform.trace.listening import check_listening
from botplatform.trace.view import Line, heading, step_line, step_object, tree_lines

if TYPE_CHECKING:
    from botplatform.settings import Settings
    from botplatform.trace.log import LogReader

__all__ = ["trace"]

SCAN: Final = 50_000
COLOURED: Final = ("FORCE_COLOR", "TTY_COMPATIBLE")
"""Variables by which a person wants colours though it is not a terminal."""
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

    store: EventStore | None
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
        self._jaeger = settings.tracing.ui_url
        self._print = _printing()

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
            for line in (*heading(chain, self._jaeger), Line(()), *tree_lines(chain)):
                self._print(line)

    def step(self, step: Step) -> None:
        """Show what was added to the chain."""
        self._look(step)
        if self.wanted.as_json:
            self._object(step)
        else:
            self._print(step_line(step))

    def _look(self, step: Step) -> None:
        self.ended |= bool(self.wanted.until) and not step.apart and matches(self.wanted.until, step.event.type)

    def _object(self, step: Step) -> None:
        sys.stdout.write(json.dumps(step_object(step, self._jaeger)) + "\n")
        sys.stdout.flush()


def _printing() -> Callable[[Line], None]:
    """Return what prints a line: in colour on a terminal, where that is worth the import."""
    if not sys.stdout.isatty() and not any(os.environ.get(name) for name in COLOURED):
        return _print_plain
    from rich.console import Console  # noqa: PLC0415  # takes longer to import than to find the chain
    from rich.text import Text  # noqa: PLC0415  # as above

    console = Console(highlight=False, soft_wrap=True)
    return lambda line: console.print(Text.assemble(*line.parts))


def _print_plain(line: Line) -> None:
    sys.stdout.write(line.plain + "\n")
    sys.stdout.flush()


async def _traced(settings: Settings, wanted: Wanted, store: Path | None) -> bool:
    """Show the chain; tell whether `--until` was seen, where it was given."""
    shown = Shown(settings, wanted)
    async with AsyncExitStack() as stack:
        places = await _reached(stack, settings, store, needs_log=wanted.follow)
        shown.note(places.notes)
        end = 0 if places.log is None else await places.log.last_sequence()
        tail, notes = await _tail(places, end, wanted.scan)
        shown.note(notes)
        growing = _show(places, tail, shown)
        if growing is None and not wanted.follow:
            raise UnknownId(f"nothing has the id {wanted.asked.shown}: looked in {_looked(places, tail)}")
        if wanted.follow and not shown.ended:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wanted.timeout_s or None):
                    await _follow(places, tail, end, growing, shown)
    return shown.ended or not wanted.until


def _show(places: Places, tail: LogTail, shown: Shown) -> Growing | None:
    """Show the chain as it is; None when nothing has the id."""
    sources: list[Source] = [*([] if places.store is None else [StoreSource(places.store)]), tail]
    found = find_chain(shown.wanted.asked, sources)
    if found is None:
        return None
    shown.chain(found[0])
    return found[1]


async def _reached(stack: AsyncExitStack, settings: Settings, store: Path | None, *, needs_log: bool) -> Places:
    """Open the store and connect to the log; raise when neither can be reached, or one that is needed cannot."""
    if store is not None:
        return Places(stack.enter_context(SqliteEventStore(store, read_only=True)), None, [])
    opened, log, notes = None, None, list[str]()
    missing: StoreError | None = None
    try:
        opened = stack.enter_context(open_reader(settings.storage))
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
    if settings.bus.backend != "jetstream":
        raise BusError(f"bus.backend is {settings.bus.backend}, whose log ends with its process")
    await check_listening(settings.nats)
    from botplatform.bus.jetstream.connection import connect_nats  # noqa: PLC0415  # takes a while to import
    from botplatform.trace.log import LogReader  # noqa: PLC0415  # as above

    connection = await stack.enter_async_context(await connect_nats(settings.nats, name=CLIENT))
    return LogReader(connection, settings.bus.stream)


async def _tail(places: Places, end: int, scan: int) -> tuple[LogTail, list[str]]:
    """Read what the log has beyond the store, up to `end` and within bounds; return it, and what to say of it."""
    log = places.log
    if log is None:
        return LogTail([], lambda _subject, _body: None), []
    from botplatform.bus.jetstream.stored import Counters, decode_stored  # noqa: PLC0415  # takes a while to import

    counters = Counters()

    def decode(subject: str, data: bytes) -> Event | None:
        return decode_stored(subject, data, counters)

    stored = 0 if places.store is None else places.store.last_sequence()
    notes = []
    if stored > end:
        notes.append(f"the event store has events of another log than {log.where}")
        stored = 0
    begin = max(stored, end - scan)
    if begin < (gone := await log.trimmed()):
        notes.append(f"{log.where} was trimmed up to {gone:,}: what came before is in the event store, if anywhere")
    if begin > stored:
        notes.append(f"only the newest {scan:,} of {end:,} events of {log.where} were looked through (--scan)")
    return LogTail(await log.read(begin, end), decode), notes


def _looked(places: Places, tail: LogTail) -> str:
    store = f"the event store {places.store.where}" if places.store is not None else ""
    log = f"the newest {len(tail):,} events of {places.log.where}" if places.log is not None else ""
    return " and ".join(filter(None, (store, log)))


async def _follow(places: Places, tail: LogTail, after: int, growing: Growing | None, shown: Shown) -> None:
    """Show what comes, until what was wanted was seen; an id that nothing has yet is waited for."""
    assert places.log is not None
    async for message in places.log.follow(after):
        found = tail.about(message, shown.wanted.asked, () if growing is None else growing.chains)
        if found is None:
            continue
        if growing is None:  # what came before it is of its chain as well
            newer, _ = await _tail(places, message.sequence, shown.wanted.scan)
            growing = _show(places, newer, shown)
        elif (step := growing.add(found)) is not None:
            shown.step(step)
        if shown.ended:
            return
