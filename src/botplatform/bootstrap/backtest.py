"""Makes a backtest from the settings: all engines on the bus in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from botplatform.bootstrap.engines import (
    PROCESSING,
    build_engine,
    build_market_data,
    build_venue,
    of_type,
    on_paper,
)
from botplatform.core.engine import EngineHost
from botplatform.core.event_bus import InMemoryEventBus
from botplatform.core.events import Event, MarketEvent
from botplatform.core.seam import SimulatedClock, derive_id
from botplatform.engines.execution.engine import ExecutionEngine
from botplatform.engines.market_data.engine import MarketDataEngine
from botplatform.engines.monitoring.engine import MonitoringEngine
from botplatform.engines.storage.engine import StorageSink
from botplatform.runtime.account_ledger import LocalAccount
from botplatform.runtime.local import LocalRuntime
from botplatform.runtime.simulated_gateway import SimulatedGateway
from botplatform.settings import Settings
from botplatform.telemetry.logs import EventLogger

__all__ = ["Backtest", "build_backtest"]


class Backtest(NamedTuple):
    """All engines around a bus in memory, ready to be shown a market."""

    runtime: LocalRuntime
    market_data: MarketDataEngine
    monitoring: MonitoringEngine
    storage: StorageSink | None

    def show(self, snapshot: MarketEvent) -> None:
        """Take one step; raises `StateError` when an engine failed."""
        self.runtime.show(snapshot, self.market_data.take(snapshot, snapshot.timestamp_ns))

    def close(self) -> None:
        """Write what waits to be stored."""
        if self.storage is not None:
            self.storage.close()


def build_backtest(
    settings: Settings,
    *,
    storage: StorageSink | None = None,
    observers: Iterable[Callable[[Event], None]] = (),
    observe_engine: Callable[[str, Callable[..., object]], Callable[..., object]] | None = None,
) -> Backtest:
    """Put all engines on a bus in memory; `observers` see every event, in the order of the log.

    `observe_engine` may wrap the `handle` of each engine, by name: for measuring.

    The id of the log is `bus.log_id`, or made of the seeds, so that a run can be repeated exactly.
    """
    settings = on_paper(settings)
    log_id = settings.bus.log_id or derive_id("backtest", settings.feed.seed, settings.exchange.seed)
    clock, bus, venue = SimulatedClock(), InMemoryEventBus(), build_venue(settings)
    hosts = {name: EngineHost(build_engine(name, settings)) for name in PROCESSING}
    execution = of_type(hosts["execution"].engine, ExecutionEngine)
    monitoring = of_type(hosts["monitoring"].engine, MonitoringEngine)
    gateway = SimulatedGateway(venue, clock, settings.execution.max_decision_age_s, execution.orders.get)
    limit = settings.risk.max_account_notional
    runtime = LocalRuntime(bus, clock, gateway, LocalAccount(limit) if limit else None)
    for observer in observers:
        bus.subscribe("*", observer)
    _log_events(bus, settings)
    if storage is not None:
        _store_events(bus, storage)
    for name, host in hosts.items():
        if observe_engine is not None:
            measured = observe_engine(name, host.engine.handle)
            host.engine.handle = measured  # type: ignore[method-assign,assignment]  # only for measuring
        runtime.add(host)
    return Backtest(runtime, build_market_data(settings, log_id), monitoring, storage)


def _log_events(bus: InMemoryEventBus, settings: Settings) -> None:
    """Write a log record per event, for the types that the settings let through."""
    event_logger = EventLogger(settings.log.events, level=settings.log.level)
    for pattern in event_logger.patterns():
        bus.subscribe(pattern, event_logger.handle)


def _store_events(bus: InMemoryEventBus, storage: StorageSink) -> None:
    """Give the sink what it listens to, numbered in the order of the bus."""
    sequence = 0

    def store(event: Event) -> None:
        nonlocal sequence
        sequence += 1
        storage.handle(event, sequence)

    for pattern in storage.listens:
        bus.subscribe(pattern, store)
