"""Whether any server listens is known at once, and said without credentials."""

from __future__ import annotations

import asyncio

import pytest

from botplatform.errors import BusError
from botplatform.settings import NatsSettings
from botplatform.trace.listening import check_listening

NOBODY = "127.0.0.1:1"


async def test_one_server_of_several_that_listens_is_enough() -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        await check_listening(NatsSettings(url=f"nats://user:secret@{NOBODY}, nats://127.0.0.1:{port}"))


@pytest.mark.parametrize("scheme", ["nats://", "tls://", ""])
async def test_addresses_that_refuse_are_named_without_their_credentials(scheme: str) -> None:
    with pytest.raises(BusError, match=rf"^no server listens at {NOBODY}, {NOBODY}$"):
        await check_listening(NatsSettings(url=f"{scheme}user:secret@{NOBODY}, {scheme}{NOBODY}"))
