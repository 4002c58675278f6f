from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import nats
import pytest

from botplatform.bus.jetstream import Bucket, JetStreamEventBus, kv
from botplatform.bus.server import EmbeddedServer
from botplatform.errors import BusError, StreamError
from botplatform.settings import BusSettings, NatsSettings


async def test_a_value_is_replaced_by_whoever_saw_it_last(bus: JetStreamEventBus) -> None:
    bucket = bus.checkpoints
    assert await bucket.get("strategy") is None
    first = await bucket.put("strategy", b"one", expected=0)
    assert await bucket.get("strategy") == (b"one", first)
    second = await bucket.put("strategy", b"two", expected=first)
    for stale in (0, first, second + 7):
        with pytest.raises(StreamError, match="strategy in the bucket checkpoints was changed by somebody else"):
            await bucket.put("strategy", b"three", expected=stale)
    assert await bucket.get("strategy") == (b"two", second)


async def test_without_an_expectation_the_last_one_wins(bus: JetStreamEventBus) -> None:
    for value in (b"halted", b"active", b""):
        await bus.trading.put("state", value)
    entry = await bus.trading.get("state")
    assert entry is not None
    assert entry.value == b""


async def test_keys_and_buckets_are_apart(bus: JetStreamEventBus) -> None:
    await bus.checkpoints.put("a", b"1")
    await bus.checkpoints.put("b", b"2")
    assert await bus.trading.get("a") is None
    entry = await bus.checkpoints.get("b")
    assert entry is not None
    assert entry.value == b"2"


async def test_large_state_survives_and_too_large_state_is_refused(bus: JetStreamEventBus) -> None:
    state = bytes(range(256)) * 16_384  # 4 MiB
    revision = await bus.checkpoints.put("portfolio", state, expected=0)
    assert await bus.checkpoints.get("portfolio") == (state, revision)
    with pytest.raises(StreamError, match=r"portfolio in the bucket checkpoints has 16777216 bytes"):
        await bus.checkpoints.put("portfolio", state * 4, expected=revision)


async def test_what_another_tool_deleted_is_gone(bus: JetStreamEventBus) -> None:
    await bus.trading.put("state", b"halted")
    client = await nats.connect(bus.connection.where)
    store = await client.jetstream().key_value("trading")
    assert (await store.get("state")).value == b"halted"
    await store.delete("state")
    await client.close()
    assert await bus.trading.get("state") is None
    with pytest.raises(StreamError, match="was changed by somebody else"):
        await bus.trading.put("state", b"active", expected=7)
    again = await bus.trading.put("state", b"active", expected=0)
    assert await bus.trading.get("state") == (b"active", again)
    with pytest.raises(StreamError, match="was changed by somebody else"):
        await bus.trading.put("state", b"late", expected=0)


async def test_a_bucket_that_does_not_exist_says_what_to_run(bus: JetStreamEventBus) -> None:
    with pytest.raises(StreamError, match=r"no bucket nowhere.*run `botplatform setup`"):
        await Bucket(bus.connection, "nowhere").put("key", b"value")


class LosesAnswers(Bucket):
    """Stores, and does not say so, the first time; then `meanwhile` happens."""

    lost = False
    meanwhile: Callable[[], Awaitable[object]] | None = None

    async def put(self, key: str, value: bytes, *, expected: int | None = None, message_id: str = "") -> int:
        revision = await super().put(key, value, expected=expected, message_id=message_id)
        if self.lost:
            return revision
        self.lost = True
        if self.meanwhile is not None:
            await self.meanwhile()
        raise BusError("no answer")


async def test_a_value_whose_answer_was_lost_counts_once(bus: JetStreamEventBus) -> None:
    first = await bus.checkpoints.put("strategy", b"one", expected=0)
    bucket = LosesAnswers(bus.connection, "checkpoints")
    second = await bucket.replace("strategy", b"two", expected=first)
    assert await bus.checkpoints.get("strategy") == (b"two", second)
    assert second == first + 1
    assert await bucket.replace("strategy", b"three", expected=second) == second + 1


async def test_who_claims_a_value_as_it_is_fences_off_the_one_whose_answer_was_lost(bus: JetStreamEventBus) -> None:
    first = await bus.checkpoints.put("strategy", b"one", expected=0)
    bucket = LosesAnswers(bus.connection, "checkpoints")
    bucket.meanwhile = partial(bus.checkpoints.put, "strategy", b"two")
    with pytest.raises(StreamError, match="changed by somebody else"):
        await bucket.replace("strategy", b"two", expected=first)


async def test_a_checkpoint_waits_for_a_server_that_is_away(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path)
    await server.start()
    port = server.port
    settings = NatsSettings(url=server.url, request_timeout_s=0.3)
    async with await JetStreamEventBus.connect(settings, BusSettings(), groups={}) as bus:
        first = await bus.checkpoints.put("strategy", b"one", expected=0)
        await asyncio.to_thread(server.stop)
        saving = asyncio.create_task(bus.checkpoints.replace("strategy", b"two", expected=first))
        await asyncio.sleep(0.8)
        assert not saving.done()
        async with EmbeddedServer(tmp_path, port=port):
            async with asyncio.timeout(60):
                revision = await saving
                assert await bus.checkpoints.get("strategy") == (b"two", revision)
            await bus.close()


async def test_a_checkpoint_waits_for_a_bucket_that_has_no_leader_at_the_moment(bus: JetStreamEventBus) -> None:
    config = (await bus.connection.api("STREAM.INFO.KV_checkpoints"))["config"]
    await bus.connection.api("STREAM.DELETE.KV_checkpoints")
    saving = asyncio.create_task(bus.checkpoints.replace("strategy", b"one", expected=0))
    await asyncio.sleep(0.5)
    assert not saving.done()
    await bus.connection.api("STREAM.CREATE.KV_checkpoints", config)
    async with asyncio.timeout(60):
        revision = await saving
    assert await bus.checkpoints.get("strategy") == (b"one", revision)


async def test_a_bucket_that_nobody_ever_answers_for_is_given_up(
    bus: JetStreamEventBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kv, "LEADERLESS", 3)
    with pytest.raises(StreamError, match=r"there is no bucket nowhere .*run `botplatform setup`"):
        await Bucket(bus.connection, "nowhere").replace("strategy", b"one", expected=0)
