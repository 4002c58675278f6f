"""`botplatform run`, `setup`, `halt`, `reduce` and `resume`: what Deployments and operators use."""

from __future__ import annotations

import asyncio
import getpass
import signal
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from botplatform.bootstrap import ENGINES, PARTITIONED, consumers, groups, open_platform, trimmer_of
from botplatform.bootstrap.traces import traced_bus
from botplatform.bus.jetstream.bus import JetStreamEventBus
from botplatform.bus.jetstream.connection import Connection, connect_nats
from botplatform.bus.jetstream.credentials import without_credentials
from botplatform.bus.jetstream.limits import Janitor, sync_advice
from botplatform.bus.jetstream.permissions import connection_name
from botplatform.bus.jetstream.setup import SetupReport
from botplatform.bus.jetstream.setup import setup as set_up
from botplatform.bus.jetstream.trimmed import begin_empty
from botplatform.bus.server import EmbeddedServer
from botplatform.cli.invocation import invocation_of
from botplatform.cli.stopping import run_until_signal
from botplatform.cli.waiting import Wait, patiently, wait_for_exchange, wait_for_log
from botplatform.core.events import TradingState
from botplatform.core.seam import SystemClock
from botplatform.core.tasks import end
from botplatform.errors import SettingsError
from botplatform.runtime.health import HealthState, serve_health
from botplatform.runtime.operator import change_trading_state
from botplatform.runtime.trading_state import BucketTradingState
from botplatform.runtime.trimmer import Trimmer
from botplatform.settings import LogSettings, Settings
from botplatform.store.opening import prepare_store
from botplatform.telemetry.logs import announce, configure_logging

__all__ = ["embedded", "halt", "reduce", "resume", "run", "setup"]

SETUP, OPERATOR = "setup", "operator"
"""Names of connections, after the roles whose permissions they need."""
Reason = Annotated[str, typer.Option(help="Why, for the record and for everybody who asks later.")]


def run(
    ctx: typer.Context,
    engine: Annotated[
        list[str] | None, typer.Option(help=f"Engine to run; can be given more than once. One of {', '.join(ENGINES)}.")
    ] = None,
    embedded_server: Annotated[  # noqa: FBT002  # a flag
        bool, typer.Option("--embedded", help="Start a NATS server of its own first, kept in .botplatform/nats.")
    ] = False,
    wait: Wait = 0.0,
) -> None:
    """Run engines against the configured bus until stopped by Ctrl-C or SIGTERM.

    All engines by default: with the default settings that is a synthetic market, two example strategies and the
    paper exchange. `botplatform setup` has to be run once before, except with --embedded.
    """
    settings = invocation_of(ctx).settings()
    configure_logging(settings.log)
    run_loop(_run(settings, tuple(engine or ENGINES), start_server=embedded_server, wait_s=wait))


def setup(
    ctx: typer.Context,
    *,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch", help="Go on until stopped: purge old ticks from 80 % full, and trim what all have covered."
        ),
    ] = False,
    empty: Annotated[
        list[str] | None,
        typer.Option(
            "--begin-empty",
            help="A consumer whose checkpoint is lost, as execution-3: let it begin without state behind what was trimmed.",
        ),
    ] = None,
    wait: Wait = 0.0,
) -> None:
    """Create the streams, consumers and buckets that the engines need, and the tables of storage.url where it is set.

    What is there is brought up to date.

    It can be repeated at any time, and never removes an event, except with --watch: old ticks, and what is older than
    bus.keep_s and covered by every checkpoint and the event store.
    """
    settings = _with_jetstream(invocation_of(ctx).settings())
    configure_logging(settings.log)
    run_loop(_setup(settings, empty or [], watch=watch, wait_s=wait))


def halt(ctx: typer.Context, reason: Reason) -> None:
    """Stop trading: no order passes the last gate any more, only cancels. It survives restarts."""
    _change(ctx, TradingState.HALTED, reason)


def reduce(ctx: typer.Context, reason: Reason) -> None:
    """Let only orders pass that cut exposure, and cancels. It survives restarts."""
    _change(ctx, TradingState.REDUCING, reason)


def resume(ctx: typer.Context, reason: Reason) -> None:
    """Let all orders pass again."""
    _change(ctx, TradingState.ACTIVE, reason)


