"""`botplatform dlq`: look at the events that no engine could handle, and decide what becomes of them."""

from __future__ import annotations

import asyncio
import getpass
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from botplatform.bus.jetstream.advisories import GivenUp, read_given_up
from botplatform.bus.jetstream.connection import Connection, connect_nats
from botplatform.bus.jetstream.dead_letters import DeadLetterStream
from botplatform.bus.jetstream.subjects import parse_stored
from botplatform.cli.invocation import invocation_of
from botplatform.core.json_form import to_dict
from botplatform.core.seam import Clock, SystemClock
from botplatform.errors import InvalidEvent, SettingsError, StreamError
from botplatform.runtime.dead_letters import DeadLetter, DeadLetters, Ruling, StreamDeadLetters, Verdict
from botplatform.settings import Settings

__all__ = ["app", "decide", "state_of"]

app: Final = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Look at events that no engine could handle, and decide."
)

ASKED: Final = (Verdict.REQUEUE, Verdict.DISCARD)
SETTLED: Final = (Verdict.REQUEUED, Verdict.DISCARDED)
UNSETTLED: Final = 1
"""Exit code when a decision was not carried out in time, or failed."""
LOOK_S: Final = 0.1
LetterId = Annotated[str, typer.Argument(metavar="ID", help="Id of the dead letter, as `dlq list` shows it.")]
Wait = Annotated[float, typer.Option(min=0, help="Seconds to wait for what comes of it.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_letters(
    ctx: typer.Context,
    *,
    everything: Annotated[bool, typer.Option("--all", help="Also show what is settled.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the events that no engine could handle, oldest first.

    `quarantined`: the symbol's later events wait, and its orders are denied, until you requeue or discard it.
    `skipped`: the engine has gone on without the event.
    `given up`: a group that several processes share has failed to handle it as often as it may.
    """
    settings = _with_jetstream(invocation_of(ctx).settings())
    letters, given_up = asyncio.run(_read(settings))
    found = [summary(each) for each in letters if everything or each.open]
    found = sorted(found + [given_up_summary(each) for each in given_up], key=lambda told: str(told["time"]))
    if as_json:
        typer.echo(json.dumps(found, ensure_ascii=False))
    elif found:
        _table(found)
    else:
        typer.echo("there are no dead letters" if everything else "no dead letters wait; --all shows settled ones")


@app.command()
def show(ctx: typer.Context, letter_id: LetterId, *, as_json: AsJson = False) -> None:
    """Show one dead letter: the event, its headers, the error, and what became of it."""
    settings = _with_jetstream(invocation_of(ctx).settings())
    letter = asyncio.run(_get(settings, letter_id))
    told = {
        **(given_up_summary(letter) if isinstance(letter, GivenUp) else summary(letter)),
        "headers": letter.headers,
        "subject": letter.subject,
        "event_json": {} if letter.event is None else to_dict(letter.event),
    }
    if as_json:
        typer.echo(json.dumps(told, ensure_ascii=False))
        return
    for name, value in told.items():
        text = json.dumps(value, ensure_ascii=False, indent=2) if isinstance(value, dict) else str(value)
        typer.echo(f"{name:12} {text}")


@app.command()
def requeue(ctx: typer.Context, letter_id: LetterId, *, wait: Wait = 10.0, as_json: AsJson = False) -> None:
    """Have the event handled after all, and then all that waits behind it, in order.

    Deploy a version first that can handle it; when it fails again, everything waits as before. A quarantined symbol
    trades again afterwards. An event that was skipped is handled now, later than its time.
    """
    _decide(ctx, letter_id, Verdict.REQUEUE, wait, as_json=as_json)


@app.command()
def discard(ctx: typer.Context, letter_id: LetterId, *, wait: Wait = 10.0, as_json: AsJson = False) -> None:
    """Leave the event out for good, and have all that waits behind it handled, in order.

    A fill that is left out is missing in the position from then on: compare it with the venue's.
    """
    _decide(ctx, letter_id, Verdict.DISCARD, wait, as_json=as_json)


def _decide(ctx: typer.Context, letter_id: str, verdict: Verdict, wait_s: float, *, as_json: bool) -> None:
    settings = _with_jetstream(invocation_of(ctx).settings())
    letter = asyncio.run(_decided(settings, letter_id, verdict, wait_s))
    if as_json:
        typer.echo(json.dumps(summary(letter), ensure_ascii=False))
    else:
        typer.echo(outcome(letter, verdict))
    if letter.ruling.verdict not in SETTLED:
        raise typer.Exit(UNSETTLED)


async def _decided(settings: Settings, letter_id: str, verdict: Verdict, wait_s: float) -> DeadLetter:
    async with _connected(settings) as connection:
        letters = _of(connection, settings)
        return await decide(letters, letter_id, verdict, SystemClock(), by=getpass.getuser(), wait_s=wait_s)


async def decide(
    letters: DeadLetters, letter_id: str, verdict: Verdict, clock: Clock, *, by: str, wait_s: float
) -> DeadLetter:
    """Ask for a letter to be requeued or discarded, and return it with what came of that within `wait_s` seconds.

    Raises `StreamError` when it is settled, when one of its key before it is not, and when somebody else has just
    decided; `InvalidEvent` when there is no such letter.
    """
    letter = await _found(letters, letter_id)
    if not letter.open:
        raise StreamError(f"{letter_id} was {letter.ruling.verdict} already, by {letter.ruling.by or 'somebody'}")
    for other in await letters.read(letter.slot):
        same = other.event.key == letter.event.key and other.sequence < letter.sequence
        if same and other.open and verdict is Verdict.REQUEUE:
            raise StreamError(f"{other.id} of {letter.event.key} comes before {letter_id}: decide about it first")
    before = letter.ruling
    asked = Ruling(verdict, 0, by, clock.now_ns(), before.attempts, before.error)
    await letters.rule(letter, asked, unless_changed=True)
    deadline = clock.monotonic_ns() + round(wait_s * 1e9)
    while True:
        letter = await _found(letters, letter_id)
        if letter.ruling.verdict not in ASKED or clock.monotonic_ns() >= deadline:
            return letter
        await clock.sleep(LOOK_S)


def outcome(letter: DeadLetter, verdict: Verdict) -> str:
    """Say in a sentence what came of a decision."""
    ruling, symbol = letter.ruling, letter.symbol
    if ruling.verdict in SETTLED:
        rest = f"; {symbol} is no longer held back by it in {letter.engine}" if symbol else ""
        return f"{letter.id} was {ruling.verdict}{rest}"
    if ruling.verdict is Verdict.WAITING:
        rest = f"{symbol} stays quarantined" if symbol else "it stays put aside"
        return f"{letter.id} failed again ({ruling.error}): {rest}; deploy a version that can handle it, or discard it"
    return f"{letter.id}: no {letter.engine} process has answered yet; it will {verdict} it as soon as one runs"


def state_of(letter: DeadLetter) -> str:
    """Return the state of a letter in a word or two."""
    verdict = letter.ruling.verdict
    if verdict is Verdict.WAITING:
        return "quarantined" if letter.symbol else "skipped"
    return f"{verdict} asked" if verdict in ASKED else verdict.value


def summary(letter: DeadLetter) -> dict[str, Any]:
    """Return what is to know about a letter as plain data, times in UTC."""
    event, ruling = letter.event, letter.ruling
    return {
        "id": letter.id,
        "state": state_of(letter),
        "engine": letter.engine,
        "partition": letter.partition,
        "key": event.key,
        "quarantined": letter.symbol if letter.open else "",
        "event": event.type,
        "event_id": event.id,
        "sequence": letter.sequence,
        "error": f"{letter.error_type}: {letter.error}",
        "where": letter.where,
        "time": _time(letter.time_ns),
        "attempts": ruling.attempts,
        "last_error": ruling.error,
        "decided_by": ruling.by,
        "settled_behind": ruling.at or None,
    }


def given_up_summary(given_up: GivenUp) -> dict[str, Any]:
    """Return what is to know about an event that a shared group gave up, in the form of `summary`."""
    event, stored = given_up.event, parse_stored(given_up.subject)
    return {
        "id": given_up.id,
        "state": "given up",
        "engine": given_up.group,
        "partition": None if stored is None else stored.partition,
        "key": "" if stored is None else stored.key,
        "quarantined": "",
        "event": "" if stored is None else stored.type,
        "event_id": "" if event is None else event.id,
        "sequence": given_up.sequence,
        "error": given_up.reason or f"delivered {given_up.deliveries} times without an answer",
        "where": "",
        "time": given_up.time.astimezone(UTC).isoformat(timespec="milliseconds"),
        "attempts": given_up.deliveries,
        "last_error": "",
        "decided_by": "",
        "settled_behind": None,
    }


def _time(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns / 1e9, UTC).isoformat(timespec="milliseconds")


def _table(letters: Sequence[dict[str, Any]]) -> None:
    table = Table()
    for name in ("id", "state", "time", "key", "event"):
        table.add_column(name, no_wrap=True)
    table.add_column("error", overflow="fold")
    for told in letters:
        cells = (told[name] for name in ("id", "state", "time", "key", "event", "error"))
        table.add_row(*(Text(str(cell)) for cell in cells))
    Console().print(table)


async def _read(settings: Settings) -> tuple[list[DeadLetter], list[GivenUp]]:
    async with _connected(settings) as connection:
        given_up = await read_given_up(connection, settings.bus.stream)
        return await _of(connection, settings).read(), given_up


async def _get(settings: Settings, letter_id: str) -> DeadLetter | GivenUp:
    async with _connected(settings) as connection:
        for given_up in await read_given_up(connection, settings.bus.stream):
            if given_up.id == letter_id:
                return given_up
        return await _found(_of(connection, settings), letter_id)


async def _found(letters: DeadLetters, letter_id: str) -> DeadLetter:
    letter = await letters.get(letter_id)
    if letter is None:
        raise InvalidEvent(
            f"there is no dead letter {letter_id} to decide about: `botplatform dlq list --all` shows them; "
            "what a shared group gave up stays given up"
        )
    return letter


def _of(connection: Connection, settings: Settings) -> DeadLetters:
    return StreamDeadLetters(DeadLetterStream(connection, settings.bus.stream))


@asynccontextmanager
async def _connected(settings: Settings) -> AsyncIterator[Connection]:
    connection = await connect_nats(settings.nats, name="botplatform-dlq")
    try:
        yield connection
    finally:
        await connection.close()


def _with_jetstream(settings: Settings) -> Settings:
    if settings.bus.backend != "jetstream":
        raise SettingsError("bus.backend is memory, which ends with its process: this command needs jetstream")
    return settings
