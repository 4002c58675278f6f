"""One NATS server for these tests, wiped before each test that asks for a bus."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from benches.buses import wipe
from botplatform.bus.jetstream import JetStreamEventBus
from botplatform.bus.server import EmbeddedServer
from botplatform.settings import BusSettings, NatsSettings


@pytest.fixture(scope="session")
def nats_server() -> Iterator[EmbeddedServer]:
    server = EmbeddedServer()
    asyncio.run(server.start())
    yield server
    server.stop()


@pytest.fixture
async def empty_server(nats_server: EmbeddedServer) -> EmbeddedServer:
    await wipe(nats_server)
    return nats_server


@pytest.fixture
async def bus(empty_server: EmbeddedServer) -> AsyncIterator[JetStreamEventBus]:
    nats_settings = NatsSettings(url=empty_server.url, request_timeout_s=2)
    async with await JetStreamEventBus.connect(nats_settings, BusSettings(), groups={"everything": ["*"]}) as made:
        yield made
