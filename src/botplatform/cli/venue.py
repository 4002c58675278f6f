"""`botplatform venue`: the paper venue as a process of its own."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated

import typer

from botplatform.bus.jetstream.connection import Connection, connect_nats
from botplatform.cli.invocation import invocation_of
from botplatform.cli.stopping import run_until_signal
from botplatform.cli.waiting import Wait, wait_for_server
from botplatform.core.seam import Clock, SystemClock, random_id
from botplatform.exchanges.venue_service import Book, BookedVenue, VenueService
from botplatform.exchanges.venue_service.crash import CrashPoint
from botplatform.exchanges.venue_service.link import NatsLink
from botplatform.runtime.health import HealthState, serve_health
from botplatform.settings import Settings
from botplatform.telemetry.logs import announce, configure_logging
from botplatform.telemetry.serving import VenueSpans
from botplatform.telemetry.setup_tracing import open_tracing
from botplatform.trading.instruments import Instruments

__all__ = ["venue"]

VENUE = "venue"
"""Name of its connection, after the role whose permissions it needs, and of its service in traces."""


def venue(
    ctx: typer.Context,
    book: Annotated[
        Path | None,
        typer.Option(help="File that is its book. Default: the setting venue.book, .botplatform/venue.sqlite."),
    ] = None,
    wait: Wait = 0.0,
) -> None:
    """Run the paper venue as a process of its own, until stopped by Ctrl-C or SIGTERM.

    It fills orders against the market data on the bus, and keeps a durable book:
    orders, positions, balances, reports. What it has answered it still knows after
    kill -9, and killing engines does not touch it. Engines trade there with
    exchange.kind=paper_venue.

    Latency, fees, partial fills and rejections are the settings exchange.*; it can be
    told to behave badly as well, in the same way for the same venue.seed:

      --set venue.slow_share=0.1           a tenth of the requests takes venue.slow_s

      --set venue.drop_reply_share=0.1     does what is asked, and never answers

      --set venue.repeat_reply_share=0.1   answers and reports twice

      --set venue.drop_report_share=0.1    loses reports; they can be asked for

      --set venue.disconnect_share=0.01    leaves instead of answering; comes back

    An order id can be used again once its order has finished, as at real venues, and
    is counted: nats req venue.paper.paper.audit '{"request_id":"1","body":{}}'
    """
    more = () if book is None else (f"venue.book={book}",)
    settings = invocation_of(ctx).settings(*more)
    configure_logging(settings.log)
    asyncio.run(_serve(settings, wait))


async def _serve(settings: Settings, wait_s: float) -> None:
    await wait_for_server(settings, VENUE, wait_s)
    crash, clock, account_id = CrashPoint.of(os.environ), SystemClock(), settings.exchange.account_id

    connection: Connection | None = None

    async def dial() -> NatsLink:
        nonlocal connection
        connection = await connect_nats(settings.nats, name=VENUE)
        return connection

    def refresh(state: HealthState) -> None:
        state.connected = service.ready.is_set() and connection is not None and connection.connected.is_set()
        state.started = state.started or state.connected

    chosen = settings.venue
    async with AsyncExitStack() as stack:
        spans = _spans(settings, clock, stack)
        kept = Book(chosen.book, name=chosen.name, account_id=account_id, balance=chosen.balance, fsync=chosen.fsync)
        book = stack.enter_context(kept)
        instruments = Instruments(settings.instruments)
        booked = BookedVenue(book, settings.exchange, instruments, settings.symbols, crash)
        service = VenueService(booked, chosen, dial, clock, crash, traces=spans)
        async with serve_health(settings.health, HealthState(refresh=refresh)):
            serving = asyncio.create_task(run_until_signal(service))
            waits = [serving, asyncio.ensure_future(service.ready.wait())]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if service.ready.is_set() and connection is not None:
                where = f"account {account_id} on {connection.where}, book {chosen.book}"
                announce(settings.log, f"the venue {chosen.name} serves {where}; Ctrl-C ends")
            await serving


def _spans(settings: Settings, clock: Clock, stack: AsyncExitStack) -> VenueSpans | None:
    """Trace the requests of traced calls until the stack ends; None where nobody asked for traces."""
    opened = open_tracing(
        settings.tracing, os.environ, clock, engines=(VENUE,), running=(VENUE,), instance=random_id()[:12]
    )
    if opened is None:
        return None
    stack.push_async_callback(asyncio.to_thread, opened.close)
    return VenueSpans(opened.queue.put, clock, name=settings.venue.name, account_id=settings.exchange.account_id)
