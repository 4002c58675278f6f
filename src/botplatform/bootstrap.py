"""The composition root: makes every object from the settings, and is the only place that knows them all."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final, NamedTuple, TypeVar

from botplatform.bus.jetstream.bus import JetStreamEventBus
from botplatform.bus.jetstream.kv import Bucket
from botplatform.bus.memory import InMemoryLog
from botplatform.core.engine import Engine, EngineHost
from botplatform.core.event_bus import InMemoryEventBus
from botplatform.core.events import Event, MarketEvent
from botplatform.core.seam import Clock, SimulatedClock, SystemClock, derive_id, random_id
from botplatform.engines.execution.engine import ExecutionEngine
from botplatform.engines.market_data.engine import MarketDataEngine
from botplatform.engines.monitoring.engine import MonitoringEngine
from botplatform.engines.notifications.engine import NotificationsEngine
from botplatform.engines.notifications.sender import AlertSender
from botplatform.engines.portfolio.engine import PortfolioEngine
from botplatform.engines.signals.engine import SignalsEngine
from botplatform.engines.storage.engine import StorageSink, kept
from botplatform.engines.strategy.engine import StrategyEngine
from botplatform.errors import SettingsError
from botplatform.exchanges.loading import PAPER, make_exchange, venue_of
from botplatform.exchanges.paper.venue import PaperVenue
from botplatform.feeds.feed import paced
from botplatform.feeds.recording import open_recording
from botplatform.feeds.synthetic import SyntheticMarket
from botplatform.runtime.checkpoint import BucketCheckpoints, Checkpoints, MemoryCheckpoints
from botplatform.runtime.execution_worker import ExchangeWorker, ExecutionWorker
from botplatform.runtime.failures import WaitFailed, first_failure
from botplatform.runtime.local import LocalRuntime
from botplatform.runtime.logged_bus import LoggedBus
from botplatform.runtime.process import Process, Worker
from botplatform.runtime.simulated_gateway import SimulatedGateway
from botplatform.runtime.sink import SinkWorker
from botplatform.runtime.source import SourceRunner
from botplatform.runtime.trading_state import BucketTradingState, MemoryTradingState, TradingStateStore
from botplatform.runtime.worker import EngineWorker
from botplatform.settings import Settings
from botplatform.telemetry.logs import EventLogger
from botplatform.trading.instruments import Instruments

__all__ = [
    "ENGINES",
    "PROCESSING",
    "Backtest",
    "Platform",
    "build_backtest",
    "build_engine",
    "build_feed",
    "build_market_data",
    "build_venue",
    "engine_factory",
    "groups",
    "on_paper",
    "open_platform",
]

PROCESSING: Final = ("signals", "strategy", "execution", "portfolio", "monitoring", "notifications")
"""The engines that turn events into events."""
ENGINES: Final = ("market_data", *PROCESSING, "storage")
"""Every engine, in the order of the flow."""
FLAT_BATCH: Final = 256
"""Snapshots published together with `feed.pace: flat`."""
_Found = TypeVar("_Found")


def engine_factory(name: str, settings: Settings) -> Callable[[], Engine]:
    """Return a function that makes a fresh instance of a processing engine."""
    makers: dict[str, Callable[[], Engine]] = {
        "signals": lambda: SignalsEngine(signal_sets=settings.signals),
        "strategy": lambda: StrategyEngine(
            strategies=settings.strategies,
            symbols=settings.symbols,
            max_decision_age_s=settings.execution.max_decision_age_s,
            available_signals=SignalsEngine(signal_sets=settings.signals).value_names,
        ),
        "execution": lambda: ExecutionEngine(
            risk=settings.risk,
            execution=settings.execution,
            instruments=Instruments(settings.instruments),
            symbols=settings.symbols,
            venue=venue_of(settings.exchange),
            account_id=settings.exchange.account_id,
        ),
        "portfolio": lambda: PortfolioEngine(portfolio=settings.portfolio),
        "monitoring": lambda: MonitoringEngine(monitoring=settings.monitoring, portfolio=settings.portfolio),
        "notifications": lambda: NotificationsEngine(notifications=settings.notifications),
    }
    if name not in makers:
        raise SettingsError(f"there is no engine {name!r}: known are {', '.join(ENGINES)}")
    return makers[name]


def build_engine(name: str, settings: Settings) -> Engine:
    """Make one processing engine."""
    return engine_factory(name, settings)()


def build_market_data(settings: Settings, log_id: str, feed_epoch: int = 1) -> MarketDataEngine:
    """Make the market data engine of a log; `feed_epoch` grows with each process that takes the feed over."""
    return MarketDataEngine(
        log_id=log_id,
        symbols=settings.symbols,
        feed_epoch=feed_epoch,
        gap_s=settings.feed.gap_s,
        stale_after_s=settings.feed.stale_after_s,
    )


def build_venue(settings: Settings) -> PaperVenue:
    """Make the simulated venue."""
    return PaperVenue(settings.exchange, Instruments(settings.instruments))


def build_feed(settings: Settings, start_ns: int) -> Iterable[MarketEvent]:
    """Make the feed: an iterable of `MarketEvent`; the synthetic market starts at `start_ns`."""
    feed = settings.feed
    if feed.kind == "synthetic":
        return SyntheticMarket(settings.symbols, seed=feed.seed, rate=feed.rate, start_ns=start_ns, limit=feed.limit)
    if feed.path is None or len(settings.symbols) != 1:
        raise SettingsError("feed.kind=file needs feed.path and exactly one symbol in `symbols`")
    return open_recording(feed.path, settings.symbols[0])


def groups(settings: Settings) -> dict[str, tuple[str, ...]]:
    """Return every consumer group with the patterns it listens to: what `setup` creates."""
    found = {name: build_engine(name, settings).listens for name in PROCESSING}
    return {**found, "storage": kept(settings.storage.events), AlertSender.name: AlertSender.listens}


def on_paper(settings: Settings) -> Settings:
    """Take the paper venue, whatever exchange is configured: no order may leave a backtest or a demo."""
    if settings.exchange.kind == PAPER:
        return settings
    exchange = settings.exchange.model_copy(update={"kind": PAPER, "parameters": {}, "secrets": {}})
    return settings.model_copy(update={"exchange": exchange})


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
    execution = _of_type(hosts["execution"].engine, ExecutionEngine)
    monitoring = _of_type(hosts["monitoring"].engine, MonitoringEngine)
    gateway = SimulatedGateway(venue, clock, settings.execution.max_decision_age_s, execution.orders.get)
    runtime = LocalRuntime(bus, clock, gateway)
    for observer in observers:
        bus.subscribe("*", observer)
    _log_events(bus, settings)
    if storage is not None:
        _store_events(bus, storage)
    for name, host in hosts.items():
        if observe_engine is not None:
            host.engine.handle = observe_engine(name, host.engine.handle)  # type: ignore[method-assign,assignment]
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


def _of_type(found: object, kind: type[_Found]) -> _Found:
    """Tell the type checker what `engine_factory` made."""
    assert isinstance(found, kind)
    return found


class Platform(NamedTuple):
    """One process of the platform, ready to run."""

    process: Process
    bus: JetStreamEventBus | InMemoryLog
    monitoring: MonitoringEngine | None
    trading: TradingStateStore


class _Durable(NamedTuple):
    """What a process keeps outside of itself."""

    bus: LoggedBus
    connection: JetStreamEventBus | InMemoryLog
    checkpoints: Checkpoints
    trading: TradingStateStore
    log_id: str
    feed_epoch: int


@asynccontextmanager
async def open_platform(
    settings: Settings, engines: Sequence[str] = ENGINES, *, clock: Clock | None = None
) -> AsyncIterator[Platform]:
    """Connect to the configured bus and put the chosen engines on it; on leaving, everything is closed.

    Raises `BusError` when the bus cannot be reached, `StreamError` when it is not set up, and `SettingsError` for
    engines that do not exist or cannot be alone.
    """
    for name in engines:
        if name not in ENGINES:
            raise SettingsError(f"there is no engine {name!r}: known are {', '.join(ENGINES)}")
    clock = clock or SystemClock()
    settled = settings.feed.pace == "settled" and "market_data" in engines
    if settled and set(engines) != set(ENGINES):
        raise SettingsError("feed.pace=settled needs all engines in one process: leave --engine out")
    async with AsyncExitStack() as stack:
        durable = await _open_durable(settings, clock, engines, stack)
        workers = [await _worker(name, settings, durable, clock, stack) for name in engines if name != "market_data"]
        if "notifications" in engines:
            workers.append(_alert_worker(settings, durable, clock))
        execution = next((each for each in workers if isinstance(each, ExecutionWorker)), None)
        source = idle = None
        if "market_data" in engines:
            source, market_data = _source(settings, durable, clock, execution if settled else None)
            idle = market_data.idle if settings.feed.pace == "real" else None
        process = Process(
            durable.bus,
            clock,
            workers,
            instance=random_id()[:12],
            heartbeat_s=settings.monitoring.heartbeat_s,
            source=source,
            idle=idle,
            failed=first_failure(durable.connection.wait_failed, *_gateways_failed(workers)),
        )
        yield Platform(process, durable.connection, _monitoring(workers), durable.trading)


def _gateways_failed(workers: Iterable[Worker]) -> list[WaitFailed]:
    return [each.gateway.wait_failed for each in workers if isinstance(each, ExchangeWorker)]


def _monitoring(workers: Iterable[Worker]) -> MonitoringEngine | None:
    for worker in workers:
        if isinstance(worker, EngineWorker) and isinstance(worker.host.engine, MonitoringEngine):
            return worker.host.engine
    return None


async def _open_durable(settings: Settings, clock: Clock, engines: Sequence[str], stack: AsyncExitStack) -> _Durable:
    tell = EventLogger(settings.log.events, level=settings.log.level).handle
    if settings.bus.backend == "memory":
        log = InMemoryLog(groups(settings))
        stack.push_async_callback(log.close)
        log_id = settings.bus.log_id or random_id()
        return _Durable(LoggedBus(log, tell), log, MemoryCheckpoints(), MemoryTradingState(), log_id, 1)
    bus = await JetStreamEventBus.connect(settings.nats, settings.bus, clock=clock)
    stack.push_async_callback(bus.close)
    epoch = await _next_feed_epoch(bus) if "market_data" in engines else 0
    return _Durable(
        LoggedBus(bus, tell),
        bus,
        BucketCheckpoints(bus.checkpoints),
        BucketTradingState(bus.trading),
        bus.log_id(),
        epoch,
    )


async def _next_feed_epoch(bus: JetStreamEventBus) -> int:
    """Take the next feed epoch, so that no root of this process has the id of an earlier one's."""
    meta, key = Bucket(bus.connection, "meta"), "feed_epoch"
    entry = await meta.get(key)
    epoch = 1 if entry is None else int(entry.value) + 1
    await meta.put(key, str(epoch).encode(), expected=0 if entry is None else entry.revision)
    return epoch


