"""A venue on the far side of a slow and unreliable network, for tests: a real asynchronous adapter over `PaperVenue`.

Loaded by path, as a user's own adapter is: `tests/runtime/network_venue.py:NetworkVenue`.
"""

from __future__ import annotations

import asyncio
import time
from decimal import Decimal
from typing import Any, ClassVar

from botplatform.core.events import MarketEvent, OrderStatus, PositionSide
from botplatform.errors import DuplicateOrder, ExchangeError, OutcomeUnknown
from botplatform.exchanges.exchange import ExchangeReport, OrderRequest, ReportHandler
from botplatform.exchanges.paper import PaperVenue
from botplatform.settings import ExchangeSettings
from botplatform.trading.instruments import Instruments


class NetworkVenue:
    """Parameters: `delay_s` of each call, `price` at which the venue trades, `fault` of the next `faults` submits."""

    venue = "far"
    made: ClassVar[list[NetworkVenue]] = []

    def __init__(self, settings: ExchangeSettings, instruments: Instruments) -> None:
        self.account_id = settings.account_id
        given: dict[str, Any] = settings.parameters
        self.delay_s = float(given.get("delay_s", 0.0))
        self.price = float(given.get("price", 100.0))
        self.fault = str(given.get("fault", ""))
        self.faults = int(given.get("faults", 1))
        self.unreachable = False
        self.deaf = 0
        """Questions that fail from now on."""
        self.on_the_way: list[OrderRequest] = []
        """What was sent; it is received `delay_s` later."""
        self.received: list[OrderRequest] = []
        self.cancels: list[str] = []
        self.questions = 0
        self.pushes = True
        self.pushed: list[ExchangeReport] = []
        update = {"kind": "paper", "latency_ms": 0.0, "latency_jitter_ms": 0.0}
        self.behind = PaperVenue(settings.model_copy(update=update), instruments)
        self._on_report: ReportHandler | None = None
        self._moving: asyncio.Task[None] | None = None
        NetworkVenue.made.append(self)

    async def connect(self, on_report: ReportHandler) -> None:
        if self.unreachable:
            raise ExchangeError("nobody answers at far.example")
        self._on_report = on_report
        self._moving = asyncio.create_task(self._move())

    async def close(self) -> None:
        if self._moving is not None:
            self._moving.cancel()
            await asyncio.gather(self._moving, return_exceptions=True)
        self._on_report = None

    async def _move(self) -> None:
        """Let the market trade at one price, forever."""
        while True:
            for symbol in ("BTCUSDT", "ETHUSDT"):
                self.tick(symbol)
            await asyncio.sleep(0.01)

    def tick(self, symbol: str) -> None:
        for report in self.behind.on_market(MarketEvent(symbol, self.price, timestamp_ns=time.time_ns())):
            if self.pushes:
                self.push(report)

    def push(self, report: Any) -> None:
        self.pushed.append(report)
        assert self._on_report is not None
        self._on_report(report)

    async def submit(self, request: OrderRequest) -> None:
        self.on_the_way.append(request)
        await asyncio.sleep(self.delay_s)
        fault = self.fault if self.faults > 0 else ""
        self.faults -= 1
        if fault == "refuse":
            raise ExchangeError("your margin is insufficient")
        if fault == "lost":
            raise OutcomeUnknown("the connection was lost while sending")
        self.received.append(request)
        self.behind.submit(request)
        if fault == "drop":  # it got there, but neither the answer nor a report comes back
            self.pushes = False
            raise OutcomeUnknown("the connection was lost before the answer")
        if fault == "hang":
            self.pushes = False
            await asyncio.Event().wait()
        if fault == "nonsense":
            raise ZeroDivisionError("a bug of the adapter")
        if fault == "twice":
            raise DuplicateOrder("an order with this id is open")
        if fault == "cancelled":
            raise asyncio.CancelledError

    async def cancel(self, client_order_id: str, symbol: str) -> None:
        await asyncio.sleep(self.delay_s)
        self.cancels.append(client_order_id)
        if self.fault == "no cancels":
            raise KeyError("a bug of the adapter")
        self.behind.cancel(client_order_id, symbol)

    async def fetch_order(self, client_order_id: str, symbol: str) -> ExchangeReport | None:
        self._listen()
        await asyncio.sleep(self.delay_s)
        report = self.behind.fetch_order(client_order_id, symbol)
        return None if report is None or report.status is OrderStatus.SUBMITTED else report

    async def fetch_fills(self, client_order_id: str, symbol: str) -> list[ExchangeReport]:
        self._listen()
        return self.behind.fetch_fills(client_order_id, symbol)

    async def fetch_open_orders(self, symbol: str | None = None) -> list[ExchangeReport]:
        return self.behind.open_orders(symbol)

    async def fetch_positions(self) -> dict[tuple[str, PositionSide], Decimal]:
        return self.behind.positions()

    def _listen(self) -> None:
        self.questions += 1
        if self.deaf > 0:
            self.deaf -= 1
            raise OutcomeUnknown("not connected")
