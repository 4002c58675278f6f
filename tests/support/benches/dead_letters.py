"""A bus with a stream of dead letters, for tests that share a server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager

from botplatform.bus.jetstream.bus import JetStreamEventBus
from botplatform.bus.jetstream.dead_letters import DeadLetterStream
from botplatform.bus.server import EmbeddedServer
from botplatform.runtime.dead_letters import StreamDeadLetters
from botplatform.settings import BusSettings, NatsSettings


@asynccontextmanager
async def emptied(server: EmbeddedServer, groups: Mapping[str, Iterable[str]]) -> AsyncIterator[JetStreamEventBus]:
    """Connect to a bus that is left empty for the next test."""
    settings = BusSettings(by_type=False, duplicate_window_s=1)
    async with await JetStreamEventBus.connect(NatsSettings(url=server.url), settings, groups=groups) as bus:
        yield bus
        for stream in ("EVENTS", "KV_checkpoints", "DEAD_LETTERS"):
            await bus.connection.api(f"STREAM.PURGE.{stream}", {})


def letters_of(bus: JetStreamEventBus) -> StreamDeadLetters:
    return StreamDeadLetters(DeadLetterStream(bus.connection, "EVENTS"))
