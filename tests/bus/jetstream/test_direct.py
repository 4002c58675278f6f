"""The short way in and out of the client of nats-py."""

from __future__ import annotations

import asyncio

import nats.errors
import pytest
from nats.aio.transport import TcpTransport

from botplatform.bus.jetstream.connection import connect_nats
from botplatform.bus.jetstream.direct import parse_status
from botplatform.bus.jetstream.wire import Headers
from botplatform.bus.server import EmbeddedServer
from botplatform.settings import NatsSettings
from botplatform.testing import market


def test_a_status_says_its_code_and_what_did_not_come() -> None:
    headers = b"NATS/1.0 408 Request Timeout\r\nNats-Pending-Messages: 12\r\nNats-Pending-Bytes: 0\r\n\r\n"
    assert parse_status(headers) == ("408", "Request Timeout", 12)
    assert parse_status(b"NATS/1.0 409 Consumer Deleted\r\n\r\n") == ("409", "Consumer Deleted", None)
    assert parse_status(b"NATS/1.0 404\r\n\r\n") == ("404", "", None)
    assert parse_status(None) == ("", "", None)


def test_the_block_of_headers_says_what_the_headers_say() -> None:
    headers, event = Headers(tick_ttl_s=60), market(symbol="BTCUSDT")
    first, *lines = headers.block(event).removesuffix("\r\n\r\n").split("\r\n")
    assert first == "NATS/1.0"
    assert dict(line.split(": ", 1) for line in lines) == headers(event)


async def test_messages_go_out_and_come_in_whole_and_in_order_and_a_receiver_that_raises_ends_nothing() -> None:
    got: list[tuple[bytes, bytes, bytes | None]] = []
    done = asyncio.Event()

    def receive(subject: bytes, _reply: bytes, data: bytes, headers: bytes | None) -> None:
        got.append((subject, data, headers))
        if len(got) == 3:
            done.set()
        raise ValueError("nothing that ends the connection")

    async with EmbeddedServer() as server, await connect_nats(NatsSettings(url=server.url)) as connection:
        client = connection.client
        subscription = await client.listen("to.*", receive)
        client.send("to.one", b"plain")
        client.write_now([client.publication("to.two", "back", "NATS/1.0\r\na: b\r\n\r\n", b"x\r\ny")])
        await client.publish("to.three", b"by nats-py", headers={"c": "d"})
        async with asyncio.timeout(60):
            await done.wait()
        await subscription.unsubscribe()
        client.send("to.one", b"nobody listens")
        await client.flush()
        with pytest.raises(nats.errors.MaxPayloadError):
            client.publication("to.one", "", "NATS/1.0\r\n\r\n", b"x" * client.max_payload)
    assert got == [
        (b"to.one", b"plain", None),
        (b"to.two", b"x\r\ny", b"NATS/1.0\r\na: b\r\n\r\n"),
        (b"to.three", b"by nats-py", b"NATS/1.0\r\nc: d\r\n\r\n"),
    ]
    with pytest.raises(nats.errors.ConnectionClosedError):
        client.send("to.one", b"too late")


async def test_what_was_sent_before_a_flush_is_at_the_server_after_it() -> None:
    async with (
        EmbeddedServer() as server,
        await connect_nats(NatsSettings(url=server.url)) as here,
        await connect_nats(NatsSettings(url=server.url)) as there,
    ):
        for number in range(200):
            answers = await there.client.subscribe(f"answers.{number}")
            await there.client.flush()
            await here.client.publish(f"answers.{number}", b"")
            await here.client.flush()
            await there.client.flush()
            assert answers.pending_msgs == 1


class Flushed:
    """A connection that sends when it is flushed, as that over a WebSocket does."""

    def __init__(self, transport: TcpTransport) -> None:
        self.transport = transport
        self.waiting = list[bytes]()

    def write(self, payload: bytes) -> None:
        self.waiting.append(payload)

    def writelines(self, payload: list[bytes]) -> None:
        self.waiting.extend(payload)

    async def drain(self) -> None:
        self.transport.writelines(self.waiting)  # type: ignore[no-untyped-call]  # nats-py leaves it out
        self.waiting = []
        await self.transport.drain()  # type: ignore[no-untyped-call]  # nats-py leaves it out

    def __getattr__(self, name: str) -> object:
        if name.endswith("_writer"):
            raise AttributeError(name)
        return getattr(self.transport, name)


async def test_a_connection_that_has_to_be_flushed_is(empty_server: EmbeddedServer) -> None:
    async with await connect_nats(NatsSettings(url=empty_server.url)) as connection:
        client, arrived = connection.client, asyncio.Event()
        await client.listen("here", lambda *_: arrived.set())
        await client.flush()
        transport = client._transport
        assert isinstance(transport, TcpTransport)
        flushed = client._transport = Flushed(transport)  # type: ignore[assignment]
        client.write_now([b"PUB here 0\r\n\r\n"])
        for _ in range(10):
            await asyncio.sleep(0)
        assert flushed.waiting == []
        async with asyncio.timeout(60):
            await arrived.wait()
        client._transport = transport
