"""Trimming on the real server: what is old and covered goes, from the log and its copy, and nothing else does."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Any

import pytest
from msgspec.structs import replace

from botplatform import testing
from botplatform.bus.jetstream import JetStreamEventBus, connect_nats
from botplatform.bus.jetstream.connection import Connection
from botplatform.bus.jetstream.publisher import SKEW_NS
from botplatform.bus.jetstream.trim import Consumers, Trimming, trim
from botplatform.bus.jetstream.trimmed import TrimmedMark, read_trimmed
from botplatform.bus.jetstream.wire import Headers, encode
from botplatform.bus.server import EmbeddedServer
from botplatform.core.event_bus import Delivery
from botplatform.core.events import Event, TradingEvent, TradingState
from botplatform.core.seam import SystemClock
from botplatform.core.trimmed import Trimmed
from botplatform.errors import BusError, LogFull, StateError, StreamError
from botplatform.runtime.checkpoint import Checkpoint, decode, needed_behind
from botplatform.runtime.checkpoint import encode as encoded
from botplatform.runtime.trimmer import Trimmer
from botplatform.settings import BusSettings, NatsSettings

DAYS_NS = 3 * 86_400 * 10**9
GROUPS = {"execution": ["order.*"], "portfolio": ["order.*"], "quiet": ["trading.*"], "alert_sender": ["order.filled"]}
CONSUMERS = Consumers(list(GROUPS), {"alert_sender"}, lambda name, value: needed_behind(decode(value, name)))
MIB = 1024**2


class Later(SystemClock):
    """Three days later."""

    def now_ns(self) -> int:
        return super().now_ns() + DAYS_NS


class Log:
    """A log, its groups, and somebody who looks at it three days later."""

    def __init__(self, bus: JetStreamEventBus, later: Connection, settings: BusSettings) -> None:
        self.bus, self.later, self.settings = bus, later, settings

    async def publish(self, count: int, *, start: int = 0) -> None:
        await self.bus.publish_all(testing.order("order.filled", id=f"order-{i}") for i in range(start, start + count))

    async def ask(self, operation: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        return await self.bus.connection.api(operation, body)

    async def handle(self, *groups: str) -> None:
        """Let groups handle all there is, and acknowledge it."""
        for group in groups:
            await self.bus.attach(group, _nothing)
        await self.settled(*groups)
        for group in groups:
            await self.bus.detach(group)

    async def settled(self, *groups: str) -> None:
        async with asyncio.timeout(30):
            for group in groups:
                while await self.waiting(group):  # noqa: ASYNC110  # the server does it
                    await asyncio.sleep(0.02)

    async def waiting(self, group: str) -> int:
        info = await self.ask(f"CONSUMER.INFO.EVENTS.{group}")
        return int(info["num_pending"] + info["num_ack_pending"])

    async def fill(self) -> int:
        """Publish until the log is full; return at least how many it took."""
        sent = 0
        with suppress(LogFull):
            while True:
                await self.publish(500, start=sent)
                sent += 500
        return sent

    async def save(self, sequence: int, *groups: str) -> None:
        for group in groups:
            await self.bus.checkpoints.put(group, encoded(Checkpoint(sequence, b"state")))

    async def copied(self) -> None:
        async with asyncio.timeout(30):
            while (await self.sequences("EVENTS_BY_TYPE"))[1] < (await self.sequences())[1]:  # noqa: ASYNC110  # as above
                await asyncio.sleep(0.02)

    async def trim(self, **more: Any) -> Trimming:
        return await trim(self.later, self.settings, CONSUMERS, **more)

    async def sequences(self, stream: str = "EVENTS") -> tuple[int, int]:
        state = (await self.ask(f"STREAM.INFO.{stream}"))["state"]
        return state["first_seq"], state["last_seq"]


async def _nothing(_: Delivery) -> None:
    """Handle an event."""


@asynccontextmanager
async def log_of(server: EmbeddedServer, **given: Any) -> AsyncIterator[Log]:
    nats, settings = NatsSettings(url=server.url), BusSettings(**given)
    async with (
        await JetStreamEventBus.connect(nats, settings, groups=GROUPS) as bus,
        await connect_nats(nats, name="setup", clock=Later()) as later,
    ):
        yield Log(bus, later, settings)


@pytest.fixture
async def log(empty_server: EmbeddedServer) -> AsyncIterator[Log]:
    async with log_of(empty_server) as made:
        yield made


async def test_what_all_have_covered_goes_from_the_log_and_its_copy(log: Log) -> None:
    await log.publish(100)
    await log.handle("execution", "portfolio", "alert_sender")
    await log.save(100, "execution")
    await log.save(60, "portfolio")
    await log.copied()
    found = await log.trim()
    assert found.removed == 60
    assert await log.sequences() == (61, 100)
    assert await log.sequences("EVENTS_BY_TYPE") == (61, 100)
    assert found.hold is not None
    assert found.hold.text == "portfolio still needs the event 61: its checkpoint is of 60"
    mark = await log.bus.trimmed()
    assert mark.sequence == 60
    assert mark.places["portfolio"] == 60
    assert mark.time_ns >= (await _stored_ns(log, 61))
    await log.save(100, "portfolio")
    assert (await log.trim()).hold is None
    assert await log.sequences() == (100, 100), "the newest event stays"
    assert [each.sequence async for each in log.bus.replay(["*"])] == [100]


async def _stored_ns(log: Log, sequence: int) -> int:
    message = (await log.ask("STREAM.MSG.GET.EVENTS", {"seq": sequence}))["message"]
    return int(datetime.fromisoformat(message["time"][:19] + "+00:00").timestamp()) * 10**9


async def test_what_is_young_stays_whoever_has_covered_it(log: Log) -> None:
    await log.publish(10)
    await log.handle("execution", "portfolio", "alert_sender")
    await log.save(10, "execution", "portfolio")
    now = await trim(log.bus.connection, log.settings, CONSUMERS)
    assert (now.removed, now.hold) == (0, None)
    assert (await log.bus.trimmed()).sequence == 0


async def test_with_keep_s_0_everything_stays(empty_server: EmbeddedServer) -> None:
    async with log_of(empty_server, keep_s=0) as log:
        await log.publish(10)
        await log.handle("execution", "portfolio", "alert_sender")
        await log.save(10, "execution", "portfolio")
        assert (await log.trim()).removed == 0
        assert await log.sequences() == (1, 10)


async def test_groups_without_events_hold_nothing_up_before_and_after_a_purge(log: Log) -> None:
    """A purge moves what a consumer has acknowledged, also where it never had anything: that is no history."""
    await log.publish(50)
    await log.handle("execution", "portfolio", "alert_sender")
    await log.save(30, "execution", "portfolio")
    await log.copied()
    assert (await log.trim()).removed == 30
    assert (await log.ask("CONSUMER.INFO.EVENTS.quiet"))["ack_floor"]["stream_seq"] > 0
    await log.save(50, "execution", "portfolio")
    assert (await log.trim()).removed == 19
    assert (await log.bus.trimmed()).places["quiet"] == 0
    await log.bus.publish(testing.event("trading.halted", _halted(), id="halt"))
    await log.publish(5, start=50)
    await log.handle("execution", "portfolio", "alert_sender", "quiet")
    await log.save(56, "execution", "portfolio")
    await log.copied()
    found = await log.trim()
    assert await log.sequences() == (51, 56), "what the quiet one has handled and not saved stays"
    assert found.hold is not None
    assert found.hold.text.startswith("quiet still needs the event 51: it has no checkpoint")


def _halted() -> Any:
    return TradingEvent(TradingState.HALTED, "test", "test")


async def test_a_group_that_does_not_run_keeps_its_input_for_days(log: Log) -> None:
    await log.publish(20)
    await log.handle("portfolio", "alert_sender")
    await log.save(20, "portfolio")
    await log.copied()
    found = await log.trim()
    assert (found.removed, await log.sequences()) == (0, (1, 20))
    assert found.hold is not None
    assert found.hold.who == "execution"
    seen: list[int] = []

    async def take(delivery: Delivery) -> None:
        seen.append(delivery.sequence)

    await log.bus.attach("execution", take, after=0)
    await log.settled("execution")
    assert seen == list(range(1, 21))


async def test_a_group_without_a_consumer_stops_trimming(log: Log) -> None:
    await log.publish(20)
    await log.handle("execution", "portfolio", "alert_sender")
    await log.save(20, "execution", "portfolio")
    await log.ask("CONSUMER.DELETE.EVENTS.quiet")
    found = await log.trim()
    assert (found.removed, await log.sequences()) == (0, (1, 20))
    assert found.hold is not None
    assert found.hold.reason == "unknown"
    assert "has no consumer quiet" in found.hold.text


async def test_a_checkpoint_that_is_lost_after_trimming_stops_it(log: Log) -> None:
    await log.publish(20)
    await log.handle("execution", "portfolio", "alert_sender")
    await log.save(10, "execution", "portfolio")
    await log.copied()
    assert (await log.trim()).removed == 10
    await log.save(20, "portfolio")
    await log.bus.checkpoints.delete("execution")
    found = await log.trim()
    assert found.removed == 0
    assert found.hold is not None
    assert "execution has no checkpoint, and stood at 10" in found.hold.text


async def test_a_quarantined_symbol_keeps_what_waits_for_a_person(log: Log) -> None:
    await log.publish(20)
    await log.handle("execution", "portfolio", "alert_sender")
    await log.save(20, "portfolio")
    aside = json.dumps({"held": {"BTCUSDT": {"letter": "execution-8", "first": 8}}}).encode()
    await log.bus.checkpoints.put("execution", encoded(Checkpoint(20, b"state", aside=aside)))
    await log.copied()
    assert (await log.trim()).removed == 7
    assert await log.sequences() == (8, 20)


async def test_a_step_removes_no_more_than_it_may_and_the_next_goes_on(log: Log) -> None:
    await log.publish(100)
    await log.handle("execution", "portfolio", "alert_sender")
    await log.save(100, "execution", "portfolio")
    await log.copied()
    steps = [await log.trim(step=40) for _ in range(4)]
    assert [each.removed for each in steps] == [40, 40, 19, 0]
    assert [each.more for each in steps] == [True, True, False, False]


async def test_what_was_marked_and_not_removed_is_removed_next_time(log: Log) -> None:
    """The process ended between the mark and the purge."""
    await log.publish(30)
    await log.copied()
    mark = await TrimmedMark.read(log.later)
    await mark.replace(Trimmed(12, 5, {"execution": 12, "portfolio": 12, "quiet": 0, "alert_sender": 12}))
    found = await log.trim()
    assert found.removed == 12
    assert await log.sequences() == (13, 30)
    assert await log.sequences("EVENTS_BY_TYPE") == (13, 30)


async def test_of_two_that_trim_at_once_one_gives_way(log: Log) -> None:
    first, second = await TrimmedMark.read(log.later), await TrimmedMark.read(log.later)
    await first.replace(Trimmed(5))
    with pytest.raises(StreamError, match="changed by somebody else"):
        await second.replace(Trimmed(3))
    assert (await read_trimmed(log.later)).sequence == 5


async def test_a_copy_that_lags_behind_keeps_what_it_has_not_copied(log: Log) -> None:
    await log.publish(20)
    await log.copied()
    await log.ask("STREAM.DELETE.EVENTS_BY_TYPE")
    empty = {"name": "EVENTS_BY_TYPE", "subjects": ["nothing.comes"], "storage": "file", "allow_direct": True}
    await log.ask("STREAM.CREATE.EVENTS_BY_TYPE", empty)
    await log.handle("execution", "portfolio", "alert_sender")
    await log.save(20, "execution", "portfolio")
    found = await log.trim()
    assert (found.removed, await log.sequences()) == (0, (1, 20))
    assert found.hold is not None
    assert found.hold.text.endswith("how far it has copied the log is not known")


async def test_a_full_log_forgets_what_is_covered_after_an_hour_and_never_what_is_needed(
    empty_server: EmbeddedServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Thirty days are to be kept, and the log is full sooner; with a group that does not run, orders are refused."""
    async with log_of(empty_server, max_bytes=2 * MIB, keep_s=30 * 86_400, by_type=False) as log:
        sent = await log.fill()
        first, last = await log.sequences()
        assert (first, last >= sent) == (1, True)
        trimmer = Trimmer(log.later, log.settings, CONSUMERS)
        with caplog.at_level(logging.ERROR):
            assert not await trimmer.look()
        assert await log.sequences() == (1, last), "not one order was lost for room"
        assert "still needs the event 1" in caplog.text
        assert trimmer.facts is not None
        assert trimmer.facts.hold is not None
        assert trimmer.facts.hold[0] == "consumer"
        await log.handle("execution", "portfolio", "alert_sender")
        await log.save(last, "execution", "portfolio")
        await trimmer.look()
        assert await log.sequences() == (last, last)
        await log.publish(100, start=sent)


