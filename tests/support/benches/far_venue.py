"""Execution before a venue on a network that is slow, loses answers, refuses and breaks, on a log in memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

from botplatform.bus.memory import InMemoryLog
from botplatform.core.events import ActionIntent, Event
from botplatform.core.plugins import load_path
from botplatform.core.seam import SystemClock
from botplatform.engines.execution.engine import ExecutionEngine
from botplatform.exchanges.exchange import OrderRequest
from botplatform.runtime.checkpoint import MemoryCheckpoints
from botplatform.runtime.execution_worker import ExchangeWorker
from botplatform.runtime.logged_bus import LoggedBus
from botplatform.runtime.trading_state import MemoryTradingState
from botplatform.settings import ExchangeSettings, ExecutionSettings, RiskSettings
from botplatform.testing import START_NS, decision, market
from botplatform.trading.instruments import Instruments

VENUE = f"{Path(__file__).parents[2] / 'runtime' / 'network_venue.py'}:NetworkVenue"
SYMBOLS = ("BTCUSDT", "ETHUSDT")
PATIENCE_S = 60.0


class Lease:
    """The right to call the venue, in the hands of the test."""

    def __init__(self, *, held: bool) -> None:
        self.held = asyncio.Event()
        if held:
            self.held.set()

    @property
    def valid(self) -> bool:
        return self.held.is_set()

    @property
    def ended(self) -> bool:
        return False

    @property
    def left_s(self) -> float:
        return 1.0 if self.valid else 0.0

    async def wait_valid(self) -> None:
        await self.held.wait()


class FarBench:
    """A log and a venue, before which one execution worker follows another; decisions are published by hand."""

    def __init__(self, trading: MemoryTradingState | None = None, *, partial: float = 0.0, **parameters: Any) -> None:
        settings = ExchangeSettings(kind=VENUE, partial_fill_share=partial, parameters=parameters)
        self.log = InMemoryLog({"execution": ExecutionEngine.listens})
        self.told: list[Event] = []
        self.bus = LoggedBus(self.log, self.told.append)
        self.checkpoints = MemoryCheckpoints()
        self.trading = trading or MemoryTradingState()
        self.venue: Any = load_path(VENUE)(settings, Instruments())
        self.decided = 0
        self.limits: dict[str, Any] = {"max_decision_age_s": 5.0, "request_timeout_s": 2.0}
        """Of the workers that are made from now on."""

    def make_worker(self) -> None:
        self.bus = LoggedBus(self.log, self.told.append)  # which waits for nothing that a killed worker left undone
        self.worker = ExchangeWorker(
            self._engine,
            self.bus,
            SystemClock(),
            self.checkpoints,
            exchange=self.venue,
            trading=self.trading,
            **self.limits,
        )
        self.bus.settle_with(self.worker.gateway)

    def _engine(self) -> ExecutionEngine:
        return ExecutionEngine(
            risk=RiskSettings(),
            execution=ExecutionSettings(),
            instruments=Instruments(),
            symbols=SYMBOLS,
            venue="far",
            account_id="paper",
        )

    @property
    def engine(self) -> ExecutionEngine:
        engine = self.worker.host.engine
        assert isinstance(engine, ExecutionEngine)
        return engine

    async def start(self) -> None:
        """Start the worker that was made, and show it a market."""
        await self.worker.start()
        await self.show(*SYMBOLS)

    async def stop(self) -> None:
        if not self.worker.gateway._stopping:
            await self.worker.stop()
        await self.log.close()

    def at_s(self) -> float:
        return (time.time_ns() - START_NS) / 1e9

    async def show(self, *symbols: str) -> None:
        """Publish a snapshot of each symbol."""
        for symbol in symbols:
            await self.bus.publish(market(symbol, 100.0, at_s=self.at_s()))

    async def decide(self, *actions: ActionIntent, symbol: str = "BTCUSDT", age_s: float = 0.0) -> Event:
        self.decided += 1
        made = decision(*actions, symbol=symbol, at_s=self.at_s() - age_s, id=f"decision-{self.decided}")
        await self.bus.publish(made)
        return made

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():  # noqa: ASYNC110  # neither the venue nor the log has anything to wait on
                await asyncio.sleep(0.01)

    async def settled(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await self.bus.wait_settled()

    async def reconciled(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await self.worker.reconciler.wait_done()

    async def wait_for(self, kind: str, times: int = 1) -> list[Any]:
        """Wait until the log has so many events of a type, and return what they say."""
        await self.until(lambda: len(self.of(kind)) >= times)
        return self.of(kind)

    async def on_the_way(self) -> None:
        """Wait until an order has passed the gate and the venue is about to get it."""
        await self.until(lambda: self.venue.on_the_way)

    async def received(self) -> OrderRequest:
        """Wait until the venue has an order, and return it."""
        await self.until(lambda: self.venue.received)
        request: OrderRequest
        (request,) = self.venue.received
        return request

    def events(self, beginning: str = "") -> list[Event]:
        """Return what the log has of the types that begin so."""
        return [each.event for each in self.log._log if each.event.type.startswith(beginning)]

    def of(self, kind: str) -> list[Any]:
        """Return what the events of a type say."""
        return [event.payload for event in self.events() if event.type == kind]

    def held(self, symbol: str = "BTCUSDT") -> Decimal:
        return self.engine.positions.by_symbol(symbol)[0].quantity

    async def holds(self, quantity: str) -> None:
        """Wait until the engine has so much of the long leg."""
        await self.until(lambda: self.held() == Decimal(quantity))
