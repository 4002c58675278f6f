"""A group that several processes share: each event to one of them, failures later, and an end to what never works."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from typer.testing import CliRunner

from botplatform import testing
from botplatform.bus.jetstream import JetStreamEventBus
from botplatform.bus.jetstream.advisories import GivenUp, read_given_up
from botplatform.bus.jetstream.permissions import engine_permissions
from botplatform.bus.jetstream.shared import BATCH, pause_s
from botplatform.bus.jetstream.stored import parse_ack
from botplatform.bus.server import EmbeddedServer
from botplatform.cli import app
from botplatform.core.event_bus import Delivery
from botplatform.core.events import Event
from botplatform.errors import BusError, InvalidEvent, StreamError
from botplatform.settings import BusSettings, NatsSettings

GROUP = "alerts"
GROUPS = {GROUP: ["market.snapshot"], "alone": ["market.snapshot"]}
KILLED = """
import asyncio, sys
from botplatform.bus.jetstream import JetStreamEventBus
from botplatform.settings import BusSettings, NatsSettings

async def handle(delivery):
    print(delivery.event.id, flush=True)
    await asyncio.sleep(3600)

async def main():
    bus = await JetStreamEventBus.connect(NatsSettings(url=sys.argv[1]), BusSettings())
    await bus.share("alerts", handle)
    await asyncio.sleep(3600)

asyncio.run(main())
"""


class Taken:
    """Remembers deliveries and when they came; raises what it was told to."""

    def __init__(self, pause_s: float = 0.0, error: Exception | None = None, failures: int = 1_000) -> None:
        self.deliveries: list[Delivery] = []
        self.times: list[float] = []
        self.pause_s = pause_s
        self.error, self.failures = error, failures

    @property
    def ids(self) -> list[str]:
        return [delivery.event.id for delivery in self.deliveries]

    async def handle(self, delivery: Delivery) -> None:
        self.times.append(asyncio.get_running_loop().time())
        self.deliveries.append(delivery)
        if self.pause_s:
            await asyncio.sleep(self.pause_s)
        if self.error is not None and self.failures > 0:
            self.failures -= 1
            raise self.error


class Desk:
    """Several buses at one server, as several processes have them."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.buses: list[JetStreamEventBus] = []

    async def bus(self) -> JetStreamEventBus:
        made = await JetStreamEventBus.connect(NatsSettings(url=self.url), BusSettings())
        self.buses.append(made)
        return made

    async def share(self, *members: Taken) -> list[JetStreamEventBus]:
        made = [await self.bus() for _ in members]
        for bus, taken in zip(made, members, strict=True):
            await bus.share(GROUP, taken.handle)
        return made

    async def wait_at_most(self, ack_wait_s: float) -> None:
        """Set how long an event may be unanswered."""
        info = await self.group()
        config = {**info["config"], "ack_wait": round(ack_wait_s * 1e9)}
        await self.buses[0].connection.api(
            f"CONSUMER.CREATE.EVENTS.{GROUP}", {"stream_name": "EVENTS", "config": config}
        )

    async def group(self) -> dict[str, Any]:
        return await self.buses[0].connection.api(f"CONSUMER.INFO.EVENTS.{GROUP}")

    async def settled(self) -> None:
        """Wait until nothing of the group waits or is unanswered."""
        async with asyncio.timeout(60):
            while (info := await self.group())["num_pending"] or info["num_ack_pending"]:  # noqa: ASYNC110  # the server does it
                await asyncio.sleep(0.02)

    async def given_up(self, count: int) -> list[GivenUp]:
        async with asyncio.timeout(60):
            while len(found := await read_given_up(self.buses[0].connection, "EVENTS")) < count:  # noqa: ASYNC110  # the server does it
                await asyncio.sleep(0.02)
        return found


@pytest.fixture
async def desk(empty_server: EmbeddedServer) -> AsyncIterator[Desk]:
    made = Desk(empty_server.url)
    settings = NatsSettings(url=empty_server.url)
    made.buses.append(await JetStreamEventBus.connect(settings, BusSettings(), groups=GROUPS, shared=[GROUP]))
    yield made
    for bus in made.buses:
        await bus.close()


def ticks(count: int) -> list[Event]:
    return [testing.market("ABCD"[i % 4], 1.0 + i, id=f"tick-{i}") for i in range(count)]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110  # seen from outside only
            await asyncio.sleep(0.005)


def test_pauses_double_and_end_at_half_a_minute() -> None:
    assert [pause_s(n) for n in (1, 2, 3, 4)] == [0.2, 0.4, 0.8, 1.6]
    assert pause_s(100) == 30.0


async def test_each_event_goes_to_one_of_the_members_and_all_have_work(desk: Desk) -> None:
    members = [Taken(pause_s=0.001) for _ in range(3)]
    await desk.share(*members)
    await desk.buses[0].publish_all(ticks(300))
    await desk.settled()
    together = sorted(one for taken in members for one in taken.ids)
    assert together == sorted(event.id for event in ticks(300))
    assert all(taken.ids for taken in members)
    assert not any(delivery.redelivered for taken in members for delivery in taken.deliveries)


