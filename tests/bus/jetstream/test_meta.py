from __future__ import annotations

import asyncio

import pytest

from botplatform.bus.jetstream import Bucket, JetStreamEventBus, connect_nats
from botplatform.bus.jetstream.meta import next_feed_epoch
from botplatform.bus.server import EmbeddedServer
from botplatform.errors import StreamError
from botplatform.settings import NatsSettings


async def test_no_two_processes_get_the_same_feed_epoch(bus: JetStreamEventBus) -> None:
    assert [await next_feed_epoch(bus.connection) for _ in range(2)] == [1, 2]
    taken = await asyncio.gather(*(next_feed_epoch(bus.connection) for _ in range(8)))
    assert sorted(taken) == list(range(3, 11))
    entry = await Bucket(bus.connection, "meta").get("feed_epoch")
    assert entry is not None
    assert entry.value == b"10"


async def test_a_log_that_is_not_set_up_has_no_feed_epochs(empty_server: EmbeddedServer) -> None:
    async with await connect_nats(NatsSettings(url=empty_server.url), name="test") as connection:
        with pytest.raises(StreamError):
            await next_feed_epoch(connection)
