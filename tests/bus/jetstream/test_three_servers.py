"""A cluster of three real servers, one killed under load: each copy of the log takes writes again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from botplatform import testing
from botplatform.bus.jetstream import JetStreamEventBus, connect_nats, setup
from botplatform.bus.server import EmbeddedServer
from botplatform.errors import BusError, StreamError
from botplatform.settings import BusSettings, NatsSettings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
SERVERS = 3
EVENTS = 60_000
"""Several blocks of the server's files: what it does with one that is full is what broke."""
PIECE = 2_000


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


@asynccontextmanager
async def cluster(tmp_path: Path) -> AsyncIterator[list[EmbeddedServer]]:
    ports, routes = free_ports(SERVERS), free_ports(SERVERS)
    made = [
        EmbeddedServer(
            tmp_path / str(n),
            port=ports[n],
            config={
                "server_name": f"server-{n}",
                "jetstream": {"store_dir": str(tmp_path / str(n) / "store"), "sync_interval": "always"},
                "cluster": {
                    "name": "three",
                    "listen": f"127.0.0.1:{routes[n]}",
                    "routes": [f"nats://127.0.0.1:{port}" for port in routes],
                },
            },
        )
        for n in range(SERVERS)
    ]
    async with AsyncExitStack() as stack:
        for server in made:  # none answers before a second one is there
            stack.push_async_callback(asyncio.to_thread, server.stop)
        await asyncio.gather(*(server.start() for server in made))
        yield made


async def copies_of(bus: JetStreamEventBus, stream: str) -> dict[str, Any]:
    found: dict[str, Any] = await bus.connection.api(f"STREAM.INFO.{stream}")
    return found


async def leader_of(bus: JetStreamEventBus) -> str:
    async with asyncio.timeout(90):
        while True:
            with contextlib.suppress(BusError, StreamError):
                if leader := (await copies_of(bus, "EVENTS"))["cluster"].get("leader"):
                    return str(leader)
            await asyncio.sleep(0.2)


async def whole(bus: JetStreamEventBus) -> bool:
    try:
        found = [await copies_of(bus, name) for name in ("EVENTS", "EVENTS_BY_TYPE")]
    except (BusError, StreamError):
        return False  # no leader at the moment
    return all(
        len(e["cluster"]["replicas"]) == 2 and all(r["current"] for r in e["cluster"]["replicas"]) for e in found
    )


async def set_up(told: NatsSettings, bus_settings: BusSettings) -> bool:
    try:
        async with await connect_nats(told) as connection:
            await setup(connection, bus_settings, {"storage": ["*"]})
    except (BusError, StreamError):
        return False
    return True


async def test_each_copy_takes_writes_again_after_its_server_was_killed_under_load(tmp_path: Path) -> None:
    async with cluster(tmp_path) as servers:
        url = ",".join(server.url for server in servers)
        told, bus_settings = NatsSettings(url=url, request_timeout_s=30), BusSettings(replicas=3, max_bytes=2**29)
        async with asyncio.timeout(90):
            while not await set_up(told, bus_settings):  # noqa: ASYNC110  # the servers agree on a leader first
                await asyncio.sleep(0.5)
        async with await JetStreamEventBus.connect(told, bus_settings) as bus:
            published = 0

            async def publish() -> None:
                nonlocal published
                for first in range(0, EVENTS, PIECE):
                    await bus.publish_all(testing.signal(id=f"s{n}") for n in range(first, first + PIECE))
                    published += PIECE

            publishing = asyncio.create_task(publish())
            for share in (0.3, 0.6):
                while published < EVENTS * share and not publishing.done():  # noqa: ASYNC110  # the publisher tells nobody
                    await asyncio.sleep(0.05)
                killed = servers[int((await leader_of(bus)).removeprefix("server-"))]
                os.kill(killed.pid, signal.SIGKILL)
                await asyncio.to_thread(killed.stop)
                await killed.start()
            await publishing
            async with asyncio.timeout(90):
                while not await whole(bus):  # noqa: ASYNC110  # the servers tell nobody
                    await asyncio.sleep(0.5)
            assert await bus.last_sequence() == EVENTS
    said = [(tmp_path / str(n) / "server.log").read_text() for n in range(SERVERS)]
    assert not [line for text in said for line in text.splitlines() if "write error" in line]
