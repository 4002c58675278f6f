"""The venue and execution, each as its own user with what `botplatform permissions` prints, on a server that enforces it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from botplatform.bus.jetstream.connection import Connection, connect_nats
from botplatform.bus.jetstream.permissions import as_config
from botplatform.bus.server import EmbeddedServer
from botplatform.cli.permissions import permissions_of
from botplatform.core.events import Event, MarketEvent, Side, to_wire
from botplatform.core.seam import SystemClock
from botplatform.errors import PermissionDenied
from botplatform.exchanges.exchange import ExchangeReport, OrderRequest
from botplatform.exchanges.remote_paper import RemotePaperExchange
from botplatform.exchanges.venue_service import Book, BookedVenue, VenueService
from botplatform.settings import ExchangeSettings, NatsSettings, Settings
from botplatform.settings_venue import VenueSettings
from botplatform.trading.instruments import Instruments

NOW = 1_700_000_000_000_000_000


@asynccontextmanager
async def strict_server(*, venue: dict[str, Any] | None = None) -> AsyncIterator[EmbeddedServer]:
    allowed = {name: as_config(permissions_of(name, Settings())) for name in ("venue", "execution")}
    allowed |= {"market": {"publish": {"allow": [">"]}, "subscribe": {"allow": [">"]}}}
    allowed["venue"] = venue or allowed["venue"]
    users = [{"user": name, "password": "x", "permissions": granted} for name, granted in allowed.items()]
    async with EmbeddedServer(config={"authorization": {"users": users}}) as server:
        yield server


async def dial(server: EmbeddedServer, user: str) -> Connection:
    return await connect_nats(NatsSettings(url=server.url, user=user, password=SecretStr("x")), name=user)


@asynccontextmanager
async def served(server: EmbeddedServer, tmp_path: Path) -> AsyncIterator[VenueService]:
    with Book(tmp_path / "venue.sqlite", name="paper", account_id="paper") as book:
        venue = BookedVenue(book, ExchangeSettings(), Instruments(), ("BTCUSDT",))
        settings = VenueSettings(repeat_reply_share=1.0)
        yield VenueService(venue, settings, lambda: dial(server, "venue"), SystemClock())


async def test_an_order_goes_through_and_its_reports_come_back(tmp_path: Path) -> None:
    reports: list[ExchangeReport] = []
    async with strict_server() as server, served(server, tmp_path) as service:
        serving = asyncio.create_task(service.run())
        await service.ready.wait()
        client = RemotePaperExchange(account_id="paper", dial=lambda: dial(server, "execution"), poll_s=60)
        await client.connect(reports.append)
        await client.submit(
            OrderRequest(client_order_id="order-1", symbol="BTCUSDT", side=Side.BUY, quantity=Decimal(1))
        )
        async with await dial(server, "market") as market, asyncio.timeout(60):
            for n in range(1, 1_000):
                time_ns = NOW + n * 10**9
                snapshot = MarketEvent("BTCUSDT", 100.0, timestamp_ns=time_ns)
                event = Event("market.snapshot", snapshot, "test", timestamp_ns=time_ns)
                await market.client.publish("market.snapshot", to_wire(event))
                await asyncio.sleep(0.01)
                if reports and reports[-1].status == "FILLED":
                    break
        assert reports[-1].status == "FILLED"
        await client.close()
        service.stop()
        await serving


async def test_a_venue_that_may_not_hear_the_market_ends_with_a_sentence(tmp_path: Path) -> None:
    deaf = as_config(permissions_of("venue", Settings()))
    deaf["subscribe"]["allow"].remove("market.snapshot")
    async with strict_server(venue=deaf) as server, served(server, tmp_path) as service:
        with pytest.raises(PermissionDenied, match=r"market\.snapshot"):
            await asyncio.wait_for(service.run(), 20)
