"""What holds for every test: none fails because a machine is slow."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from botplatform.bus.server import EmbeddedServer
from botplatform.testing.postgres import PostgresServer, how_to_get_it, postgres_server

settings.register_profile("any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
if settings.get_current_profile_name() == "default":  # with CI=true it is hypothesis's own, which says the same
    settings.load_profile("any-machine")


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server of one's own, for all tests of this process."""
    reason = how_to_get_it()
    if reason:
        pytest.skip(reason)
    with postgres_server() as server:
        yield server


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    """A NATS server of the module's own."""
    running = EmbeddedServer()
    asyncio.run(running.start())
    yield running
    running.stop()
