"""Makes a process of the platform from the settings: chosen engines on the configured bus."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cached_property, partial
from typing import Final, NamedTuple

from botplatform.bootstrap.condition import look, refresh
from botplatform.bootstrap.engines import (
    ENGINES,
    PARTITIONED,
    build_feed,
    build_market_data,
    build_venue,
    engine_factory,
    groups,
    of_type,
)
from botplatform.bootstrap.sinks import SINKS, make_sink
from botplatform.bootstrap.traces import trace_process
from botplatform.bootstrap.upkeep import save_all
from botplatform.bus.jetstream.bus import JetStreamEventBus
from botplatform.bus.jetstream.dead_letters import DeadLetterStream
from botplatform.bus.jetstream.kv import Bucket
from botplatform.bus.jetstream.permissions import PROBE_SYMBOL, connection_name
from botplatform.bus.jetstream.setup import ACCOUNTS
from botplatform.bus.jetstream.subjects import partition
from botplatform.bus.memory import InMemoryLog
from botplatform.core.event_bus import Right
from botplatform.core.events import MarketEvent
from botplatform.core.seam import Clock, SystemClock, random_id
from botplatform.engines.execution.engine import ExecutionEngine
from botplatform.engines.market_data.engine import MarketDataEngine
from botplatform.engines.monitoring.engine import MonitoringEngine
from botplatform.engines.monitoring.model import LiveModel
from botplatform.engines.notifications.sender import AlertSender
from botplatform.engines.signals.engine import SignalsEngine
from botplatform.errors import BusError, SettingsError
from botplatform.exchanges.loading import PAPER
from botplatform.exchanges.shared_connection import SharedConnection
from botplatform.feeds.feed import paced
from botplatform.runtime.account_ledger import AccountLedger, AccountRecords, BucketRecords, MemoryRecords
from botplatform.runtime.checkpoint import BucketCheckpoints, Checkpoints, MemoryCheckpoints
from botplatform.runtime.dead_letters import DeadLetters, MemoryDeadLetters, StreamDeadLetters
from botplatform.runtime.exchange_choice import build_exchange
from botplatform.runtime.execution_worker import ExchangeWorker, ExecutionWorker
from botplatform.runtime.group import GroupWorkers, PartitionWorker
from botplatform.runtime.health import HealthState, group_lag
from botplatform.runtime.logged_bus import LoggedBus
from botplatform.runtime.market_group import MarketDataGroup, Source
from botplatform.runtime.membership import Membership, Ownership
from botplatform.runtime.order_worker import AccountShare
from botplatform.runtime.partition_right import PartitionRight
from botplatform.runtime.process import GroupRunner, Job, Members, Process, Solo
from botplatform.runtime.source import SourceRunner
from botplatform.runtime.trading_state import BucketTradingState, MemoryTradingState, TradingStateStore
from botplatform.runtime.worker import EngineWorker
from botplatform.settings import Settings
from botplatform.telemetry.logs import EventLogger
from botplatform.telemetry.setup_tracing import dropped_spans
from botplatform.telemetry.tracing import Tracing

__all__ = ["Platform", "open_platform"]

FLAT_BATCH: Final = 256
"""Snapshots published together with `feed.pace: flat`."""
SILENCE_EVERY_S: Final = 1.0
TAKEN_WITHIN_S: Final = 60.0
"""Seconds after which a partition that execution does not handle here counts as another process's."""
LOOK_S: Final = 0.01


class Platform(NamedTuple):
    """One process of the platform, ready to run."""

    process: Process
    bus: JetStreamEventBus | InMemoryLog
    trading: TradingStateStore
    membership: Membership | None
    """Who owns what; None on the bus in memory."""
    model: Callable[[], LiveModel]
    """Returns the live model, where this process runs monitoring and owns it; an empty one otherwise."""
    health: HealthState
    """What to tell a cluster about this process."""


