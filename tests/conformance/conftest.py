"""One NATS server for the whole suite; every test begins with an empty one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from benches.buses import AsyncWorld, DurableWorld, SyncWorld, World, connect, wipe
from botplatform import testing
from botplatform.bus.server import EmbeddedServer
from botplatform.core.event_bus import AsyncInMemoryEventBus, InMemoryEventBus


@pytest.fixture(scope="session")
def nats_server() -> Iterator[EmbeddedServer]:
    server = EmbeddedServer()
    asyncio.run(server.start())
    yield server
    server.stop()


@pytest.fixture
async def world(request: pytest.FixtureRequest, nats_server: EmbeddedServer) -> AsyncIterator[World]:
    if request.param in ("memory", "recording"):
        yield SyncWorld(InMemoryEventBus() if request.param == "memory" else testing.RecordingBus())
    elif request.param in ("async_memory", "async_recording"):
        yield AsyncWorld(AsyncInMemoryEventBus() if request.param == "async_memory" else testing.AsyncRecordingBus())
    else:
        await wipe(nats_server)
        async with await connect(nats_server) as bus:
            yield DurableWorld(bus)
