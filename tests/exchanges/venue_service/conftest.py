"""One NATS server for these tests."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from botplatform.bus.server import EmbeddedServer


@pytest.fixture(scope="session")
def nats_server() -> Iterator[EmbeddedServer]:
    server = EmbeddedServer()
    asyncio.run(server.start())
    yield server
    server.stop()