async def _worker(
    name: str, settings: Settings, durable: _Durable, clock: Clock, stack: AsyncExitStack
) -> EngineWorker | SinkWorker:
    if name == "storage":
        sink = StorageSink.open(settings.storage)
        stack.push_async_callback(sink.close_async)
        return SinkWorker(name, durable.bus, clock, sink.handle_async, after=sink.store.last_sequence)
    build, every = engine_factory(name, settings), settings.bus.checkpoint_every
    if name != "execution":
        return EngineWorker(build, durable.bus, clock, durable.checkpoints, checkpoint_every=every)

    def build_execution() -> ExecutionEngine:
        return _of_type(build(), ExecutionEngine)

    if settings.exchange.kind != PAPER:
        worker = ExchangeWorker(
            build_execution,
            durable.bus,
            clock,
            durable.checkpoints,
            exchange=make_exchange(settings.exchange, Instruments(settings.instruments)),
            trading=durable.trading,
            max_decision_age_s=settings.execution.max_decision_age_s,
            request_timeout_s=settings.execution.request_timeout_s,
            checkpoint_every=every,
        )
        durable.bus.settle_with(worker.gateway)
        return worker
    return ExecutionWorker(
        build_execution,
        durable.bus,
        clock,
        durable.checkpoints,
        venue=build_venue(settings),
        trading=durable.trading,
        max_decision_age_s=settings.execution.max_decision_age_s,
        venue_follows_bus=settings.feed.pace != "settled",
        checkpoint_every=every,
    )


def _alert_worker(settings: Settings, durable: _Durable, clock: Clock) -> SinkWorker:
    sender = AlertSender(settings.notifications, live=True)

    async def take(event: Event, sequence: int) -> None:
        sender.handle(event, sequence)

    async def close() -> None:
        sender.close()

    return SinkWorker(AlertSender.name, durable.bus, clock, take, close=close)


def _source(
    settings: Settings, durable: _Durable, clock: Clock, shown_first: ExecutionWorker | None
) -> tuple[SourceRunner, MarketDataEngine]:
    market_data = build_market_data(settings, durable.log_id, durable.feed_epoch)
    feed = settings.feed
    snapshots = paced(
        build_feed(settings, clock.now_ns()),
        clock=clock,
        pace=feed.pace,
        speed=feed.speed,
        settled=durable.bus.wait_settled,
    )
    source = SourceRunner(
        snapshots,
        lambda snapshot: market_data.take(snapshot, clock.now_ns()),
        durable.bus,
        show_first=None if shown_first is None else shown_first.show_market,
        batch=FLAT_BATCH if feed.pace == "flat" else 1,
    )
    return source, market_data
