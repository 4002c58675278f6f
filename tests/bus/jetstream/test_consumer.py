"""Delivery to a group when connections break and processes die, pause or compete."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from botplatform import testing
from botplatform.bus.jetstream import JetStreamEventBus, consumer
from botplatform.bus.jetstream.consumer import BATCH
from botplatform.bus.jetstream.lease import Lease
from botplatform.bus.jetstream.stored import parse_ack
from botplatform.bus.server import EmbeddedServer
from botplatform.core.event_bus import Delivery
from botplatform.core.events import Event
from botplatform.errors import StreamError
from botplatform.settings import BusSettings, NatsSettings


def ticks(count: int, start: int = 0) -> list[Event]:
    return [testing.market("ABCD"[i % 4], 1.0 + i, id=f"tick-{i}") for i in range(start, start + count)]


def names(stop: int, start: int = 0) -> list[str]:
    return [f"tick-{index}" for index in range(start, stop)]


class Taken:
    def __init__(self, pause_s: float = 0.0) -> None:
        self.deliveries: list[Delivery] = []
        self.pause_s = pause_s
        self.running = 0
        self.most = 0

    @property
    def ids(self) -> list[str]:
        return [delivery.event.id for delivery in self.deliveries]

    async def handle(self, delivery: Delivery) -> None:
        self.running += 1
        self.most = max(self.most, self.running)
        if self.pause_s:
            await asyncio.sleep(self.pause_s)
        self.deliveries.append(delivery)
        self.running -= 1


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110  # seen from outside only
            await asyncio.sleep(0.005)


async def connect(server: EmbeddedServer) -> JetStreamEventBus:
    return await JetStreamEventBus.connect(NatsSettings(url=server.url), BusSettings(), groups={"everything": ["*"]})


def test_both_forms_of_a_delivery_are_read() -> None:
    assert parse_ack("$JS.ACK.EVENTS.group.2.17.5.1700000000.9") == (2, 17, 5, 9)
    assert parse_ack("$JS.ACK.hub.ABCDEF.EVENTS.group.1.18.6.1700000000.0.random") == (1, 18, 6, 0)
    assert parse_ack("") is None


async def test_events_are_handled_one_at_a_time_and_few_are_held(bus: JetStreamEventBus) -> None:
    taken = Taken(pause_s=0.0001)
    await bus.publish_all(ticks(3 * BATCH))
    await bus.attach("everything", taken.handle)
    held = 0

    def done() -> bool:
        nonlocal held
        held = max(held, len(bus._groups["everything"]._waiting))
        return len(taken.deliveries) == 3 * BATCH

    await until(done)
    assert taken.ids == names(3 * BATCH)
    assert taken.most == 1
    assert 0 < held <= BATCH
    await bus.wait_settled()
    info = await bus.connection.api("CONSUMER.INFO.EVENTS.everything")
    assert (info["num_ack_pending"], info["num_pending"], info["ack_floor"]["stream_seq"]) == (0, 0, 3 * BATCH)


async def test_a_broken_connection_neither_loses_nor_doubles_nor_interrupts_a_handler(bus: JetStreamEventBus) -> None:
    taken = Taken(pause_s=0.002)
    await bus.publish_all(ticks(400))
    await bus.attach("everything", taken.handle)
    for threshold in (50, 150, 300):
        await until(lambda wanted=threshold: len(taken.deliveries) >= wanted)  # type: ignore[misc]  # bound now
        await bus.connection.client.force_reconnect()
    await until(lambda: len(taken.deliveries) >= 400)
    await bus.wait_settled()
    assert taken.ids == names(400)


async def test_detaching_finishes_the_event_in_hand(bus: JetStreamEventBus) -> None:
    taken, rest = Taken(pause_s=0.05), Taken()
    await bus.publish_all(ticks(20))
    await bus.attach("everything", taken.handle)
    await until(lambda: taken.running == 1 and len(taken.deliveries) == 2)
    await bus.detach("everything")
    done = len(taken.deliveries)
    assert taken.running == 0
    await bus.attach("everything", rest.handle)
    await until(lambda: len(rest.deliveries) == 20 - done)
    assert taken.ids + rest.ids == names(20)


async def test_detaching_that_is_cut_off_leaves_nothing_running(bus: JetStreamEventBus) -> None:
    """The event in hand never ends, because what comes of it waits for a right that somebody else has."""
    begun, cut_off = asyncio.Event(), asyncio.Event()

    async def handle(_: Delivery) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cut_off.set()

    await bus.publish_all(ticks(1))
    await bus.attach("everything", handle)
    await begun.wait()
    detaching = asyncio.create_task(bus.detach("everything"))
    await asyncio.sleep(0.05)
    detaching.cancel()
    async with asyncio.timeout(60):
        with pytest.raises(asyncio.CancelledError):
            await detaching
    assert cut_off.is_set()


async def test_a_handler_may_detach_its_own_group(bus: JetStreamEventBus) -> None:
    taken: list[str] = []
    rest = Taken()

    async def twice(delivery: Delivery) -> None:
        taken.append(delivery.event.id)
        if len(taken) == 2:
            await bus.detach("everything")

    await bus.publish_all(ticks(10))
    await bus.attach("everything", twice)
    await until(lambda: len(taken) == 2)
    await bus.attach("everything", rest.handle)
    await until(lambda: len(rest.deliveries) == 8)
    assert taken + rest.ids == names(10)


async def test_a_group_is_attached_once_per_bus(bus: JetStreamEventBus) -> None:
    await bus.attach("everything", Taken().handle)
    with pytest.raises(Exception, match="attached already"):
        await bus.attach("everything", Taken().handle)


async def test_a_second_process_cannot_take_a_group_that_is_held(
    bus: JetStreamEventBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("botplatform.bus.jetstream.consumer.TAKE_S", 0.3)
    taken = Taken()
    await bus.attach("everything", taken.handle)
    async with await JetStreamEventBus.connect(NatsSettings(url=bus.connection.where), BusSettings()) as other:
        with pytest.raises(StreamError, match=r"everything is held by another process \(.+\): stop that one first"):
            await other.attach("everything", Taken().handle)
    await bus.publish_all(ticks(10))
    await until(lambda: len(taken.deliveries) == 10)


async def test_a_process_that_died_leaves_its_group_to_the_next_with_nothing_lost(empty_server: EmbeddedServer) -> None:
    """The dead one had pulled events and acknowledged none of them: they come first, in order."""
    dead, heir = await connect(empty_server), await connect(empty_server)
    first, second = Taken(pause_s=0.02), Taken()
    await heir.publish_all(ticks(200))
    await dead.attach("everything", first.handle)
    await until(lambda: len(first.deliveries) == 5)
    await dead.connection.client.close()  # as if killed: no detach, no acknowledgement, no release
    seen = first.ids
    await heir.attach("everything", second.handle)
    await until(lambda: len(second.deliveries) >= 195)
    await heir.wait_settled()
    assert second.ids == names(200, start=200 - len(second.ids))
    assert len(second.ids) >= 200 - len(seen) - 1
    await heir.close()
    await dead.close()


async def test_a_process_that_was_paused_stops_when_another_has_taken_over(empty_server: EmbeddedServer) -> None:
    """Its lease ran out without its knowing; it may not handle what it still holds."""
    paused, heir = await connect(empty_server), await connect(empty_server)
    first, second = Taken(pause_s=0.001), Taken()
    await paused.attach("everything", first.handle)
    await heir.publish_all(ticks(20))
    await until(lambda: len(first.deliveries) == 20)
    lease = paused._groups["everything"]._lease
    assert isinstance(lease, Lease)
    assert lease._keeper is not None
    lease._keeper.cancel()
    lease._until_ns = 0  # a pause longer than the lease
    await heir.attach("everything", second.handle)
    await heir.publish_all(ticks(100, start=20))
    lease.keep(paused._fail)  # and it wakes up
    with pytest.raises(StreamError, match="the group everything was taken over by another process"):
        async with asyncio.timeout(60):
            await paused.wait_failed()
    await until(lambda: len(second.deliveries) == 100)
    assert first.ids == names(20)
    assert second.ids == names(120, start=20)
    await paused.close()
    await heir.close()


async def test_somebody_else_pulling_from_the_group_cannot_take_events_away(bus: JetStreamEventBus) -> None:
    """Against all rules: a program of others pulls from our consumer. What it got comes to us as well, in order."""
    taken = Taken(pause_s=0.001)
    await bus.attach("everything", taken.handle)
    await bus.publish_all(ticks(50))
    thief = bus.connection.client
    inbox = thief.new_inbox()
    stolen = await thief.subscribe(inbox)
    publishing = asyncio.create_task(bus.publish_all(ticks(450, start=50)))
    for _ in range(20):
        await thief.publish(
            "$JS.API.CONSUMER.MSG.NEXT.EVENTS.everything", b'{"batch":5,"expires":200000000}', reply=inbox
        )
        await asyncio.sleep(0.01)
    await publishing
    await until(lambda: len(taken.deliveries) >= 500)
    await bus.wait_settled()
    assert stolen.pending_msgs > 0
    assert taken.ids == names(500)


async def test_a_handler_that_is_slow_gets_each_event_once_from_the_server(
    bus: JetStreamEventBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is heard of a server that is asked for nothing: that is no reason to begin again."""
    monkeypatch.setattr(consumer, "QUIET_S", 0.1)
    monkeypatch.setattr(consumer, "LOOK_S", 0.02)
    await bus.publish_all(ticks(300))
    taken = Taken(pause_s=0.005)
    await bus.attach("everything", taken.handle)
    begun = bus._groups["everything"]._session
    await until(lambda: len(taken.deliveries) >= 250)
    assert bus._groups["everything"]._session == begun
    await bus.wait_settled()
    assert taken.ids == names(300)


