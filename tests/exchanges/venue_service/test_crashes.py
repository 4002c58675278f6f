"""The venue's process is killed with -9 at every step of its work, and loses nothing that it has answered."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

from botplatform.bus.jetstream.connection import Connection, connect_nats
from botplatform.bus.server import EmbeddedServer
from botplatform.core.events import Event, MarketEvent, OrderStatus, OrderType, PositionSide, Side, to_wire
from botplatform.errors import DuplicateOrder, ExchangeError
from botplatform.exchanges.exchange import ExchangeReport, OrderRequest
from botplatform.exchanges.remote_paper import RemotePaperExchange
from botplatform.exchanges.venue_service.crash import CRASH_VARIABLE, POINTS
from botplatform.settings import NatsSettings

PATIENCE_S = 60.0
Result = TypeVar("Result")


class Hospital:
    """A venue process that is started again, with the next crash point, whenever it has died."""

    def __init__(self, url: str, book: Path, points: list[str]) -> None:
        self.points = points
        self.deaths: list[str] = []
        self._url = url
        self._book = book
        self._point = ""
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._point = self.points.pop(0) if self.points else ""
        environ = {name: value for name, value in os.environ.items() if not name.startswith("BOTPLATFORM_")}
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "botplatform.cli", "venue", "--book", str(self._book)),
            *("--set", f"nats.url={self._url}", "--set", "exchange.account_id=crash"),
            *("--set", "exchange.partial_fill_share=0.5", "--set", "log.level=warning"),
            env=environ | ({CRASH_VARIABLE: self._point} if self._point else {}),
            stderr=asyncio.subprocess.PIPE,
        )
        assert self._process.stderr is not None
        said = await asyncio.wait_for(self._process.stderr.readline(), PATIENCE_S)
        assert b"the venue paper serves" in said, said + await self._process.stderr.read()

    async def revive_if_dead(self) -> None:
        assert self._process is not None
        try:
            code = await asyncio.wait_for(self._process.wait(), 0.05)
        except TimeoutError:
            return
        assert code == -signal.SIGKILL, await self._process.communicate()
        self.deaths.append(self._point)
        await self.start()

    async def end(self) -> int:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        await self._process.communicate()
        assert self._process.returncode is not None
        return self._process.returncode


class Trader:
    """Trades on, whatever happens: asks about what was not answered, and sends again only what never arrived."""

    def __init__(self, hospital: Hospital, exchange: RemotePaperExchange, market: Connection) -> None:
        self.hospital = hospital
        self.exchange = exchange
        self.reports: list[ExchangeReport] = []
        self.placed: list[str] = []
        self._market = market
        self._now = 1_700_000_000_000_000_000

    async def surely(self, call: Callable[[], Awaitable[Result]]) -> Result:
        while True:
            try:
                return await call()
            except ExchangeError:
                await self.hospital.revive_if_dead()

    async def place(self, name: str, **fields: Any) -> None:
        known: dict[str, Any] = {"symbol": "BTCUSDT", "side": Side.BUY, "quantity": Decimal("0.4")}
        request = OrderRequest(client_order_id=name, **(known | fields))
        while True:
            try:
                await self.exchange.submit(request)
                break
            except DuplicateOrder:
                raise AssertionError("sent again although it had arrived") from None
            except ExchangeError:
                await self.hospital.revive_if_dead()
                if await self.surely(lambda: self.exchange.fetch_order(name, "BTCUSDT")) is not None:
                    break
        self.placed.append(name)

    async def trade_until(self, name: str, status: OrderStatus) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while status not in [report.status for report in self.reports if report.client_order_id == name]:
                await self.hospital.revive_if_dead()
                self._now += 10**9
                snapshot = MarketEvent("BTCUSDT", 100.0, timestamp_ns=self._now)
                event = Event("market.snapshot", snapshot, "test", timestamp_ns=self._now)
                await self._market.client.publish("market.snapshot", to_wire(event))

    async def round(self, number: int) -> None:
        await self.place(f"market-{number}")
        await self.trade_until(f"market-{number}", OrderStatus.FILLED)
        await self.place(f"limit-{number}", order_type=OrderType.LIMIT, price=Decimal(50))
        await self.trade_until(f"limit-{number}", OrderStatus.ACCEPTED)
        await self.surely(lambda: self.exchange.cancel(f"limit-{number}", "BTCUSDT"))
        await self.trade_until(f"limit-{number}", OrderStatus.CANCELLED)


async def test_killed_at_every_step_the_venue_keeps_what_it_said(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    async def dial() -> Connection:
        return await connect_nats(NatsSettings(url=nats_server.url))

    hospital = Hospital(nats_server.url, tmp_path / "venue.sqlite", list(POINTS))
    exchange = RemotePaperExchange(account_id="crash", dial=dial, timeout_s=0.4, poll_s=0.05)
    await hospital.start()
    async with await dial() as market:
        trader = Trader(hospital, exchange, market)
        await exchange.connect(trader.reports.append)
        rounds = 0
        while len(hospital.deaths) < len(POINTS):
            rounds += 1
            await trader.round(rounds)
        assert hospital.deaths == list(POINTS)

        for name in trader.placed:
            assert (await exchange.audit(name)).orders == 1
            assert await exchange.fetch_order(name, "BTCUSDT") is not None
        assert (await exchange.audit()).repeated == {}
        assert (await exchange.audit()).orders == 2 * rounds
        fills = [report for report in trader.reports if report.trade_id]
        assert len({report.trade_id for report in fills}) == len(fills)
        bought = sum((report.last_qty or Decimal(0) for report in fills), Decimal(0))
        assert await exchange.fetch_positions() == {("BTCUSDT", PositionSide.LONG): bought}
        assert bought == Decimal("0.4") * rounds
        spent = sum((report.last_qty or 0) * (report.last_px or 0) + (report.commission or 0) for report in fills)
        (balance,) = await exchange.fetch_balances()
        assert balance.cash == 100_000 - spent
        assert [report.version for report in trader.reports if report.client_order_id == "limit-1"] == [1, 2]
        assert exchange.sequence == len(trader.reports)
    await exchange.close()
    assert await hospital.end() == 0
