from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from botplatform import testing
from botplatform.bus.jetstream import Connection, JetStreamEventBus, connect_nats, setup
from botplatform.bus.jetstream.setup import list_groups
from botplatform.bus.server import EmbeddedServer
from botplatform.errors import InvalidEvent, StreamError
from botplatform.settings import BusSettings, NatsSettings

GROUPS = {
    "strategy": ["market.snapshot", "signal.snapshot"],
    "storage": ["*"],
    "execution": ["order.*", "order.filled"],
}


@pytest.fixture
async def connection(empty_server: EmbeddedServer) -> AsyncIterator[Connection]:
    async with await connect_nats(NatsSettings(url=empty_server.url)) as made:
        yield made


async def test_the_first_setup_creates_everything_and_the_second_changes_nothing(connection: Connection) -> None:
    first = await setup(connection, BusSettings(), GROUPS)
    streams = ["EVENTS", "EVENTS_BY_TYPE", "DEAD_LETTERS"]
    streams += [
        f"KV_{name}" for name in ("checkpoints", "trading", "accounts", "meta", "partitions", "leases", "members")
    ]
    everything = tuple([f"stream {name}" for name in streams] + [f"consumer {name}" for name in GROUPS])
    assert first.created == everything
    assert len(first.log_id) == 32
    second = await setup(connection, BusSettings(), GROUPS)
    assert (second.log_id, second.unchanged) == (first.log_id, everything)
    assert second.created == second.updated == second.left == ()


async def test_setups_at_the_same_time_agree(connection: Connection) -> None:
    reports = await asyncio.gather(*(setup(connection, BusSettings(), GROUPS) for _ in range(5)))
    assert len({report.log_id for report in reports}) == 1


async def test_the_log_is_as_the_design_says(connection: Connection) -> None:
    await setup(connection, BusSettings(partitions=8, duplicate_window_s=33, max_bytes=2**21), GROUPS)
    config = (await connection.api("STREAM.INFO.EVENTS"))["config"]
    assert config["subjects"] == ["evt.*.*.*"]
    assert config["discard"] == "new"
    assert config["storage"] == "file"
    assert config["allow_msg_ttl"] is True
    assert config["duplicate_window"] == 33 * 10**9
    assert config["max_bytes"] == 2**21
    assert "partition(8,3)" in config["subject_transform"]["dest"]
    assert config["republish"] == {"src": "*.*.*.*", "dest": "{{wildcard(1)}}.{{wildcard(2)}}"}
    consumers = await list_groups(connection, "EVENTS")
    assert sorted(consumers) == sorted(GROUPS)
    strategy = consumers["strategy"]["config"]
    assert strategy["filter_subjects"] == ["market.snapshot.*.*", "signal.snapshot.*.*"]
    assert (strategy["ack_policy"], strategy["max_deliver"], strategy["ack_wait"]) == ("all", -1, 30 * 10**9)
    assert strategy["max_ack_pending"] > 0


async def test_what_changed_in_the_settings_is_brought_up_to_date_and_events_stay(connection: Connection) -> None:
    await setup(connection, BusSettings(), GROUPS)
    async with await JetStreamEventBus.connect(NatsSettings(url=connection.where), BusSettings()) as bus:
        await bus.publish_all([testing.market(), testing.order("order.filled")])
    wider = {**GROUPS, "strategy": ["market.*", "signal.*", "order.*"]}
    report = await setup(connection, BusSettings(max_bytes=2**30, tick_ttl_s=5), wider)
    assert report.updated == ("stream EVENTS", "stream EVENTS_BY_TYPE", "consumer strategy")
    info = await connection.api("STREAM.INFO.EVENTS")
    assert (info["config"]["max_bytes"], info["state"]["messages"]) == (2**30, 2)