async def test_a_consumer_that_is_deleted_under_us_is_reported(bus: JetStreamEventBus) -> None:
    await bus.attach("everything", Taken().handle)
    async with asyncio.timeout(60):
        while (await bus.connection.api("CONSUMER.INFO.EVENTS.everything"))["num_waiting"] == 0:  # noqa: ASYNC110  # the server does it
            await asyncio.sleep(0.01)
    await bus.connection.api("CONSUMER.DELETE.EVENTS.everything")
    with pytest.raises(StreamError, match="run `botplatform setup`"):
        async with asyncio.timeout(60):
            await bus.wait_failed()


async def test_settled_raises_what_a_handler_raised(bus: JetStreamEventBus) -> None:
    async def breaks(_: Delivery) -> None:
        raise ValueError("cannot")

    await bus.attach("everything", breaks)
    await bus.publish(testing.market())
    with pytest.raises(ValueError, match="cannot"):
        async with asyncio.timeout(60):
            await bus.wait_settled()


class Hands:
    """A right in the hands of the test."""

    ended = False

    def __init__(self) -> None:
        self.held = asyncio.Event()
        self.held.set()
        self.waited_for = False

    @property
    def valid(self) -> bool:
        return self.held.is_set()

    @property
    def left_s(self) -> float:
        return 1.0 if self.valid else 0.0

    async def wait_valid(self) -> None:
        self.waited_for = True
        await self.held.wait()