@asynccontextmanager
async def open_platform(
    settings: Settings,
    engines: Sequence[str] = ENGINES,
    *,
    clock: Clock | None = None,
    tracing: Tracing | None = None,
) -> AsyncIterator[Platform]:
    """Connect to the configured bus and put the chosen engines on it; on leaving, everything is closed.

    `tracing` traces what happens, instead of what the settings say. Raises `BusError` when the bus cannot be reached, `StreamError` when it is not set up, and `SettingsError` for
    engines that do not exist or cannot be alone.
    """
    for name in engines:
        if name not in ENGINES:
            raise SettingsError(f"there is no engine {name!r}: known are {', '.join(ENGINES)}")
    if PROBE_SYMBOL in settings.symbols:
        raise SettingsError(
            f"symbols has {PROBE_SYMBOL}, which is for `botplatform probe`: it would be traded, take it out"
        )
    if settings.feed.pace == "settled" and "market_data" in engines and set(engines) != set(ENGINES):
        raise SettingsError("feed.pace=settled needs all engines in one process: leave --engine out")
    async with AsyncExitStack() as stack:
        builder = await _Builder.open(settings, engines, clock or SystemClock(), stack, tracing=tracing)
        yield builder.platform()


class _Builder:
    """Puts one process together."""

    def __init__(
        self,
        settings: Settings,
        engines: Sequence[str],
        clock: Clock,
        connection: JetStreamEventBus | InMemoryLog,
        *,
        member: str,
        tracing: Tracing | None,
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.connection = connection
        self.tracing = tracing
        tell = EventLogger(settings.log.events, level=settings.log.level).handle
        self.bus = LoggedBus(connection, tell, tracing=tracing)
        self.engines = (*engines, *((AlertSender.name,) if "notifications" in engines else ()))
        self.checkpoints: Checkpoints = MemoryCheckpoints()
        self.dead_letters: DeadLetters = MemoryDeadLetters()
        self.trading: TradingStateStore = MemoryTradingState()
        self.membership: Membership | None = None
        self.log_id = settings.bus.log_id or random_id()
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.watched: set[asyncio.Future[None]] = set()
        self.monitoring: EngineWorker | None = None
        if isinstance(connection, JetStreamEventBus):
            self.checkpoints = BucketCheckpoints(connection.checkpoints)
            self.dead_letters = StreamDeadLetters(DeadLetterStream(connection.connection, settings.bus.stream))
            self.trading = BucketTradingState(connection.trading)
            self.log_id = connection.log_id()
            connection.say_traced(tracing.marked if tracing else {})
            self.membership = Membership(
                connection.connection,
                member,
                {name: self.divided(name) for name in self.engines},
                lease_s=settings.bus.lease_s,
                failed=self.fail,
            )

    @classmethod
    async def open(
        cls,
        settings: Settings,
        engines: Sequence[str],
        clock: Clock,
        stack: AsyncExitStack,
        *,
        tracing: Tracing | None,
    ) -> _Builder:
        """Connect to the bus."""
        connection: JetStreamEventBus | InMemoryLog
        member = random_id()[:12]
        tracing = tracing or trace_process(settings, engines, member, clock, stack)
        if settings.bus.backend == "memory":
            connection = InMemoryLog(groups(settings))
        else:
            name = connection_name(engines)
            connection = await JetStreamEventBus.connect(settings.nats, settings.bus, name=name, clock=clock)
        stack.push_async_callback(connection.close)
        builder = cls(settings, engines, clock, connection, member=member, tracing=tracing)
        stack.callback(builder.stop_watching)
        stack.push_async_callback(builder.close_account)
        return builder

    def divided(self, name: str) -> int:
        """Return into how many partitions a group is divided."""
        feed = self.settings.feed
        if name == MarketDataEngine.name:
            alone = feed.kind != "synthetic" or feed.pace == "settled" or feed.limit
            return 1 if alone else self.settings.bus.partitions
        return self.settings.bus.partitions if name in PARTITIONED else 1

    def platform(self) -> Platform:
        """Put the process together."""
        runners: dict[str, GroupRunner] = {}
        jobs: list[Job] = [self.connection.wait_failed, self.wait_failed]
        for name in self.engines:
            if name != MarketDataEngine.name:
                runners[name] = GroupWorkers(name, self.clock, self.maker(name), self.right)
                continue
            market = MarketDataGroup(self.clock, self.bus, self.source, self.right)
            runners[name] = market
            jobs.append(market.wait_ended)
            if self.settings.feed.pace == "real":
                jobs.append(partial(market.watch_silence, self.clock, SILENCE_EVERY_S))
        members: Members = self.membership or Solo()
        self.runners = runners
        if self.membership is not None:
            jobs.append(partial(save_all, runners, self.clock, self.settings.bus.checkpoint_within_s))
        process = Process(
            self.bus,
            self.clock,
            members,
            runners,
            instance=self.membership.member if self.membership else random_id()[:12],
            heartbeat_s=self.settings.monitoring.heartbeat_s,
            jobs=tuple(jobs),
        )
        health = HealthState(
            lag=self.lag,
            refresh=partial(refresh, process, self.membership, self.connection),
            look=partial(look, process, self.connection, self.settings.bus.stream, self.trading),
            dropped_spans=dropped_spans,
        )
        return Platform(process, self.connection, self.trading, self.membership, self.model, health)

    async def lag(self) -> int:
        """Return how many events wait for the groups of this process, in all replicas."""
        if not isinstance(self.connection, JetStreamEventBus):
            return 0
        return await group_lag(self.connection.connection, self.settings.bus.stream, self.engines)

    def model(self) -> LiveModel:
        """Return the live model of the monitoring engine that this process ran last."""
        engine = self.monitoring.host.engine if self.monitoring else None
        return engine.model if isinstance(engine, MonitoringEngine) else LiveModel()

    def right(self, ownership: Ownership) -> Right | None:
        """Return the right to handle a partition."""
        return PartitionRight(self.membership, ownership) if self.membership else None

    def fail(self, error: Exception) -> None:
        """End the process because of an error."""
        if not self.failed.done():
            self.failed.set_exception(error)

    async def wait_failed(self) -> None:
        """Wait until something fails, and raise the reason."""
        await asyncio.shield(self.failed)

    def stop_watching(self) -> None:
        """Forget about failures."""
        for each in (*self.watched, self.failed):
            each.cancel()

    def maker(self, name: str) -> Callable[[Ownership, Right | None], PartitionWorker]:
        """Return what makes a group's worker for a partition."""
        if name in SINKS:
            sink = partial(make_sink, name, self.settings, self.bus, self.clock, failed=self.fail)
            return lambda _, right: sink(right=right, tracing=self.tracing, checkpoints=self.checkpoints)
        make = self.execution if name == "execution" else self.engine(name)

        def place(ownership: Ownership, right: Right | None) -> PartitionWorker:
            worker = make()
            worker.keep_dead_letters(self.dead_letters, self.fail)
            divided = self.membership is not None and self.divided(name) > 1
            worker.place(ownership.partition if divided else None, right)
            worker.tracing = self.tracing
            if name == MonitoringEngine.name:
                self.monitoring = worker
            return worker

        return place

    def engine(self, name: str) -> Callable[[], EngineWorker]:
        """Return what makes a worker of a processing engine."""
        build, bus = engine_factory(name, self.settings), self.settings.bus
        waiting = bus.conflate_waiting if name == SignalsEngine.name else 0
        return lambda: EngineWorker(
            build,
            self.bus,
            self.clock,
            self.checkpoints,
            checkpoint_every=bus.checkpoint_every,
            conflate_waiting=waiting,
        )

    def execution(self) -> EngineWorker:
        """Make a worker of the execution engine, before the configured venue."""
        settings, build = self.settings, engine_factory("execution", self.settings)
        limits = settings.execution
        if settings.exchange.kind == PAPER:
            return ExecutionWorker(
                lambda: of_type(build(), ExecutionEngine),
                self.bus,
                self.clock,
                self.checkpoints,
                venue=build_venue(settings),
                trading=self.trading,
                max_decision_age_s=limits.max_decision_age_s,
                venue_follows_bus=settings.feed.pace != "settled",
                account=self.account,
                checkpoint_every=settings.bus.checkpoint_every,
            )
        worker = ExchangeWorker(
            lambda: of_type(build(), ExecutionEngine),
            self.bus,
            self.clock,
            self.checkpoints,
            exchange=self.venue.worker(lambda symbol: worker.owns(symbol)),  # noqa: PLW0108  # made here
            trading=self.trading,
            account=self.account,
            max_decision_age_s=limits.max_decision_age_s,
            request_timeout_s=limits.request_timeout_s,
            request_validity_s=min(settings.bus.lease_s, limits.request_timeout_s) if self.membership else None,
            checkpoint_every=settings.bus.checkpoint_every,
        )
        self.bus.settle_with(worker.gateway)
        self.watch(asyncio.ensure_future(worker.gateway.wait_failed()))
        return worker

    @cached_property
    def venue(self) -> SharedConnection:
        """Make the connection to the venue that the workers of execution share."""
        make = partial(build_exchange, self.settings, connection_name=connection_name(self.engines))
        return SharedConnection(make, timeout_s=self.settings.execution.request_timeout_s)

    @cached_property
    def account(self) -> AccountShare:
        """How the workers of this process keep the account within its limit, together with those of others."""
        limit, exchange = self.settings.risk.max_account_notional, self.settings.exchange
        records: AccountRecords = MemoryRecords()
        if isinstance(self.connection, JetStreamEventBus):
            records = BucketRecords(Bucket(self.connection.connection, ACCOUNTS), exchange.account_id)
        ledger = AccountLedger(records, limit, self.clock) if limit else None
        return AccountShare(ledger, self.divided("execution"))

    async def close_account(self) -> None:
        """Leave the record of the account as it is."""
        if self.account.ledger is not None:
            await self.account.ledger.close()

    def watch(self, failing: asyncio.Future[None]) -> None:
        """End the process when this fails."""
        self.watched.add(failing)

        def tell(done: asyncio.Future[None]) -> None:
            self.watched.discard(done)
            error = None if done.cancelled() else done.exception()
            if isinstance(error, Exception):
                self.fail(error)

        failing.add_done_callback(tell)

    def source(self, ownership: Ownership, right: Right | None) -> Source | None:
        """Make the source of the symbols of a partition; None where there are none."""
        settings, feed, divided = self.settings, self.settings.feed, self.divided(MarketDataEngine.name)
        mine = settings.symbols
        if divided > 1 and self.membership is not None:
            mine = tuple(each for each in mine if partition(each, divided) == ownership.partition)
        if not mine:
            return None
        chosen = settings.model_copy(update={"symbols": mine})
        engine = build_market_data(chosen, self.log_id, ownership.epoch)
        start_ns = self.clock.now_ns()
        snapshots = paced(
            build_feed(chosen, start_ns),
            clock=self.clock,
            begin_ns=start_ns if feed.kind == "synthetic" else 0,
            pace=feed.pace,
            speed=feed.speed,
            settled=self.bus.wait_settled,
        )
        runner = SourceRunner(
            snapshots,
            lambda snapshot: engine.take(snapshot, self.clock.now_ns()),
            self.bus,
            show_first=self.show_first if feed.pace == "settled" else None,
            right=right,
            batch=FLAT_BATCH if feed.pace == "flat" else 1,
        )
        return Source(runner, engine)

    async def show_first(self, snapshot: MarketEvent) -> bool:
        """Let the simulated venue see a snapshot before it is published; tell whether it reported anything."""
        group = self.runners["execution"]
        assert isinstance(group, GroupWorkers)
        divided = self.membership is not None and self.divided("execution") > 1
        place = partition(snapshot.symbol, self.divided("execution")) if divided else 0
        try:
            async with asyncio.timeout(TAKEN_WITHIN_S):  # all partitions are taken at the same time
                while (worker := group.workers.get(place)) is None:
                    await self.clock.sleep(LOOK_S)
        except TimeoutError as e:
            raise BusError(
                f"partition {place} of execution was not taken by this process within {TAKEN_WITHIN_S:g} s: with "
                "feed.pace=settled one process runs all engines, and no other runs any"
            ) from e
        return await worker.show_market(snapshot) if isinstance(worker, ExecutionWorker) else False