async def test_removing_the_last_event_of_a_subject_resets_what_the_server_expects_of_it(log: Log) -> None:
    """So an expected last sequence would be refused after trimming: none is sent, and this says why none may be."""
    await log.publish(3)
    await log.bus.publish(testing.market(id="tick"))
    await log.handle("execution", "portfolio", "alert_sender")
    await log.save(3, "execution", "portfolio")
    await log.copied()
    assert (await log.trim()).removed == 3
    assert (await _expecting(log, 3, "late"))["error"]["err_code"] == 10071
    assert "error" not in await _expecting(log, 0, "late")
    block = Headers(60)(testing.order("order.submitted"))
    assert [name for name in block if "Expected" in name] == []


async def _expecting(log: Log, sequence: int, event_id: str) -> dict[str, Any]:
    event = testing.order("order.filled", id=event_id)
    headers = {"Nats-Msg-Id": event_id, "Nats-Expected-Last-Subject-Sequence": str(sequence)}
    answer = await log.bus.connection.request(f"evt.order.filled.{event.key}", encode(event), headers=headers)
    found: dict[str, Any] = json.loads(answer.data)
    return found


async def test_an_id_that_is_still_remembered_is_dropped_though_its_event_is_gone(log: Log) -> None:
    await log.publish(10)
    await log.handle("execution", "portfolio", "alert_sender")
    await log.save(10, "execution", "portfolio")
    await log.copied()
    assert (await log.trim()).removed == 9
    await log.publish(10)
    assert await log.sequences() == (10, 10)