async def test_whoever_had_the_group_before_and_wakes_up_moves_nothing(empty_server: EmbeddedServer) -> None:
    """It was cut off for longer than its right lasts, and begins a new session with the log when it is back."""
    right, taken = Hands(), Taken()
    async with await connect(empty_server) as bus:
        await bus.attach("everything", taken.handle, after=0, right=right)
        await bus.publish_all(ticks(20))
        await until(lambda: len(taken.deliveries) == 20)
        right.held.clear()
        reset, asked = "CONSUMER.RESET.EVENTS.everything", bus.connection.api
        await asked(reset, {"seq": 6})  # the successor has an older state
        operations = list[str]()

        async def note(operation: str, *given: object, **named: object) -> object:
            operations.append(operation)
            return await asked(operation, *given, **named)  # type: ignore[arg-type]

        bus.connection.api = note  # type: ignore[method-assign,assignment]
        bus._groups["everything"]._renew()  # as a reconnection does
        await until(lambda: right.waited_for or reset in operations)
        assert reset not in operations
        right.held.set()
        await bus.publish_all(ticks(20, start=20))
        await until(lambda: len(taken.deliveries) == 40)
        assert taken.ids == names(40)


async def test_a_group_whose_consumer_is_moved_before_its_first_event_gets_every_event(bus: JetStreamEventBus) -> None:
    """The one before had asked for a reset, and was paused before that left; its own place is further on."""
    taken, asked = Taken(), bus.connection.api
    await bus.publish_all(ticks(20))

    async def ask(operation: str, body: dict[str, int] | None = None) -> object:
        answer = await asked(operation, body)
        if operation.startswith("CONSUMER.RESET"):
            del bus.connection.api
            await asked(operation, {"seq": 16})
        return answer

    bus.connection.api = ask  # type: ignore[method-assign,assignment]
    await bus.attach("everything", taken.handle, after=5, right=Hands())
    await until(lambda: bool(taken.ids) and taken.ids[-1] == "tick-19")
    assert taken.ids == names(20, start=5)
