"""The network between us and the server is cut under load; and a server says that it is about to stop."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlparse

import pytest
from nats.aio.client import Server

from botplatform import testing
from botplatform.bus.jetstream import Connection, JetStreamEventBus, connect_nats
from botplatform.bus.server import EmbeddedServer
from botplatform.core.event_bus import Delivery
from botplatform.core.events import Event
from botplatform.settings import BusSettings, NatsSettings

SYMBOLS = 8
RATE = 1500


class Network:
    """What lies between a client and a server: it can hold everything back, or break every connection."""

    def __init__(self, port: int) -> None:
        self.connections = 0
        self._port = port
        self._open = asyncio.Event()
        self._open.set()
        self._refusing = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return f"nats://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        self._server.close()
        self._open.set()
        await self.break_all()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    def hold(self) -> None:
        """Let nothing through, without a word: as a cable that was pulled."""
        self._open.clear()

    def release(self) -> None:
        """Let everything through, also what was held back."""
        self._refusing = False
        self._open.set()

    async def break_all(self) -> None:
        """Reset every connection, and refuse new ones."""
        self._refusing = True
        writers, self._writers = self._writers, set()
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self._refusing:
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers |= {writer, back}
        for source, target in ((reader, back), (there, writer)):
            task = asyncio.create_task(self._pump(source, target))
            self._pumps.add(task)
            task.add_done_callback(self._pumps.discard)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                await self._open.wait()
                writer.write(data)
                await writer.drain()
        writer.transport.abort()


class Load:
    """A publisher at a steady rate, and a consumer that notes what it is given."""

    def __init__(self, publisher: JetStreamEventBus, consumer: JetStreamEventBus) -> None:
        self.published: list[str] = []
        self.taken: list[str] = []
        self._publisher = publisher
        self._consumer = consumer
        self._stop = asyncio.Event()

    async def run(self) -> None:
        await self._consumer.attach("all", self._take)
        while not self._stop.is_set():
            events = [self._event(len(self.published) + index) for index in range(RATE // 20)]
            self.published += [event.id for event in events]
            await self._publisher.publish_all(events)
            await asyncio.sleep(0.05)

    def stop(self) -> None:
        self._stop.set()

    async def _take(self, delivery: Delivery) -> None:
        self.taken.append(delivery.event.id)

    def _event(self, number: int) -> Event:
        symbol = f"S{number % SYMBOLS}"
        if number % 10:
            return testing.market(symbol, 1.0 + number, id=f"event-{number}")
        return testing.order("order.filled", symbol=symbol, id=f"event-{number}")


@asynccontextmanager
async def under_load() -> AsyncIterator[tuple[Network, Load]]:
    """Put the network between the server and both sides; on leaving, all that was published must be there once."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(EmbeddedServer())
        network = Network(server.port)
        nats_settings = NatsSettings(url=await network.start(), request_timeout_s=1)
        stack.push_async_callback(network.stop)
        settings = BusSettings()
        publisher = await JetStreamEventBus.connect(nats_settings, settings, groups={"all": ["*"]})
        stack.push_async_callback(publisher.close)
        consumer = await JetStreamEventBus.connect(nats_settings, settings)
        stack.push_async_callback(consumer.close)
        load = Load(publisher, consumer)
        running = asyncio.create_task(load.run())
        await wait_for(load, 1000)
        yield network, load
        before = len(load.taken)
        await wait_for(load, before + 1000)
        load.stop()
        async with asyncio.timeout(60):
            await running
            await consumer.wait_settled()
        stored = [delivery.event.id async for delivery in publisher.replay(["*"])]
        assert stored == load.published == [f"event-{index}" for index in range(len(stored))]
        assert load.taken == stored


async def wait_for(load: Load, count: int) -> None:
    async with asyncio.timeout(60):
        while len(load.taken) < count:  # noqa: ASYNC110  # deliveries come from another task
            await asyncio.sleep(0.01)


async def test_a_broken_network_loses_doubles_and_reorders_nothing() -> None:
    async with under_load() as (network, _):
        for _ in range(2):
            before = network.connections
            await network.break_all()
            await asyncio.sleep(0.5)
            network.release()
            async with asyncio.timeout(60):
                while network.connections < before + 2:  # noqa: ASYNC110  # both sides come back by themselves
                    await asyncio.sleep(0.01)


async def test_a_silent_network_that_delivers_late_loses_doubles_and_reorders_nothing() -> None:
    async with under_load() as (network, _):
        network.hold()
        await asyncio.sleep(2.5)
        network.release()


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_ten_silent_seconds_and_a_broken_connection_at_their_end() -> None:
    async with under_load() as (network, load):
        network.hold()
        await asyncio.sleep(10)
        await network.break_all()
        network.release()
        before = len(load.taken)
        await wait_for(load, before + 2000)
        await network.break_all()
        await asyncio.sleep(10)
        network.release()


def port_of(connection: Connection) -> int:
    url = connection.client.connected_url
    assert url is not None
    assert url.port is not None
    return url.port


async def test_a_server_that_is_about_to_stop_is_left_for_another(caplog: pytest.LogCaptureFixture) -> None:
    async with EmbeddedServer(stop_timeout_s=0.2) as one, EmbeddedServer(stop_timeout_s=0.2) as other:
        both = NatsSettings(url=f"{one.url}, {other.url}")
        async with await connect_nats(both) as connection:
            lame, sound = (one, other) if port_of(connection) == one.port else (other, one)
            back = asyncio.Event()
            connection.on_back.append(back.set)
            os.kill(lame.pid, signal.SIGUSR2)
            async with asyncio.timeout(60):
                await back.wait()
            assert port_of(connection) == sound.port
            assert "limits" in await connection.api("INFO")
        assert "is about to stop: moving to another" in caplog.text


async def test_a_lame_server_is_kept_while_there_is_no_other_and_used_again_when_it_is_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with EmbeddedServer(tmp_path, stop_timeout_s=0.2) as server:
        port = server.port
        async with await connect_nats(NatsSettings(url=server.url)) as connection:
            back = asyncio.Event()
            connection.on_back.append(back.set)
            os.kill(server.pid, signal.SIGUSR2)
            async with asyncio.timeout(60):
                while "waiting until it is back" not in caplog.text:  # noqa: ASYNC110  # the server does it
                    await asyncio.sleep(0.01)
            assert connection.connected.is_set()
            await asyncio.to_thread(server.stop)
            async with EmbeddedServer(tmp_path, port=port), asyncio.timeout(60):
                await back.wait()
                assert "limits" in await connection.api("INFO")
                await connection.close()


def test_the_pauses_between_attempts_grow_are_bounded_and_are_spread() -> None:
    connection = Connection(NatsSettings())
    waits = [connection._next_server([a_server("a", failures)], {})[1] for failures in range(200)]
    assert waits[0] < 0.1
    assert max(waits) <= 3
    assert min(waits[20:]) >= 1
    assert len({round(wait, 6) for wait in waits[20:]}) > 100


def test_the_server_that_failed_least_is_tried_first_and_a_lame_one_last() -> None:
    connection = Connection(NatsSettings())
    connection._lame.add("a:4222")
    tried = [connection._next_server([a_server("a", 0), a_server("b", failures)], {})[0] for failures in (0, 9, 11)]
    assert [server.uri.hostname for server in tried] == ["b", "b", "a"]


def a_server(host: str, failures: int) -> Server:
    return Server(uri=urlparse(f"nats://{host}:4222"), reconnects=failures)
