"""`botplatform events`: watch events as JSON lines, decode one, publish one by hand."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import typer

from botplatform.cli.invocation import invocation_of
from botplatform.errors import BusError, InvalidEvent

if TYPE_CHECKING:
    from botplatform.bus.jetstream import JetStreamEventBus
    from botplatform.core.events import Event
    from botplatform.settings import Settings

app: Final = typer.Typer(no_args_is_help=True, add_completion=False, help="Watch, decode and publish events.")

MAX_WAITING: Final = 65_536
"""Events that wait for a slow reader before the bus drops and counts more."""
MANY: Final = ("market.snapshot", "signal.snapshot", "system.heartbeat")
"""What nearly all of a log is."""
MAX_BYTES: Final = 8 * 1024 * 1024
"""Largest input that is read, in bytes."""


class Wanted(NamedTuple):
    """Which events to show."""

    pattern: str = "*"
    symbol: str = ""
    correlation_id: str = ""

    def means(self, event: Event) -> bool:
        """Tell whether to show an event of the pattern."""
        if self.correlation_id and event.correlation_id != self.correlation_id:
            return False
        if not self.symbol or self.symbol in (event.key, getattr(event.payload, "symbol", "")):
            return True
        return self.symbol in getattr(event.payload, "positions", ())


class Given(NamedTuple):
    """An event written by hand."""

    event: Event
    place: str
    """Where it stands, for people."""
    named: bool
    """It came with an id of its own."""


@app.command()
def tail(
    ctx: typer.Context,
    pattern: Annotated[str, typer.Argument(help="A type (order.filled), a domain (order.*) or everything.")] = "*",
    *,
    symbol: Annotated[str, typer.Option(help="Only events of this symbol.")] = "",
    correlation_id: Annotated[str, typer.Option(help="Only events of this chain.")] = "",
    limit: Annotated[int, typer.Option(min=0, help="Stop after so many events; 0 for no limit.")] = 0,
    from_start: Annotated[bool, typer.Option("--from-start", help="Begin with what the log still holds.")] = False,
) -> None:
    """Print events as JSON lines, as they are published, until Ctrl-C.

    For example: botplatform events tail 'order.*' --symbol BTCUSDT | jq .payload.status
    """
    from botplatform.core.patterns import check_pattern  # noqa: PLC0415  # `decode` starts faster without it

    settings = invocation_of(ctx).settings()
    wanted = Wanted(check_pattern(pattern), symbol, correlation_id)
    asyncio.run(_tail(settings, wanted, limit, from_start=from_start))


@app.command()
def decode(
    *, pretty: Annotated[bool, typer.Option("--pretty", help="Print over several lines, for people.")] = False
) -> None:
    """Print one protobuf message from standard input as JSON.

    For example: nats sub 'order.*' --translate 'botplatform events decode'
    """
    from botplatform.core.events import from_wire  # noqa: PLC0415  # the help is faster without it
    from botplatform.core.json_form import to_dict, to_json  # noqa: PLC0415  # as above

    data = _limited(sys.stdin.buffer.read(MAX_BYTES + 1), "standard input")
    if not data:
        raise InvalidEvent("standard input is empty: pipe one protobuf message into it")
    event = from_wire(data)
    if pretty:
        import json  # noqa: PLC0415  # only here

        typer.echo(json.dumps(to_dict(event), indent=2, ensure_ascii=False))
    else:
        typer.echo(to_json(event))


@app.command()
def publish(
    ctx: typer.Context,
    file: Annotated[
        str, typer.Argument(help="File with one event as JSON, or one per line; - for standard input.")
    ] = "-",
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only check and print what would be published.")] = False,
) -> None:
    """Publish events written by hand as JSON; all are checked before the first one goes out.

    A missing timestamp is now, a missing source "cli"; a missing id and correlation_id are made up. What was
    published is printed. An event whose id the log has already is not published again, which is said; when the log
    has another event under that id, nothing is published. For example:
    echo '{"type": "notification.alert", "payload": {"text": "hello"}}' | botplatform events publish
    """
    from botplatform.core.json_form import to_json  # noqa: PLC0415  # `decode` starts faster without it

    given = _read_events(file)
    if not dry_run:
        given = asyncio.run(_publish(invocation_of(ctx).settings(), given))
    for each in given:
        typer.echo(to_json(each.event))


async def connected(settings: Settings) -> JetStreamEventBus:
    """Connect to the configured log; raise `BusError` where there is none that several processes share."""
    from botplatform.bus.jetstream import JetStreamEventBus  # noqa: PLC0415  # `decode` starts faster without it

    if settings.bus.backend != "jetstream":
        raise BusError(
            f"bus.backend is {settings.bus.backend}, which only one process sees: set it to jetstream to watch or publish"
        )
    logging.basicConfig(format="botplatform: %(message)s", level=logging.ERROR)  # attempts: what comes of them is said
    bus = await JetStreamEventBus.connect(settings.nats, settings.bus, name="botplatform-events")
    logging.getLogger().setLevel(logging.WARNING)
    return bus


async def _tail(settings: Settings, wanted: Wanted, limit: int, *, from_start: bool) -> None:
    from botplatform.core.json_form import to_json  # noqa: PLC0415  # `decode` starts faster without it

    shown = 0
    async with await connected(settings) as bus:
        async for event in _watched(bus, wanted, from_start=from_start):
            sys.stdout.write(to_json(event) + "\n")
            sys.stdout.flush()
            shown += 1
            if shown == limit:
                return


async def _watched(bus: JetStreamEventBus, wanted: Wanted, *, from_start: bool) -> AsyncIterator[Event]:
    """Yield what is in the log, if asked for, and then what is published, each event once."""
    waiting: asyncio.Queue[Event] = asyncio.Queue(MAX_WAITING)
    bus.subscribe(wanted.pattern, waiting.put)
    await bus.ready()
    known: deque[str] = deque(maxlen=MAX_WAITING)  # what was read from the log may be shown live again
    if from_start:
        await _say_trimmed(bus, "what came before is not shown")
        async for delivery in bus.replay((wanted.pattern,)):
            known.append(delivery.event.id)
            if wanted.means(delivery.event):
                yield delivery.event
    failed = asyncio.create_task(bus.wait_failed())
    again = set(known)
    try:
        while True:
            event = await _next(waiting, failed)
            if event.id not in again and wanted.means(event):
                yield event
    finally:
        failed.cancel()


async def _say_trimmed(bus: JetStreamEventBus, then: str) -> None:
    """Say on standard error that the log is not whole, where that is so."""
    if gone := (await bus.trimmed()).sequence:
        typer.echo(f"botplatform: the log was trimmed up to {gone}: {then}", err=True)


async def _next(waiting: asyncio.Queue[Event], failed: asyncio.Task[None]) -> Event:
    if not waiting.empty():
        return waiting.get_nowait()
    taken = asyncio.create_task(waiting.get())
    try:
        await asyncio.wait((taken, failed), return_when=asyncio.FIRST_COMPLETED)
        if failed.done():
            await failed
        return await taken
    finally:
        taken.cancel()


async def _publish(settings: Settings, given: list[Given]) -> list[Given]:
    """Publish what the log does not have, and return it."""
    async with await connected(settings) as bus:
        there = await _in_log(bus, [each for each in given if each.named])
        new = [each for each in given if each.event.id not in there]
        await bus.publish_all(each.event for each in new)
    for event_id, sequence in there.items():
        typer.echo(
            f"botplatform: the event {event_id} is in the log already, at {sequence}: not published again", err=True
        )
    return new


async def _in_log(bus: JetStreamEventBus, named: list[Given]) -> dict[str, int]:
    """Return the sequence of each event whose id the log has; raise `InvalidEvent` where that is another event.

    The log is asked, not the server, which remembers ids for `bus.duplicate_window_s` only; its ticks only where
    ticks are given, because they are many.
    """
    from botplatform.core.events import CATALOGUE  # noqa: PLC0415  # the help is faster without it

    wanted = {each.event.id: each for each in named}
    found: dict[str, int] = {}
    if not wanted:
        return found
    await _say_trimmed(bus, "an event that was published before that is not recognised, and published again")
    types = {each.event.type for each in named}
    async for delivery in bus.replay([known for known in CATALOGUE if known in types or known not in MANY]):
        stored, sequence = delivery.event, delivery.sequence
        if stored.id in wanted:
            event, place, _ = wanted[stored.id]
            if (stored.type, stored.payload) != (event.type, event.payload):
                raise InvalidEvent(
                    f"{place}: the log has another event with the id {event.id} at {sequence}, a {stored.type}: "
                    "leave the id out, and one is made up; nothing was published"
                )
            found[event.id] = sequence
    return found


def _read_events(file: str) -> list[Given]:
    """Read one event, or one per line, and check them all."""
    from botplatform.core.json_form import parse  # noqa: PLC0415  # `decode` starts faster without it

    place = "standard input" if file == "-" else file
    try:
        if file == "-":
            data = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with Path(file).open("rb") as opened:
                data = opened.read(MAX_BYTES + 1)
    except OSError as e:
        raise InvalidEvent(f"{file} cannot be read: {e.strerror or e}") from e
    lines = [(number, line) for number, line in enumerate(_limited(data, place).splitlines(), 1) if line.strip()]
    if not lines:
        raise InvalidEvent(f"{place} is empty: give an event as JSON")
    try:
        given = [(place, parse(data, MAX_BYTES))]
    except InvalidEvent as e:
        if len(lines) == 1 or not all(line.lstrip().startswith(b"{") for _, line in lines):
            raise InvalidEvent(f"{place}: {e}") from e
        given = [(f"{place}:{number}", _parsed_line(line, f"{place}:{number}")) for number, line in lines]
    made = [Given(_made(value, where), where, bool(value.get("id"))) for where, value in given]
    places: dict[str, str] = {}
    for event, where, _ in made:
        if event.id in places:
            raise InvalidEvent(f"{where}: the id {event.id} was given at {places[event.id]} already: ids are unique")
        places[event.id] = where
    return made


def _parsed_line(line: bytes, place: str) -> dict[str, Any]:
    from botplatform.core.json_form import parse  # noqa: PLC0415  # `decode` starts faster without it

    try:
        return parse(line)
    except InvalidEvent as e:
        raise InvalidEvent(f"{place}: {e}") from e


def _made(given: dict[str, Any], place: str) -> Event:
    """Fill in what is missing and check an event."""
    from botplatform.core.json_form import from_json  # noqa: PLC0415  # `decode` starts faster without it
    from botplatform.core.seam import SystemClock, random_id  # noqa: PLC0415  # as above

    filled = dict(given)
    if filled.get("timestamp") is None and filled.get("timestamp_ns") is None:
        filled["timestamp_ns"] = SystemClock().now_ns()
    for name, value in (("source", "cli"), ("id", random_id())):
        filled[name] = filled.get(name) or value
    filled["correlation_id"] = filled.get("correlation_id") or filled["id"]
    try:
        return from_json(filled)
    except InvalidEvent as e:
        raise InvalidEvent(f"{place}: {e}") from e


def _limited(data: bytes, place: str) -> bytes:
    if len(data) > MAX_BYTES:
        raise InvalidEvent(f"{place} has more than {MAX_BYTES} bytes: no event is that long")
    return data