async def test_the_bus_is_settled_once_the_shared_group_has_answered_everything(desk: Desk) -> None:
    taken, other = Taken(pause_s=0.01), Taken()
    await desk.buses[0].attach("alone", other.handle)
    taken.error, taken.failures = ValueError("once"), 1
    await desk.share(taken)
    await desk.buses[0].publish_all(ticks(20))
    async with asyncio.timeout(60):
        await desk.buses[0].wait_settled()
    assert sorted(set(taken.ids)) == sorted(event.id for event in ticks(20))
    assert len(taken.ids) == 21  # the bus did not count as settled while the failed one waited for its second time


async def test_a_failing_handler_gets_the_event_again_later_and_later_and_others_meanwhile(desk: Desk) -> None:
    taken = Taken(error=ConnectionError("the service is away"), failures=3)
    await desk.share(taken)
    await desk.buses[0].publish(ticks(1)[0])
    await until(lambda: len(taken.ids) == 4)
    await desk.settled()
    pauses = [after - before for before, after in zip(taken.times, taken.times[1:], strict=False)]
    assert all(pause >= wanted - 0.02 for pause, wanted in zip(pauses, (0.2, 0.4, 0.8), strict=True)), pauses
    assert [delivery.redelivered for delivery in taken.deliveries] == [0, 1, 2, 3]
    assert await desk.given_up(0) == []