def run_loop(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine to its end."""
    asyncio.run(work)


async def _run(settings: Settings, engines: tuple[str, ...], *, start_server: bool, wait_s: float) -> None:
    if not start_server:
        await wait_for_log(settings, connection_name(engines), wait_s)
        if "execution" in engines:
            await wait_for_exchange(settings, connection_name(engines), wait_s)
    async with embedded(settings, Path(".botplatform/nats")) if start_server else _as_is(settings) as ready:
        where = without_credentials(ready.nats.url) if ready.bus.backend == "jetstream" else "memory"
        async with open_platform(ready, engines) as platform:
            begun = f"running {', '.join(engines)} on {where}; Ctrl-C ends"
            tell = partial(announce, ready.log, begun, engines=engines, where=where)
            async with serve_health(ready.health, platform.health):
                await run_until_signal(platform.process, tell)


@asynccontextmanager
async def embedded(settings: Settings, directory: Path | None = None) -> AsyncIterator[Settings]:
    """Start a NATS server, set it up, and hand out the settings that lead to it."""
    async with EmbeddedServer(directory) as server:
        nats = settings.nats.model_copy(update={"url": server.url})
        bus = settings.bus.model_copy(update={"backend": "jetstream"})
        ready = settings.model_copy(update={"nats": nats, "bus": bus})
        async with await JetStreamEventBus.connect(
            ready.nats, ready.bus, groups=groups(ready), partitioned=PARTITIONED
        ):
            pass
        async with await connect_nats(ready.nats, name=SETUP) as connection, looked_after(connection, ready):
            yield ready


@asynccontextmanager
async def looked_after(connection: Connection, settings: Settings) -> AsyncIterator[Trimmer]:
    """Keep room in the log meanwhile: old ticks go when it is nearly full, the rest when it is old and covered."""
    trimmer = trimmer_of(connection, settings)
    cleaning = asyncio.create_task(Janitor(connection, settings.bus).run(), name="janitor")
    trimming = asyncio.create_task(trimmer.run(), name="trimmer")
    try:
        yield trimmer
    finally:
        await end(cleaning, trimming)


@asynccontextmanager
async def _as_is(settings: Settings) -> AsyncIterator[Settings]:
    yield settings


async def _setup(settings: Settings, empty: list[str], *, watch: bool, wait_s: float) -> None:
    await patiently(lambda: _set_up(settings), wait_s)
    if empty:
        await _begin_empty(settings, empty)
    if watch:
        async with await connect_nats(settings.nats, name=SETUP) as connection:
            announce(settings.log, "watching the room in the log; Ctrl-C ends")
            async with looked_after(connection, settings) as trimmer:
                state = HealthState(started=True, refresh=partial(_watch, connection, trimmer))
                connection.on_closed.append(lambda error: setattr(state, "failed", str(error)))
                async with serve_health(settings.health, state):
                    await _signalled()


async def _set_up(settings: Settings) -> None:
    async with await connect_nats(settings.nats, name=SETUP) as connection:
        report = await set_up(connection, settings.bus, groups(settings), PARTITIONED)
    _tell(report, sync_advice(settings.bus), settings.log)
    where = await asyncio.to_thread(prepare_store, settings.storage)
    if where:
        typer.echo(f"store     {where}")


async def _begin_empty(settings: Settings, names: list[str]) -> None:
    known = consumers(settings).names
    for name in names:
        if name not in known:
            raise SettingsError(f"--begin-empty {name}: there is no such consumer; known are {', '.join(known)}")
    async with await connect_nats(settings.nats, name=SETUP) as connection:
        for name in names:
            trimmed = await begin_empty(connection, name)
            typer.echo(f"begins    {name}: without state, behind {trimmed.sequence}, if it has no checkpoint")


def _watch(connection: Connection, trimmer: Trimmer, state: HealthState) -> None:
    state.connected = connection.connected.is_set()
    state.log = trimmer.facts


def _tell(report: SetupReport, advice: str, log: LogSettings) -> None:
    for verb, names in (("created", report.created), ("updated", report.updated), ("unchanged", report.unchanged)):
        for name in names:
            typer.echo(f"{verb:9} {name}")
    for name in report.left:
        typer.echo(f"left      {name}: no engine of these settings uses it")
    typer.echo(f"log id    {report.log_id}")
    if advice:
        announce(log, f"advice    {advice}")


async def _signalled() -> None:
    """Wait for SIGINT or SIGTERM."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for each in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(each, stop.set)
    try:
        await stop.wait()
    finally:
        for each in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(each)


def _change(ctx: typer.Context, state: TradingState, reason: str) -> None:
    if not reason.strip():
        raise SettingsError("--reason is empty: say why, for the record and for everybody who asks later")
    settings = _with_jetstream(invocation_of(ctx).settings())
    run_loop(_change_state(settings, state, reason))


async def _change_state(settings: Settings, state: TradingState, reason: str) -> None:
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(
            await JetStreamEventBus.connect(settings.nats, settings.bus, name=OPERATOR)
        )
        traced, store = traced_bus(settings, bus, clock, stack), BucketTradingState(bus.trading)
        before = await change_trading_state(traced, store, clock, state, reason=reason, changed_by=getpass.getuser())
        typer.echo(f"trading is {state.value}, it was {before.state.value}: {reason}")


def _with_jetstream(settings: Settings) -> Settings:
    if settings.bus.backend != "jetstream":
        raise SettingsError("bus.backend is memory, which ends with its process: this command needs jetstream")
    return settings
