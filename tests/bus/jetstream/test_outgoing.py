"""Nothing leaves for the log by a right that has lapsed: not at first, and not when it is sent again."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from botplatform import testing
from botplatform.bus.jetstream import JetStreamEventBus, direct
from botplatform.bus.jetstream.connection import connect_nats
from botplatform.bus.jetstream.direct import DirectClient
from botplatform.bus.server import EmbeddedServer
from botplatform.core.events import Event, NotificationEvent
from botplatform.core.tasks import end
from botplatform.settings import BusSettings, NatsSettings

CERTIFICATES = Path(__file__).with_name("certificates")


class Hands:
    """A right in the hands of the test; `looks` is how often it may be looked at before it lapses."""

    def __init__(self, looks: int = -1) -> None:
        self.looks = looks
        self.ended = False
        self.looked = 0

    @property
    def valid(self) -> bool:
        self.looked += 1
        if self.looks > 0:
            self.looks -= 1
        return self.looks != 0 and not self.ended

    @property
    def left_s(self) -> float:
        return 1.0 if self.looks and not self.ended else 0.0

    async def wait_valid(self) -> None:
        raise AssertionError("the bus looks for itself")


def ticks(count: int, start: int = 0) -> list[Event]:
    return [testing.market("BTCUSDT", 1.0 + i, id=f"tick-{i}") for i in range(start, start + count)]


@pytest.fixture
async def forgetful(empty_server: EmbeddedServer) -> AsyncIterator[JetStreamEventBus]:
    """A bus whose server knows ids for a second only."""
    settings = BusSettings(duplicate_window_s=1)
    async with await JetStreamEventBus.connect(NatsSettings(url=empty_server.url), settings, groups={}) as bus:
        yield bus


async def stored(bus: JetStreamEventBus) -> list[str]:
    return [delivery.event.id async for delivery in bus.replay(["*"])]


async def test_what_waits_for_the_socket_waits_for_the_right(forgetful: JetStreamEventBus) -> None:
    right = Hands(looks=0)
    publishing = asyncio.create_task(forgetful.publish_all(ticks(5), right=right))
    async with asyncio.timeout(60):
        while right.looked < 3:  # noqa: ASYNC110  # it looks again and again
            await asyncio.sleep(0.01)
    assert await stored(forgetful) == []
    right.looks = -1
    async with asyncio.timeout(60):
        await publishing
    assert await stored(forgetful) == [f"tick-{index}" for index in range(5)]


async def test_after_a_lapse_what_was_sent_before_is_not_stored_again_and_all_stays_in_order(
    forgetful: JetStreamEventBus,
) -> None:
    """The right lapses in the middle of many; what others publish meanwhile comes behind."""
    right = Hands(looks=4)
    publishing = asyncio.create_task(forgetful.publish_all(ticks(600), right=right))
    async with asyncio.timeout(60):
        while right.looked < 6:  # noqa: ASYNC110  # it looks again and again
            await asyncio.sleep(0.01)
    before = await stored(forgetful)
    assert before == [f"tick-{index}" for index in range(len(before))]
    assert len(before) < 600
    others = asyncio.create_task(forgetful.publish_all([testing.market("ETHUSDT", 1.0, id="other")]))
    await asyncio.sleep(1.5)  # the server forgets, on its own clock
    right.looks = -1
    async with asyncio.timeout(60):
        await asyncio.gather(publishing, others)
    found = await stored(forgetful)
    assert [each for each in found if each != "other"] == [f"tick-{index}" for index in range(600)]
    assert found.count("other") == 1


async def test_what_another_has_taken_over_is_never_sent_and_holds_nobody_up(forgetful: JetStreamEventBus) -> None:
    right = Hands()
    right.ended = True
    publishing = asyncio.create_task(forgetful.publish_all(ticks(5), right=right))
    async with asyncio.timeout(60):
        await forgetful.publish_all(ticks(3, start=5))
        while forgetful.in_flight:  # noqa: ASYNC110  # it has no event
            await asyncio.sleep(0.01)
        await forgetful.publish_all(ticks(2, start=8))
    assert await stored(forgetful) == [f"tick-{index}" for index in range(5, 10)]
    assert not publishing.done()
    publishing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await publishing


async def test_what_is_sent_again_on_another_connection_asks_for_the_right_again(
    forgetful: JetStreamEventBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Handed to the bus by a valid right, and lost with the connection; the successor has published it meanwhile."""
    right, client = Hands(), forgetful.connection.client
    monkeypatch.setattr(client, "write_now", lambda *_: None)  # lost on the way
    publishing = asyncio.create_task(forgetful.publish_all(ticks(5), right=right))
    async with asyncio.timeout(60):
        while not right.looked:  # noqa: ASYNC110  # every turn of the loop counts
            await asyncio.sleep(0)
    monkeypatch.undo()
    right.ended = True
    await client.force_reconnect()
    async with asyncio.timeout(60):
        await forgetful.publish_all(ticks(1, start=5))
    assert await stored(forgetful) == ["tick-5"]
    publishing.cancel()