async def test_poison_is_given_up_after_five_deliveries_and_listed_with_its_error(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = [Taken(error=ArithmeticError("cannot\ncount this")) for _ in range(2)]
    await desk.share(*members)
    await desk.buses[0].publish(ticks(1)[0])
    (found,) = await desk.given_up(1)
    assert sum(len(taken.ids) for taken in members) == 5
    assert (found.group, found.sequence, found.deliveries, found.terminated) == (GROUP, 1, 5, True)
    assert found.reason == "ArithmeticError: cannot count this"
    assert found.event is not None
    assert found.event.id == "tick-0"
    await desk.settled()
    monkeypatch.setenv("BOTPLATFORM_NATS__URL", desk.url)
    monkeypatch.setenv("COLUMNS", "200")
    (told,) = json.loads((await said("list", "--json")).strip())
    assert (told["id"], told["state"], told["key"], told["attempts"]) == ("alerts.1", "given up", "A", 5)
    assert "cannot count this" in await said("list")
    shown = json.loads(await said("show", "alerts.1", "--json"))
    assert shown["event_json"]["id"] == "tick-0"


async def said(*arguments: str) -> str:
    result = await asyncio.to_thread(CliRunner().invoke, app, ["dlq", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


async def test_what_kills_every_process_is_given_up_by_the_server(desk: Desk) -> None:
    await desk.wait_at_most(0.2)
    connection = desk.buses[0].connection
    await desk.buses[0].publish(ticks(1)[0])
    inbox = connection.client.new_inbox()
    arriving = await connection.client.subscribe(inbox)
    for _ in range(5):  # each takes it and never answers
        pull = b'{"batch":1,"expires":5000000000}'
        await connection.client.publish(f"$JS.API.CONSUMER.MSG.NEXT.EVENTS.{GROUP}", pull, reply=inbox)
        assert parse_ack((await arriving.next_msg(10)).reply) is not None
    taken = Taken()
    await desk.share(taken)
    (found,) = await desk.given_up(1)
    assert (found.sequence, found.deliveries, found.terminated, found.reason) == (1, 5, False, "")
    await desk.settled()
    assert taken.ids == []


async def test_what_no_delivery_can_change_is_given_up_at_once(desk: Desk) -> None:
    bus = desk.buses[0]
    wrong, final = Taken(error=InvalidEvent("not for us")), Taken(error=LookupError("no such channel"))
    await bus.share(GROUP, wrong.handle)
    await bus.publish(ticks(1)[0])
    await desk.given_up(1)
    await bus.detach(GROUP)
    await bus.share(GROUP, final.handle, final=(LookupError,))
    await bus.connection.request("evt.market.snapshot.btcusdt", b"\xff\xffno event")
    await bus.publish(ticks(2)[1])
    found = await desk.given_up(3)
    assert [(one.sequence, one.deliveries, one.terminated) for one in found] == [(n, 1, True) for n in (1, 2, 3)]
    assert [one.reason.split(":")[0] for one in found] == ["InvalidEvent", "InvalidEvent", "LookupError"]
    assert found[1].event is None
    assert (wrong.ids, final.ids) == (["tick-0"], ["tick-1"])


async def test_a_handler_that_works_for_long_keeps_its_event_and_those_behind_it(desk: Desk) -> None:
    await desk.wait_at_most(0.4)
    slow, other = Taken(pause_s=1.2), Taken()
    await desk.share(slow)
    await desk.buses[0].publish_all(ticks(2))
    await until(lambda: slow.ids == ["tick-0"])
    await desk.share(other)
    await desk.settled()
    assert (slow.ids, other.ids) == (["tick-0", "tick-1"], [])


async def test_a_member_that_stops_finishes_what_is_in_hand_and_gives_the_rest_back_at_once(desk: Desk) -> None:
    slow, other = Taken(pause_s=0.3), Taken()
    (first,) = await desk.share(slow)
    await desk.buses[0].publish_all(ticks(BATCH))
    await until(lambda: slow.ids == ["tick-0"])
    await desk.share(other)
    async with asyncio.timeout(5):  # far less than the 30 s after which unanswered ones come again
        await first.detach(GROUP)
        await until(lambda: len(other.ids) == BATCH - 1)
    assert slow.ids == ["tick-0"]
    assert sorted(other.ids) == [f"tick-{n}" for n in range(1, BATCH)]
    await desk.settled()


async def test_a_handler_may_detach_its_own_group(desk: Desk) -> None:
    (bus,) = await desk.share(taken := Taken())

    async def last(delivery: Delivery) -> None:
        taken.deliveries.append(delivery)
        await bus.detach(GROUP)

    await bus.detach(GROUP)
    await bus.share(GROUP, last)
    await bus.publish_all(ticks(3))
    await until(lambda: taken.ids == ["tick-0"])
    other = Taken()
    await desk.share(other)
    await desk.settled()
    assert (taken.ids, sorted(other.ids)) == (["tick-0"], ["tick-1", "tick-2"])


async def test_what_a_killed_process_had_in_hand_goes_to_the_others(desk: Desk) -> None:
    await desk.wait_at_most(0.5)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KILLED, desk.url, stdout=asyncio.subprocess.PIPE
    )
    await desk.buses[0].publish_all(ticks(40))
    assert process.stdout is not None
    async with asyncio.timeout(60):
        in_hand = (await process.stdout.readline()).decode().strip()
    members = [Taken(), Taken()]
    await desk.share(*members)
    await until(lambda: sum(len(taken.ids) for taken in members) >= 40 - BATCH)
    assert not any(in_hand in taken.ids for taken in members)
    process.kill()
    await process.wait()
    await desk.settled()
    together = sorted(one for taken in members for one in taken.ids)
    assert together == sorted(event.id for event in ticks(40))


async def test_a_member_goes_on_after_a_reconnection(desk: Desk) -> None:
    (bus,) = await desk.share(taken := Taken())
    await bus.connection.client.force_reconnect()
    await until(lambda: bus.connection.reconnects == 1)
    await desk.buses[0].publish_all(ticks(10))
    await desk.settled()
    assert sorted(taken.ids) == sorted(event.id for event in ticks(10))


async def test_only_groups_that_were_set_up_for_it_can_be_shared(desk: Desk) -> None:
    bus, taken = desk.buses[0], Taken()
    with pytest.raises(StreamError, match="alone was not set up to be shared"):
        await bus.share("alone", taken.handle)
    with pytest.raises(StreamError, match="no consumer for the group nobody: run `botplatform setup`"):
        await bus.share("nobody", taken.handle)
    await bus.share(GROUP, taken.handle)
    with pytest.raises(BusError, match="attached already"):
        await bus.share(GROUP, taken.handle)


async def test_a_deleted_consumer_fails_the_bus_with_a_sentence(desk: Desk) -> None:
    (bus,) = await desk.share(Taken())
    await desk.buses[0].connection.api(f"CONSUMER.DELETE.EVENTS.{GROUP}")
    async with asyncio.timeout(60):
        with pytest.raises(StreamError, match="group alerts was deleted: run `botplatform setup`"):
            await bus.wait_failed()


async def test_setup_again_changes_nothing_and_the_consumer_is_as_the_design_says(desk: Desk) -> None:
    bus = desk.buses[0]
    again = await bus.setup(GROUPS, shared=[GROUP])
    assert again.created == again.updated == ()
    assert {"stream ADVISORIES", f"consumer {GROUP}"} <= set(again.unchanged)
    info = await bus.connection.api("STREAM.INFO.ADVISORIES")
    kinds = ("MAX_DELIVERIES", "MSG_TERMINATED")
    assert info["config"]["subjects"] == [f"$JS.EVENT.ADVISORY.CONSUMER.{kind}.EVENTS.>" for kind in kinds]
    config = (await desk.group())["config"]
    assert (config["ack_policy"], config["max_deliver"]) == ("explicit", 5)


def test_a_shared_group_needs_no_lease_and_no_checkpoint() -> None:
    nothing: dict[str, Any] = {"groups": [], "consumers": [], "publishes": [], "stream": "EVENTS"}
    without = engine_permissions(["notifications"], **nothing)
    added = set(engine_permissions(["notifications"], **nothing, shared=[GROUP]).publish) - set(without.publish)
    assert added == {
        "$JS.API.CONSUMER.INFO.EVENTS.alerts",
        "$JS.API.CONSUMER.MSG.NEXT.EVENTS.alerts",
        "$JS.ACK.EVENTS.alerts.>",
        "$JS.ACK.*.*.EVENTS.alerts.>",
    }
