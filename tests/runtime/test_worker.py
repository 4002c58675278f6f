"""One engine on a durable bus: restarts, engines that raise, checkpoints that are lost, corrupt or taken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import ClassVar

import msgspec
import pytest

from botplatform.bus.jetstream.bus import JetStreamEventBus
from botplatform.bus.memory import InMemoryLog
from botplatform.bus.server import EmbeddedServer
from botplatform.core.engine import Emit, Output
from botplatform.core.events import Event, MarketEvent, SignalEvent, SystemEvent
from botplatform.core.seam import SystemClock
from botplatform.errors import Fenced, StateError
from botplatform.runtime.checkpoint import BucketCheckpoints, Checkpoint, MemoryCheckpoints
from botplatform.runtime.logged_bus import LoggedBus
from botplatform.runtime.worker import EngineWorker
from botplatform.settings import BusSettings, NatsSettings
from botplatform.testing import market

PATIENCE_S = 60.0
GROUPS: dict[str, tuple[str, ...]] = {"counting": ("market.*",)}


class CountingEngine:
    """Counts snapshots, publishes the count, and raises, half-changed, on a price of 13."""

    name: ClassVar[str] = "counting"
    listens: ClassVar[tuple[str, ...]] = GROUPS["counting"]
    publishes: ClassVar[tuple[str, ...]] = ("signal.snapshot",)

    def __init__(self) -> None:
        self.count = 0

    def handle(self, event: Event) -> Sequence[Output]:
        assert isinstance(event.payload, MarketEvent)
        self.count += 1
        if event.payload.price == 13:
            self.count += 1_000
            raise ZeroDivisionError("thirteen")
        return [Emit("signal.snapshot", SignalEvent(event.payload.symbol, "count", {"count": float(self.count)}))]

    def snapshot(self) -> bytes:
        return msgspec.json.encode(self.count)

    def restore(self, data: bytes) -> None:
        self.count = msgspec.json.decode(data, type=int)


@pytest.fixture
async def bus(server: EmbeddedServer, request: pytest.FixtureRequest) -> AsyncIterator[JetStreamEventBus]:
    settings = BusSettings(by_type=False)
    async with await JetStreamEventBus.connect(NatsSettings(url=server.url), settings, groups=GROUPS) as made:
        yield made
        for stream in ("EVENTS", "KV_checkpoints"):
            await made.connection.api(f"STREAM.PURGE.{stream}", {})


def worker(
    bus: JetStreamEventBus | InMemoryLog, checkpoints: BucketCheckpoints | MemoryCheckpoints, every: int = 1000
) -> EngineWorker:
    return EngineWorker(CountingEngine, bus, SystemClock(), checkpoints, checkpoint_every=every)


async def show(bus: JetStreamEventBus | InMemoryLog, *prices: float, first: int = 0) -> None:
    await bus.publish_all(market(price=price, at_s=float(first + index)) for index, price in enumerate(prices))


async def counts(bus: JetStreamEventBus | InMemoryLog) -> list[float]:
    log = [delivery.event.payload async for delivery in bus.replay(["signal.*"])]
    return [payload.values["count"] for payload in log if isinstance(payload, SignalEvent)]


async def settled(bus: JetStreamEventBus | InMemoryLog) -> None:
    async with asyncio.timeout(PATIENCE_S):
        await bus.wait_settled()


async def test_a_restart_continues_from_the_checkpoint_and_doubles_nothing(bus: JetStreamEventBus) -> None:
    first = worker(bus, BucketCheckpoints(bus.checkpoints), every=3)
    await first.start()
    await show(bus, 1, 2, 3, 4, 5)
    await settled(bus)
    await first.abandon()  # as if killed: three are in the checkpoint, five in the log
    await show(bus, 6, 7, first=5)
    second = worker(bus, BucketCheckpoints(bus.checkpoints), every=3)
    await second.start()
    await settled(bus)
    assert await counts(bus) == [1, 2, 3, 4, 5, 6, 7]
    assert second.events_in == 4, "the checkpoint spares it the first three"
    assert second.events_out == 2
    await second.stop()


async def test_an_engine_that_raises_is_rebuilt_reported_and_goes_on_with_the_next() -> None:
    log = InMemoryLog(GROUPS)
    made = worker(log, MemoryCheckpoints())
    await made.start()
    await show(log, 1, 13, 2)
    await settled(log)
    assert await counts(log) == [1, 2], "nothing of the half-changed state is left"
    (report,) = [delivery.event async for delivery in log.replay(["system.error"])]
    assert isinstance(report.payload, SystemEvent)
    assert (report.payload.code, report.payload.module) == ("ENGINE_FAILED", "counting")
    assert "ZeroDivisionError" in report.payload.message
    assert report.payload.symbol == "BTCUSDT"
    await made.stop()
    await log.close()


async def test_a_second_failure_does_not_meet_the_first_again() -> None:
    log = InMemoryLog(GROUPS)
    made = worker(log, MemoryCheckpoints())
    await made.start()
    await show(log, 1, 13, 2, 13, 3, 13)
    await settled(log)
    assert await counts(log) == [1, 2, 3]
    assert len([1 async for _ in log.replay(["system.error"])]) == 3
    await made.stop()
    await log.close()


async def test_a_restart_meets_a_failure_that_was_reported_before_without_reporting_it_again() -> None:
    log, checkpoints = InMemoryLog(GROUPS), MemoryCheckpoints()
    first = worker(log, checkpoints)
    await first.start()
    await show(log, 1, 13, 2)
    await settled(log)
    await first.abandon()
    checkpoints.saved.clear()
    second = worker(log, checkpoints)
    await second.start()
    await settled(log)
    assert await counts(log) == [1, 2]
    assert len([1 async for _ in log.replay(["system.error"])]) == 1
    await second.stop()
    await log.close()


async def test_whoever_claims_the_checkpoint_stops_the_worker_that_had_it(bus: JetStreamEventBus) -> None:
    first = worker(bus, BucketCheckpoints(bus.checkpoints), every=2)
    await first.start()
    await show(bus, 1, 2, first=100)
    await settled(bus)
    await BucketCheckpoints(bus.checkpoints).claim("counting")
    await show(bus, 3, 4, first=102)
    with pytest.raises(Fenced, match="counting"):
        await asyncio.wait_for(bus.wait_failed(), PATIENCE_S)


async def test_a_corrupt_checkpoint_is_one_sentence_that_says_what_to_do(bus: JetStreamEventBus) -> None:
    await bus.checkpoints.put("counting", b"\0garbage")
    with pytest.raises(StateError, match="delete it from the bucket") as refusal:
        await worker(bus, BucketCheckpoints(bus.checkpoints)).start()
    assert "\n" not in str(refusal.value)


async def test_an_engine_that_computes_something_else_than_the_log_holds_stops() -> None:
    log, checkpoints = InMemoryLog(GROUPS), MemoryCheckpoints()
    first = worker(log, checkpoints)
    await first.start()
    await show(log, 1, 2)
    await settled(log)
    await first.abandon()
    checkpoints.saved["counting"] = Checkpoint(1, b"40")
    second = worker(log, checkpoints)
    await second.start()
    with pytest.raises(StateError, match=r"computes another signal\.snapshot"):
        await settled(log)
    await second.abandon()
    await log.close()


async def test_the_logged_bus_tells_each_event_once_and_only_when_it_is_in_the_log() -> None:
    log = InMemoryLog(GROUPS)
    told: list[tuple[str, int]] = []
    sequence = 0

    def tell(event: Event) -> None:
        told.append((event.id, log._sequence))

    bus = LoggedBus(log, tell)
    handled: list[Event] = []

    async def handle(event: Event) -> None:
        handled.append(event)

    bus.subscribe("market.*", handle)
    events = [market(price=price, at_s=float(price)) for price in (1, 2, 3)]
    await bus.publish(events[0])
    await bus.publish_all(events[1:])
    assert [event_id for event_id, _ in told] == [event.id for event in events] == [event.id for event in handled]
    for place, (_, sequence) in enumerate(told, 1):
        assert sequence >= place
    await log.close()