@pytest.mark.parametrize(("looks", "reconnects"), [(1, 0), (2, 0), (3, 1)])
async def test_a_right_that_lapses_on_the_last_steps_to_the_socket_is_noticed_there(
    forgetful: JetStreamEventBus, looks: int, reconnects: int
) -> None:
    """It is still valid when the commands are collected, and not any more when the kernel would take them."""
    right = Hands(looks=looks)
    publishing = asyncio.create_task(forgetful.publish_all(ticks(5), right=right))
    async with asyncio.timeout(60):
        while right.looked <= looks or forgetful.connection.reconnects < reconnects:  # noqa: ASYNC110  # it has no event
            await asyncio.sleep(0.01)
    assert await stored(forgetful) == []
    right.looks = -1
    async with asyncio.timeout(60):
        await publishing
    assert await stored(forgetful) == [f"tick-{index}" for index in range(5)]
    assert forgetful.connection.reconnects == reconnects


async def test_once_all_has_left_a_right_that_lapses_costs_no_connection(forgetful: JetStreamEventBus) -> None:
    right, client = Hands(), forgetful.connection.client
    async with asyncio.timeout(60):
        await forgetful.publish_all(ticks(5), right=right)
        right.ended = True
        await client.flush()
    assert forgetful.connection.reconnects == 0
    assert await stored(forgetful) == [f"tick-{index}" for index in range(5)]


async def test_what_is_sent_again_too_late_is_looked_up_first(
    forgetful: JetStreamEventBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No right is needed, but the process is paused between its decision to send again and the socket."""
    lost, back = losing(forgetful, {1, 2, 3})
    publishing = asyncio.create_task(forgetful.publish_all(ticks(3)))
    async with asyncio.timeout(60):
        await lost.wait()
        forgetful._publisher._recover()
        with monkeypatch.context() as patch:
            patch.setattr(DirectClient, "unsent_bytes", 1)
            while not forgetful._publisher._outgoing._waiting:  # noqa: ASYNC110  # it has no event
                await asyncio.sleep(0.01)
            await asyncio.sleep(1.5)  # the server forgets, on its own clock
        back()
        await publishing
    assert await stored(forgetful) == [f"tick-{index}" for index in range(3)]


async def test_what_lies_before_something_acknowledged_is_looked_up_as_well(forgetful: JetStreamEventBus) -> None:
    lost, back = losing(forgetful, {1})
    publishing = asyncio.create_task(forgetful.publish_all(ticks(3)))
    async with asyncio.timeout(60):
        await lost.wait()
        while forgetful.in_flight > 1:  # noqa: ASYNC110  # it has no event
            await asyncio.sleep(0.01)
        await asyncio.sleep(1.5)  # the server forgets, on its own clock
        back()
        forgetful._publisher._recover()
        await publishing
    assert await stored(forgetful) == [f"tick-{index}" for index in range(3)]


async def test_what_was_there_when_the_bus_was_opened_is_not_looked_through(forgetful: JetStreamEventBus) -> None:
    await forgetful.publish_all(ticks(3))
    async with await JetStreamEventBus.connect(NatsSettings(url=forgetful.connection.where), BusSettings()) as later:
        lost, back = losing(later, {1})
        publishing = asyncio.create_task(later.publish_all(ticks(1, start=3)))
        async with asyncio.timeout(60):
            await lost.wait()
            assert [sent.after for sent in later._publisher._unacknowledged.values()] == [3]
            back()
            later._publisher._recover()
            await publishing


def losing(bus: JetStreamEventBus, numbers: set[int]) -> tuple[asyncio.Event, Callable[[], None]]:
    """Lose the acknowledgements of these, until the function is called; the event says that all were."""
    receivers, take, all_lost = bus.connection.client._receivers, bus._publisher._answered, asyncio.Event()
    (sid,) = (each for each, receive in receivers.items() if receive == take)
    left = set(numbers)

    def lose(subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        number = int(subject.rpartition(b".")[2])
        if number not in numbers:
            take(subject, reply, data, headers)
        left.discard(number)
        if not left:
            all_lost.set()

    receivers[sid] = lose
    return all_lost, lambda: receivers.update({sid: take})


class Way:
    """The way to a server; each connection on it can be blocked."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.port = 0
        self.free: list[asyncio.Event] = []
        self.passed: list[int] = []
        self.ended: list[asyncio.Event] = []
        self.tasks: list[asyncio.Task[None] | None] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.tasks.append(asyncio.current_task())
        there_reader, there = await asyncio.open_connection("127.0.0.1", self._port)
        self.free.append(asyncio.Event())
        self.free[-1].set()
        self.passed.append(0)
        self.ended.append(asyncio.Event())
        back = asyncio.create_task(self.copy(there_reader, writer))
        try:
            await self.copy(reader, there, len(self.free) - 1)
        finally:
            await end(back)

    async def copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int | None = None) -> None:
        try:
            with contextlib.suppress(OSError):
                while data := await reader.read(16384):
                    if number is not None:
                        await self.free[number].wait()
                        self.passed[number] += len(data)
                    writer.write(data)
                    await writer.drain()
        finally:
            writer.transport.abort()
            if number is not None:
                self.ended[number].set()