async def test_no_stream_is_compressed_and_one_that_was_is_so_no_longer_and_keeps_its_events(
    connection: Connection,
) -> None:
    await setup(connection, BusSettings(), GROUPS)
    async with await JetStreamEventBus.connect(NatsSettings(url=connection.where), BusSettings()) as bus:
        await bus.publish_all(testing.signal(id=f"s{i}") for i in range(20))
    config = (await connection.api("STREAM.INFO.EVENTS"))["config"]
    await connection.api("STREAM.UPDATE.EVENTS", {**config, "compression": "s2"})
    report = await setup(connection, BusSettings(), GROUPS)
    assert report.updated == ("stream EVENTS",)
    listed = (await connection.api("STREAM.LIST"))["streams"]
    assert {each["config"]["compression"] for each in listed} == {"none"}
    assert (await connection.api("STREAM.INFO.EVENTS"))["state"]["messages"] == 20


async def test_other_partitions_are_refused_and_nothing_is_changed(connection: Connection) -> None:
    await setup(connection, BusSettings(partitions=16), GROUPS)
    before = await connection.api("STREAM.INFO.EVENTS")
    with pytest.raises(
        StreamError, match=r"EVENTS has 16 partitions and bus\.partitions says 4.*set bus\.partitions to 16"
    ):
        await setup(connection, BusSettings(partitions=4), GROUPS)
    after = await connection.api("STREAM.INFO.EVENTS")
    assert after["config"] == before["config"]


async def test_a_stream_of_somebody_else_is_refused(connection: Connection) -> None:
    await connection.api("STREAM.CREATE.EVENTS", {"name": "EVENTS", "subjects": ["theirs"]})
    with pytest.raises(StreamError, match=r"is not a log of this platform: set bus\.stream"):
        await setup(connection, BusSettings(), GROUPS)


async def test_another_log_id_is_refused(connection: Connection) -> None:
    assert (await setup(connection, BusSettings(log_id="run-1"), {})).log_id == "run-1"
    assert (await setup(connection, BusSettings(), {})).log_id == "run-1"
    with pytest.raises(StreamError, match=r"has the id 'run-1', and bus\.log_id says 'run-2'"):
        await setup(connection, BusSettings(log_id="run-2"), {})


async def test_groups_of_others_are_left_alone_and_named(connection: Connection) -> None:
    await setup(connection, BusSettings(), GROUPS)
    report = await setup(connection, BusSettings(), {"storage": ["*"]})
    assert sorted(report.left) == ["consumer execution", "consumer strategy"]
    assert len(await list_groups(connection, "EVENTS")) == 3


async def test_a_pattern_of_no_event_is_refused(connection: Connection) -> None:
    with pytest.raises(InvalidEvent, match="matches no event type"):
        await setup(connection, BusSettings(), {"odd": ["ordr.*"]})


async def test_more_room_than_the_server_has_is_one_clear_sentence(connection: Connection) -> None:
    with pytest.raises(StreamError, match=r"cannot create the stream EVENTS on .*insufficient storage"):
        await setup(connection, BusSettings(max_bytes=2**60), {})


async def test_without_setup_the_bus_says_what_to_run(empty_server: EmbeddedServer) -> None:
    with pytest.raises(StreamError, match="run `botplatform setup`"):
        await JetStreamEventBus.connect(NatsSettings(url=empty_server.url), BusSettings())


async def test_a_group_that_was_not_set_up_cannot_be_attached(bus: JetStreamEventBus) -> None:
    async def handler(_: object) -> None: ...

    with pytest.raises(StreamError, match="no consumer for the group strategy: run `botplatform setup`"):
        await bus.attach("strategy", handler)
    await bus.setup({"strategy": ["market.*"]})
    await bus.attach("strategy", handler)


async def test_a_process_with_other_partitions_than_the_log_does_not_begin(bus: JetStreamEventBus) -> None:
    settings = NatsSettings(url=bus.connection.where)
    with pytest.raises(StreamError, match=r"has 16 partitions and bus\.partitions says 8.*set bus\.partitions to 16"):
        await JetStreamEventBus.connect(settings, BusSettings(partitions=8))
    with pytest.raises(StreamError, match=r"there is no log OTHER at .*run `botplatform setup`"):
        await JetStreamEventBus.connect(settings, BusSettings(stream="OTHER"))
