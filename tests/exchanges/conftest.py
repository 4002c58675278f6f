"""One NATS server for these tests, and the paper venue served on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from botplatform.bus.jetstream.connection import Connection, connect_nats
from botplatform.bus.server import EmbeddedServer
from botplatform.core.events import Event, MarketEvent, to_wire
from botplatform.core.seam import Clock, SystemClock
from botplatform.exchanges.exchange import ExchangeReport
from botplatform.exchanges.remote_paper import RemotePaperExchange
from botplatform.exchanges.venue_service import Book, BookedVenue, VenueService
from botplatform.settings import ExchangeSettings, NatsSettings
from botplatform.settings_venue import VenueSettings
from botplatform.telemetry.serving import VenueSpans
from botplatform.telemetry.spans import Span
from botplatform.trading.instruments import Instruments


@pytest.fixture(scope="session")
def nats_server() -> Iterator[EmbeddedServer]:
    server = EmbeddedServer()
    asyncio.run(server.start())
    yield server
    server.stop()


class Served:
    """A venue that is served within this process, a client of it, and the market that both see."""

    def __init__(self, server: EmbeddedServer, service: VenueService, market: Connection, timeout_s: float) -> None:
        self.service = service
        self.client = RemotePaperExchange(account_id="paper", dial=self.dial, timeout_s=timeout_s, poll_s=0.05)
        self.reports: list[ExchangeReport] = []
        self.told: list[Span] = []
        self.market = market
        self.now = 1_700_000_000_000_000_000
        self._server = server

    async def dial(self) -> Connection:
        return await connect_nats(NatsSettings(url=self._server.url))

    async def show(self, price: float = 100.0) -> None:
        """Publish a snapshot, a second later than the last."""
        self.now += 10**9
        snapshot = MarketEvent("BTCUSDT", price, timestamp_ns=self.now)
        event = Event("market.snapshot", snapshot, "test", timestamp_ns=self.now)
        await self.market.client.publish("market.snapshot", to_wire(event))
        await self.market.client.flush()

    async def trade_until(self, enough: Callable[[], bool], price: float = 100.0) -> None:
        """Show the market again and again, until something is so."""
        async with asyncio.timeout(60):
            while True:
                await self.show(price)
                if enough():
                    return
                await asyncio.sleep(0.01)

    def statuses(self, client_order_id: str) -> list[str]:
        return [report.status.value for report in self.reports if report.client_order_id == client_order_id]


@asynccontextmanager
async def serve(
    server: EmbeddedServer, book: Path, timeout_s: float, clock: Clock, **settings: Any
) -> AsyncIterator[Served]:
    async def dial() -> Connection:
        return await connect_nats(NatsSettings(url=server.url))

    with Book(book, name="paper", account_id="paper", balance=Decimal(1000)) as opened:
        exchange = ExchangeSettings(partial_fill_share=0)
        venue = BookedVenue(opened, exchange, Instruments(), ("BTCUSDT", "ETHUSDT"))
        told: list[Span] = []
        spans = VenueSpans(told.append, clock, name="paper", account_id="paper")
        service = VenueService(venue, VenueSettings(**settings), dial, clock, traces=spans)
        serving = asyncio.create_task(service.run())
        await service.ready.wait()
        async with await dial() as market:
            served = Served(server, service, market, timeout_s)
            served.told = told
            await served.client.connect(served.reports.append)
            try:
                yield served
            finally:
                await served.client.close()
                service.stop()
                await serving


@pytest.fixture
def open_venue(nats_server: EmbeddedServer, tmp_path: Path) -> Callable[..., AbstractAsyncContextManager[Served]]:
    """Serves the venue: `async with open_venue(slow_share=1.0) as served`; settings are those of `venue`."""

    def open_it(
        *, server: EmbeddedServer | None = None, timeout_s: float = 5.0, clock: Clock | None = None, **settings: Any
    ) -> AbstractAsyncContextManager[Served]:
        book = tmp_path / "venue.sqlite"
        return serve(server or nats_server, book, timeout_s, clock or SystemClock(), **settings)

    return open_it