async def test_a_publisher_that_was_away_too_long_to_know_does_not_send_again(log: Log) -> None:
    """What it sent was stored and trimmed meanwhile: sent again it would be in the log twice."""
    old, publisher = testing.order("order.submitted", id="sent-long-ago"), log.bus._publisher
    await (await TrimmedMark.read(log.later)).replace(Trimmed(1, old.created_ns + 1, {}))
    publisher._remembered_ns = 0
    with pytest.raises(BusError, match="nobody can tell whether it was stored"):
        await _unacknowledged(log, old)
    new = replace(testing.order("order.submitted", id="just-sent"), created_ns=old.created_ns + SKEW_NS + 2)
    await _unacknowledged(log, new)
    assert [each.event.id async for each in log.bus.replay(["order.*"])] == ["just-sent"]


async def _unacknowledged(log: Log, event: Event) -> None:
    """Send an event that does not arrive, and recover as after a lost connection."""
    publisher = log.bus._publisher
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publisher, "_write", lambda _, sent: setattr(sent, "first_ns", 1))
        publishing = asyncio.create_task(log.bus.publish(event))
        while not publisher.in_flight:  # noqa: ASYNC110  # a test of the inside
            await asyncio.sleep(0.01)
    publisher._recover()
    await publishing


async def test_a_mark_of_another_log_removes_nothing(log: Log) -> None:
    """The stream was deleted and made again, or has another name, beside the buckets of the log before."""
    await log.publish(30)
    await log.copied()
    mark = await TrimmedMark.read(log.later)
    await mark.replace(Trimmed(10_000_000, 5, {"execution": 10_000_000}))
    trimmer = Trimmer(log.later, log.settings, CONSUMERS)
    assert not await trimmer.look()
    assert await log.sequences() == (1, 30)
    assert await log.sequences("EVENTS_BY_TYPE") == (1, 30)
    with pytest.raises(StateError, match="trimmed up to 10000000, but it ends at 30"):
        await log.trim()