@contextlib.asynccontextmanager
async def way_to(server: EmbeddedServer) -> AsyncIterator[Way]:
    way = Way(server.port)
    listening = await asyncio.start_server(way.serve, "127.0.0.1", 0, limit=16384)
    way.port = listening.sockets[0].getsockname()[1]
    yield way
    listening.close()
    await end(*way.tasks)


@pytest.mark.parametrize("tls", [False, True])
async def test_the_rest_of_what_the_socket_has_not_taken_leaves_by_a_right_as_well(*, tls: bool) -> None:
    """The server stops reading in the middle of an event, and goes on when the successor has published it."""
    secured = {"cert_file": str(CERTIFICATES / "server.pem"), "key_file": str(CERTIFICATES / "server.key")}
    options = {"tls_required": True, "tls_ca_file": CERTIFICATES / "ca.pem"} if tls else {}
    right, bus_settings = Hands(), BusSettings(duplicate_window_s=1)
    large = testing.event("notification.alert", NotificationEvent("x" * 3_000_000), id="large")
    async with EmbeddedServer(config={"tls": secured} if tls else {}) as server, way_to(server) as way:
        through, to = (
            NatsSettings.model_validate({"url": f"nats://localhost:{port}", **options})
            for port in (way.port, server.port)
        )
        async with (
            await JetStreamEventBus.connect(through, bus_settings, groups={}) as paused,
            await JetStreamEventBus.connect(to, bus_settings) as successor,
        ):
            client = paused.connection.client
            writer = client._socket_writer
            assert writer is not None
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
            way.free[0].clear()
            publishing = asyncio.create_task(paused.publish_all([large], right=right))
            async with asyncio.timeout(60):
                while not client.unsent_bytes:  # noqa: ASYNC110  # it has no event
                    await asyncio.sleep(0.01)
                right.ended = True
                await successor.publish_all([large])
                await asyncio.sleep(1.5)  # the server forgets, on its own clock
                way.free[0].set()
                await paused.publish_all(ticks(1))
            publishing.cancel()
            assert await stored(successor) == ["large", "tick-0"]


async def test_what_a_connection_that_is_given_up_still_holds_does_not_come_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A server that reads nothing more fills the buffers, here and in the kernel; they go with the connection."""
    monkeypatch.setattr(direct, "UNDELIVERED_MS", 600_000)  # so that it is not the kernel that gives it up
    async with EmbeddedServer() as server, way_to(server) as way:
        settings = NatsSettings(url=f"nats://127.0.0.1:{way.port}")
        async with await connect_nats(settings) as connection, asyncio.timeout(60):
            client = connection.client
            writer = client._socket_writer
            assert writer is not None
            option = writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
            assert option == 600_000
            before, given = way.passed[0], 0
            way.free[0].clear()
            while not client.unsent_bytes:
                client.write_now([b"PUB much 65536\r\n" + bytes(65536) + b"\r\n"])
                given += 65536
            await client.force_reconnect()
            while connection.reconnects == 0:  # noqa: ASYNC110  # it has no event
                await asyncio.sleep(0.01)
            way.free[0].set()
            await way.ended[0].wait()
            assert way.passed[0] - before < given
