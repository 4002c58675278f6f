"""An event that an engine raises on: put aside once, whole, and handled or left out when a person says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from itertools import count
from typing import ClassVar

import msgspec
import pytest

from benches.dead_letters import emptied, letters_of
from botplatform.bus.jetstream.bus import JetStreamEventBus
from botplatform.bus.jetstream.dead_letters import DeadLetterStream
from botplatform.bus.server import EmbeddedServer
from botplatform.core.engine import Emit, Output
from botplatform.core.events import Event, MarketEvent, Severity, SignalEvent, SystemEvent, to_wire
from botplatform.core.seam import SystemClock
from botplatform.errors import Fenced, InvalidEvent, StreamError
from botplatform.runtime.checkpoint import BucketCheckpoints
from botplatform.runtime.dead_letters import DeadLetter, Ruling, StreamDeadLetters, Verdict
from botplatform.runtime.replay import LogReplay
from botplatform.runtime.worker import EngineWorker
from botplatform.testing import market

PATIENCE_S = 60.0
GROUPS: dict[str, tuple[str, ...]] = {"counting": ("market.*",)}
TIMES = count()
"""Seconds of the ticks: the server, which all tests share, remembers ids for a while."""


class CountingEngine:
    """Counts snapshots, publishes the count, and raises, half-changed, on the prices in `POISON`."""

    name: ClassVar[str] = "counting"
    listens: ClassVar[tuple[str, ...]] = GROUPS["counting"]
    publishes: ClassVar[tuple[str, ...]] = ("signal.snapshot",)
    POISON: ClassVar[set[float]] = {13.0}

    def __init__(self) -> None:
        self.count = 0

    def handle(self, event: Event) -> Sequence[Output]:
        assert isinstance(event.payload, MarketEvent)
        self.count += 1
        if event.payload.price in self.POISON:
            self.count += 1_000
            raise ZeroDivisionError("thirteen\nis too much")
        values = {"count": float(self.count), "price": event.payload.price}
        return [Emit("signal.snapshot", SignalEvent(event.payload.symbol, "count", values))]

    def snapshot(self) -> bytes:
        return msgspec.json.encode(self.count)

    def restore(self, data: bytes) -> None:
        self.count = msgspec.json.decode(data, type=int)


class FixedEngine(CountingEngine):
    """The version that can handle everything."""

    POISON: ClassVar[set[float]] = set()


@pytest.fixture
async def bus(server: EmbeddedServer) -> AsyncIterator[JetStreamEventBus]:
    async with emptied(server, GROUPS) as made:
        yield made


async def start(bus: JetStreamEventBus, engine: type[CountingEngine] = CountingEngine) -> EngineWorker:
    made = EngineWorker(engine, bus, SystemClock(), BucketCheckpoints(bus.checkpoints))
    made.keep_dead_letters(letters_of(bus))
    await made.start()
    return made


async def show(bus: JetStreamEventBus, *prices: float) -> list[Event]:
    events = [market(price=price, at_s=float(next(TIMES))) for price in prices]
    await bus.publish_all(events)
    async with asyncio.timeout(PATIENCE_S):
        await bus.wait_settled()
    return events


async def counts(bus: JetStreamEventBus) -> list[tuple[float, float]]:
    log = [delivery.event.payload async for delivery in bus.replay(["signal.*"])]
    return [(each.values["price"], each.values["count"]) for each in log if isinstance(each, SignalEvent)]


async def errors(bus: JetStreamEventBus) -> list[SystemEvent]:
    log = [delivery.event.payload async for delivery in bus.replay(["system.error"])]
    return [payload for payload in log if isinstance(payload, SystemEvent)]


async def some(read: Callable[[], Awaitable[Sequence[object]]], least: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if len(await read()) >= least:
                return
            await asyncio.sleep(0.02)


async def settled(letters: StreamDeadLetters, letter_id: str, *verdicts: Verdict) -> DeadLetter:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = await letters.get(letter_id)
            assert found is not None
            if found.ruling.verdict in verdicts:
                return found
            await asyncio.sleep(0.05)


async def replayed(bus: JetStreamEventBus, engine: type[CountingEngine]) -> None:
    """Replay the log, with its dead letters, and expect the recorded outputs."""
    replay = LogReplay([engine()], await letters_of(bus).read())
    async for delivery in bus.replay(["*"]):
        replay.feed(delivery.event, delivery.sequence)
    report = replay.finish()
    assert report.differences == []
    assert report.compared > 0


async def test_it_is_kept_whole_and_reported_once_and_the_next_event_is_handled(bus: JetStreamEventBus) -> None:
    worker = await start(bus)
    first = await bus.last_sequence()
    events = await show(bus, 1, 13, 2)
    assert await counts(bus) == [(1, 1), (2, 2)], "nothing of the half-changed state is left"
    (letter,) = await letters_of(bus).read()
    assert letter.id == f"counting-{first + 2}"
    assert letter.event == events[1]
    assert (letter.engine, letter.error_type, letter.error) == ("counting", "ZeroDivisionError", "thirteen is too much")
    assert letter.headers["Nats-Msg-Id"] == events[1].id
    assert letter.headers["traceparent"].startswith("00-")
    assert letter.subject.startswith("market.snapshot.")
    assert "test_dead_letters.py" in letter.where
    assert letter.symbol == "", "only execution and portfolio quarantine"
    (stored,) = await DeadLetterStream(bus.connection, "EVENTS").read()
    assert stored.data == to_wire(events[1])
    assert stored.subject == f"dlq.counting.BTCUSDT.all.{letter.sequence}"
    (error,) = await errors(bus)
    assert (error.code, error.severity, error.event_id) == ("ENGINE_FAILED", Severity.ERROR, events[1].id)
    assert letter.id in error.message
    assert worker.dead_letters == 1
    await worker.stop()
    await replayed(bus, CountingEngine)


@pytest.mark.parametrize("engine", [CountingEngine, FixedEngine])
async def test_computing_everything_again_skips_it_again_whatever_the_version_could_do(
    bus: JetStreamEventBus, engine: type[CountingEngine]
) -> None:
    worker = await start(bus)
    await show(bus, 1, 13, 2)
    await worker.abandon()
    await bus.checkpoints.put("counting", b"")
    await asyncio.sleep(1.1)  # the server no longer drops what has the same id
    second = await start(bus, engine)
    await show(bus, 3)
    assert await counts(bus) == [(1, 1), (2, 2), (3, 3)]
    assert len(await errors(bus)) == 1
    assert len(await letters_of(bus).read()) == 1
    await second.stop()
    await replayed(bus, FixedEngine)


async def test_killed_between_putting_aside_and_saving_it_is_put_aside_once(bus: JetStreamEventBus) -> None:
    worker = await start(bus)
    await show(bus, 1)
    await bus.checkpoints.put("counting", b"")  # so that the worker's next checkpoint is refused
    await bus.publish_all([market(price=price, at_s=float(next(TIMES))) for price in (13, 2)])
    await some(lambda: errors(bus), 1)
    await worker.abandon()
    second = await start(bus)
    await some(lambda: counts(bus), 2)
    assert await counts(bus) == [(1, 1), (2, 2)]
    assert len(await errors(bus)) == len(await letters_of(bus).read()) == 1
    await second.abandon()


async def test_requeued_it_is_handled_once_by_the_version_that_can_also_after_a_restart(bus: JetStreamEventBus) -> None:
    worker = await start(bus)
    await show(bus, 1, 13, 2)
    await worker.stop()
    worker = await start(bus, FixedEngine)
    letters = letters_of(bus)
    (letter,) = await letters.read()
    await letters.rule(letter, Ruling(Verdict.REQUEUE, by="somebody"), unless_changed=True)
    found = await settled(letters, letter.id, Verdict.REQUEUED)
    assert (found.ruling.by, found.ruling.at >= letter.sequence) == ("somebody", True)
    await show(bus, 3)
    expected = [(1, 1), (2, 2), (13, 3), (3, 4)]
    assert await counts(bus) == expected
    await worker.abandon()
    await bus.checkpoints.put("counting", b"")  # all is computed again: in the places where it was
    again = await start(bus, FixedEngine)
    await show(bus, 4)
    assert await counts(bus) == [*expected, (4, 5)]
    await again.stop()
    await replayed(bus, FixedEngine)


async def test_requeued_to_the_version_that_cannot_it_waits_again_and_nothing_loops(bus: JetStreamEventBus) -> None:
    worker = await start(bus)
    await show(bus, 1, 13, 2)
    letters = letters_of(bus)
    (letter,) = await letters.read()
    await letters.rule(letter, Ruling(Verdict.REQUEUE, by="somebody"))
    found = await settled(letters, letter.id, Verdict.WAITING)
    assert (found.ruling.attempts, found.ruling.error) == (2, "ZeroDivisionError: thirteen is too much")
    await show(bus, 3)
    assert await counts(bus) == [(1, 1), (2, 2), (3, 3)]
    assert len(await errors(bus)) == 2, "each attempt is reported"
    await letters.rule(found, Ruling(Verdict.DISCARD, by="somebody"), unless_changed=True)
    await settled(letters, letter.id, Verdict.DISCARDED)
    await show(bus, 4)
    assert (await counts(bus))[-1] == (4, 4)
    await worker.stop()
    await replayed(bus, CountingEngine)


async def test_of_two_decisions_at_the_same_time_the_second_is_refused(bus: JetStreamEventBus) -> None:
    worker = await start(bus)
    await show(bus, 13)
    await worker.stop()
    letters = letters_of(bus)
    (letter,) = await letters.read()
    await letters.rule(letter, Ruling(Verdict.REQUEUE, by="one"), unless_changed=True)
    with pytest.raises(StreamError, match="somebody else has decided"):
        await letters.rule(letter, Ruling(Verdict.DISCARD, by="other"), unless_changed=True)


async def test_what_is_no_id_is_refused_and_an_unknown_one_is_nothing(bus: JetStreamEventBus) -> None:
    with pytest.raises(InvalidEvent, match="dlq list"):
        await letters_of(bus).get("nonsense")
    assert await letters_of(bus).get("counting-7") is None


async def test_who_was_paused_while_lifting_a_quarantine_does_not_lift_that_of_the_next_owner(
    bus: JetStreamEventBus,
) -> None:
    letters = letters_of(bus)
    await letters.hold("portfolio", "BTCUSDT", "portfolio-7")

    class Paused:
        """A right that somebody takes over right after it was looked at, and that comes back."""

        ended = False
        left_s = 1.0
        looks = 0

        @property
        def valid(self) -> bool:
            self.looks += 1
            return self.looks == 1

        async def wait_valid(self) -> None:
            raise Fenced("for ever")

    class Slow(DeadLetterStream):
        async def put(self, subject: str, data: bytes, headers: dict[str, str], *, expected: int | None = None) -> bool:
            await letters.hold("portfolio", "BTCUSDT", "portfolio-9")
            return await super().put(subject, data, headers, expected=expected)

    right = Paused()
    with pytest.raises(Fenced):
        await StreamDeadLetters(Slow(bus.connection, "EVENTS")).hold("portfolio", "BTCUSDT", "", right=right)
    assert right.looks == 2
    assert await letters.held_for("portfolio", "BTCUSDT") == "portfolio-9"
    await letters.hold("portfolio", "BTCUSDT", "")
    assert not await letters.held_for("portfolio", "BTCUSDT")
