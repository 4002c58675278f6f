"""What every exchange adapter has to do, whatever the venue. A new adapter joins by a line in `ADAPTERS`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pytest

from botplatform.bus.jetstream.connection import Connection, connect_nats
from botplatform.bus.server import EmbeddedServer
from botplatform.core.events import Event, MarketEvent, OrderStatus, OrderType, PositionSide, Side, to_wire
from botplatform.core.seam import SystemClock
from botplatform.errors import DuplicateOrder, ExchangeError
from botplatform.exchanges.exchange import Exchange, ExchangeReport, OrderRequest
from botplatform.exchanges.paper import PaperExchange, PaperVenue
from botplatform.exchanges.remote_paper import RemotePaperExchange
from botplatform.exchanges.venue_service import Book, BookedVenue, VenueService
from botplatform.settings import ExchangeSettings, NatsSettings
from botplatform.settings_venue import VenueSettings
from botplatform.trading.instruments import Instruments

S = OrderStatus
START = 1_700_000_000_000_000_000


class Bench:
    """An adapter with a market that the test moves, and all that it reported."""

    def __init__(self, exchange: Exchange, move: Callable[[float], Awaitable[None]]) -> None:
        self.exchange = exchange
        self.move = move
        """Let the market trade at a price, long enough for requests and reports to arrive."""
        self.reports: list[ExchangeReport] = []

    def of(self, client_order_id: str) -> list[ExchangeReport]:
        return [report for report in self.reports if report.client_order_id == client_order_id]

    def statuses(self, client_order_id: str) -> list[OrderStatus]:
        return [report.status for report in self.of(client_order_id)]


@asynccontextmanager
async def paper(_: EmbeddedServer, __: Path) -> AsyncIterator[Bench]:
    exchange = PaperExchange(PaperVenue(ExchangeSettings(partial_fill_share=0)))
    now = START

    async def move(price: float) -> None:
        nonlocal now
        now += 10**9
        exchange.on_market(MarketEvent("BTCUSDT", price, timestamp_ns=now))

    yield Bench(exchange, move)


async def told(probe: RemotePaperExchange, exchange: RemotePaperExchange, now: int) -> None:
    """Wait until the venue has seen the market of this time, and the adapter has been told what came of it."""
    async with asyncio.timeout(60):
        while True:
            status = await probe.status()
            heard = exchange.sequence >= status.sequence or not exchange.connected
            if status.market_ns["BTCUSDT"] >= now and heard:
                return
            await asyncio.sleep(0.001)


@asynccontextmanager
async def paper_venue(server: EmbeddedServer, directory: Path) -> AsyncIterator[Bench]:
    """The paper venue behind NATS: its service with a book, and its client."""

    async def dial() -> Connection:
        return await connect_nats(NatsSettings(url=server.url))

    exchange = RemotePaperExchange(account_id="paper", dial=dial)
    probe = RemotePaperExchange(account_id="paper", dial=dial)
    settings = ExchangeSettings(partial_fill_share=0)
    with Book(directory / "venue.sqlite", name="paper", account_id="paper") as book:
        venue = BookedVenue(book, settings, Instruments(), ("BTCUSDT", "ETHUSDT"))
        service = VenueService(venue, VenueSettings(), dial, SystemClock())
        serving = asyncio.create_task(service.run())
        await service.ready.wait()
        await probe.connect(lambda _: None)
        async with await dial() as market:
            now = START

            async def move(price: float) -> None:
                nonlocal now
                now += 10**9
                event = Event("market.snapshot", MarketEvent("BTCUSDT", price, timestamp_ns=now), "test", now / 1e9)
                await market.client.publish("market.snapshot", to_wire(event))
                await told(probe, exchange, now)

            yield Bench(exchange, move)
        await exchange.close()
        await probe.close()
        service.stop()
        await serving


ADAPTERS: Final[dict[str, Callable[[EmbeddedServer, Path], AbstractAsyncContextManager[Bench]]]] = {
    "paper": paper,
    "paper_venue": paper_venue,
}


@pytest.fixture(params=sorted(ADAPTERS))
async def bench(request: pytest.FixtureRequest, nats_server: EmbeddedServer, tmp_path: Path) -> AsyncIterator[Bench]:
    async with ADAPTERS[request.param](nats_server, tmp_path) as made:
        await made.exchange.connect(made.reports.append)
        await made.move(100.0)
        yield made
        await made.exchange.close()


def buy(name: str = "order-1", price: int | None = None, **fields: Any) -> OrderRequest:
    known: dict[str, Any] = {"symbol": "BTCUSDT", "side": Side.BUY, "quantity": Decimal(1)}
    if price is not None:
        known |= {"order_type": OrderType.LIMIT, "price": Decimal(price)}
    return OrderRequest(client_order_id=name, **(known | fields))


async def test_ex01_it_offers_the_interface(bench: Bench) -> None:
    assert isinstance(bench.exchange, Exchange)
    assert bench.exchange.venue
    assert bench.exchange.account_id


async def test_ex02_a_market_order_is_acknowledged_then_filled(bench: Bench) -> None:
    await bench.exchange.submit(buy())
    await bench.move(100.0)
    assert bench.statuses("order-1") == [S.ACCEPTED, S.FILLED]
    filled = bench.of("order-1")[-1]
    assert (filled.last_qty, filled.filled_qty, filled.leaves_qty) == (Decimal(1), Decimal(1), Decimal(0))
    assert filled.last_px is not None
    assert filled.last_px > 0
    assert filled.commission is not None
    assert filled.trade_id
    assert filled.commission_currency


async def test_ex03_reports_of_an_order_have_growing_versions_and_one_venue_order_id(bench: Bench) -> None:
    await bench.exchange.submit(buy())
    await bench.move(100.0)
    versions = [report.version for report in bench.of("order-1")]
    assert versions == sorted(set(versions))
    assert len({report.venue_order_id for report in bench.of("order-1")}) == 1
    assert all(report.timestamp_ns >= START for report in bench.reports)


async def test_ex04_a_limit_order_waits_for_the_market(bench: Bench) -> None:
    await bench.exchange.submit(buy(price=90))
    await bench.move(100.0)
    assert bench.statuses("order-1") == [S.ACCEPTED]
    await bench.move(80.0)
    assert bench.statuses("order-1") == [S.ACCEPTED, S.FILLED]
    last_px = bench.of("order-1")[-1].last_px
    assert last_px is not None
    assert last_px <= 90


async def test_ex05_a_cancelled_order_is_reported_cancelled_with_what_was_filled(bench: Bench) -> None:
    await bench.exchange.submit(buy(price=90))
    await bench.move(100.0)
    await bench.exchange.cancel("order-1", "BTCUSDT")
    await bench.move(100.0)
    assert bench.statuses("order-1") == [S.ACCEPTED, S.CANCELLED]
    assert bench.of("order-1")[-1].filled_qty == 0
    await bench.move(80.0)
    assert bench.statuses("order-1") == [S.ACCEPTED, S.CANCELLED]


async def test_ex06_a_cancel_of_a_finished_order_changes_nothing(bench: Bench) -> None:
    await bench.exchange.submit(buy())
    await bench.move(100.0)
    await bench.exchange.cancel("order-1", "BTCUSDT")
    await bench.move(100.0)
    assert bench.statuses("order-1") == [S.ACCEPTED, S.FILLED]


async def test_ex07_a_repeated_id_is_refused_while_the_first_is_open_and_leaves_it_alone(bench: Bench) -> None:
    await bench.exchange.submit(buy(price=90))
    await bench.move(100.0)
    with pytest.raises(DuplicateOrder):
        await bench.exchange.submit(buy(price=90))
    await bench.move(100.0)
    assert bench.statuses("order-1") == [S.ACCEPTED]
    assert len(await bench.exchange.fetch_open_orders()) == 1


async def test_ex08_an_order_is_found_by_our_id_and_one_that_never_was_is_not(bench: Bench) -> None:
    assert await bench.exchange.fetch_order("never", "BTCUSDT") is None
    await bench.exchange.submit(buy())
    found = await bench.exchange.fetch_order("order-1", "BTCUSDT")
    assert found is not None, "an order that was sent must never be said not to exist"
    await bench.move(100.0)
    assert await bench.exchange.fetch_order("order-1", "BTCUSDT") == bench.of("order-1")[-1]


async def test_ex09_open_orders_are_listed_by_symbol(bench: Bench) -> None:
    await bench.exchange.submit(buy("a", price=90))
    await bench.exchange.submit(buy("b", price=91))
    await bench.move(100.0)
    assert {report.client_order_id for report in await bench.exchange.fetch_open_orders("BTCUSDT")} == {"a", "b"}
    assert await bench.exchange.fetch_open_orders("ETHUSDT") == []


async def test_ex10_positions_are_kept_per_leg(bench: Bench) -> None:
    assert await bench.exchange.fetch_positions() == {}
    await bench.exchange.submit(buy("long"))
    await bench.exchange.submit(buy("short", side=Side.SELL, position_side=PositionSide.SHORT))
    await bench.move(100.0)
    assert await bench.exchange.fetch_positions() == {
        ("BTCUSDT", PositionSide.LONG): Decimal(1),
        ("BTCUSDT", PositionSide.SHORT): Decimal(1),
    }


async def test_ex11_reduce_only_never_opens(bench: Bench) -> None:
    await bench.exchange.submit(buy("cut", side=Side.SELL, reduce_only=True))
    await bench.move(100.0)
    (refused,) = bench.of("cut")
    assert refused.status is S.REJECTED
    assert refused.reason_code
    assert refused.reason_text
    assert await bench.exchange.fetch_positions() == {}


async def test_ex12_post_only_never_takes(bench: Bench) -> None:
    await bench.exchange.submit(buy(price=110, post_only=True))
    await bench.move(100.0)
    assert bench.statuses("order-1") == [S.REJECTED]


async def test_ex13_nothing_is_reported_or_taken_after_close(bench: Bench) -> None:
    await bench.exchange.submit(buy(price=90))
    await bench.exchange.close()
    await bench.move(80.0)
    assert bench.reports == []
    with pytest.raises(ExchangeError, match="not connected"):
        await bench.exchange.submit(buy("order-2"))


async def test_ex14_executions_can_be_asked_for_with_the_trade_ids_that_were_reported(bench: Bench) -> None:
    assert await bench.exchange.fetch_fills("never", "BTCUSDT") == []
    await bench.exchange.submit(buy(price=90))
    await bench.move(100.0)
    assert await bench.exchange.fetch_fills("order-1", "BTCUSDT") == []
    await bench.move(80.0)
    reported = [report for report in bench.of("order-1") if report.trade_id]
    assert reported
    assert await bench.exchange.fetch_fills("order-1", "BTCUSDT") == reported
    found = await bench.exchange.fetch_order("order-1", "BTCUSDT")
    assert found is not None
    assert sum(report.last_qty or Decimal(0) for report in reported) == found.filled_qty == Decimal(1)
