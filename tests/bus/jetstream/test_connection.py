from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import nats.errors
import pytest
from pydantic import SecretStr

from botplatform.bus.jetstream import connect_nats
from botplatform.bus.server import EmbeddedServer, find_binary
from botplatform.errors import BusError
from botplatform.settings import NatsSettings


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@asynccontextmanager
async def plain_server(tmp_path: Path, *arguments: str) -> AsyncIterator[str]:
    """Run a NATS server without JetStream."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        str(find_binary()), "-a", "127.0.0.1", "-p", str(port), "-l", str(tmp_path / "log"), *arguments
    )
    for _ in range(500):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.01)
        else:
            writer.close()
            await writer.wait_closed()
            break
    yield f"nats://127.0.0.1:{port}"
    process.terminate()
    await process.wait()


async def test_an_address_where_nobody_listens_is_one_clear_sentence() -> None:
    url = f"nats://user:hunter2@127.0.0.1:{free_port()}"
    with pytest.raises(BusError, match=r"cannot connect to NATS at nats://127\.0\.0\.1:\d+: .*set nats\.url") as e:
        await connect_nats(NatsSettings(url=url, connect_timeout_s=0.3))
    assert "hunter2" not in str(e.value)
    assert "\n" not in str(e.value)


async def test_a_name_that_nobody_has_is_one_clear_sentence() -> None:
    with pytest.raises(BusError, match=r"cannot connect to NATS at .*set nats\.url"):
        await connect_nats(NatsSettings(url="nats://nowhere.invalid:4222", connect_timeout_s=0.3))


async def test_a_server_without_jetstream_is_one_clear_sentence(tmp_path: Path) -> None:
    async with plain_server(tmp_path) as url:
        with pytest.raises(BusError, match=r"has no JetStream.*nats-server -js"):
            await connect_nats(NatsSettings(url=url))


async def test_a_wrong_password_is_one_clear_sentence_without_the_password(tmp_path: Path) -> None:
    async with plain_server(tmp_path, "--user", "bot", "--pass", "right", "-js", "-sd", str(tmp_path)) as url:
        async with await connect_nats(NatsSettings(url=url, user="bot", password=SecretStr("right"))):
            pass
        with pytest.raises(BusError, match="Authorization Violation") as e:
            await connect_nats(
                NatsSettings(url=url, user="bot", password=SecretStr("wrong-one"), connect_timeout_s=0.5)
            )
    assert "wrong-one" not in str(e.value)


async def test_a_server_that_is_too_old_is_refused() -> None:
    left = asyncio.Event()

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        info = {"server_id": "X", "version": "2.10.29", "proto": 1, "max_payload": 1048576, "headers": True}
        writer.write(f"INFO {json.dumps(info)}\r\n".encode())
        while line := await reader.readline():
            if line.startswith(b"PING"):
                writer.write(b"PONG\r\n")
        writer.close()
        await writer.wait_closed()
        left.set()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(BusError, match=r"is version 2\.10\.29: 2\.14 or newer is needed"):
        await connect_nats(NatsSettings(url=f"nats://127.0.0.1:{port}"))
    await left.wait()
    server.close()


async def test_a_server_that_comes_a_little_later_is_waited_for(tmp_path: Path) -> None:
    port = free_port()
    connecting = asyncio.create_task(connect_nats(NatsSettings(url=f"nats://127.0.0.1:{port}", connect_timeout_s=10)))
    await asyncio.sleep(0.3)
    process = await asyncio.create_subprocess_exec(
        str(find_binary()), "-a", "127.0.0.1", "-p", str(port), "-l", str(tmp_path / "log"), "-js", "-sd", str(tmp_path)
    )
    connection = await connecting
    await connection.close()
    process.terminate()
    await process.wait()


async def test_what_is_asked_fails_at_once_when_the_connection_is_lost(tmp_path: Path) -> None:
    """Not when its time is over: a process that is back at once has to renew what it owns."""
    async with EmbeddedServer(tmp_path) as server:
        settings = NatsSettings(url=server.url, request_timeout_s=300)
        async with await connect_nats(settings) as connection:
            await connection.client.subscribe("deaf")  # it never answers
            asking = asyncio.create_task(connection.request("deaf", b""))
            async with asyncio.timeout(60):
                while not connection._asking:  # noqa: ASYNC110  # every turn of the loop counts
                    await asyncio.sleep(0)
                await connection.client.flush()
                await connection.client.force_reconnect()
                with pytest.raises(nats.errors.Error, match="the connection was lost before the answer came"):
                    await asking
                await connection.connected.wait()
                assert await connection.api("INFO")
