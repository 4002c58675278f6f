"""`botplatform venue`: what a person and a cluster see of it."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from botplatform.bus.jetstream.connection import Connection, connect_nats
from botplatform.bus.server import EmbeddedServer
from botplatform.core.events import Side
from botplatform.exchanges.exchange import OrderRequest
from botplatform.exchanges.remote_paper import RemotePaperExchange
from botplatform.exchanges.venue_service.crash import CRASH_VARIABLE
from botplatform.settings import NatsSettings

PATIENCE_S = 60.0


async def start(url: str, book: Path, *more: str, **environ: str) -> asyncio.subprocess.Process:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BOTPLATFORM_")}
    arguments = [f"nats.url={url}", "exchange.account_id=process", "nats.connect_timeout_s=1", *more]
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "botplatform.cli", "venue", "--book", str(book)),
        *(part for each in arguments for part in ("--set", each)),
        env=clean | environ,
        stderr=asyncio.subprocess.PIPE,
    )


async def ready(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    line = await asyncio.wait_for(process.stderr.readline(), PATIENCE_S)
    assert b"serves" in line, line + await process.stderr.read()
    return line.decode()


async def ended(process: asyncio.subprocess.Process) -> tuple[int | None, str]:
    _, said = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    return process.returncode, said.decode()


def client_of(server: EmbeddedServer) -> RemotePaperExchange:
    async def dial() -> Connection:
        return await connect_nats(NatsSettings(url=server.url))

    return RemotePaperExchange(account_id="process", dial=dial)


def buy(name: str) -> OrderRequest:
    return OrderRequest(client_order_id=name, symbol="BTCUSDT", side=Side.BUY, quantity=Decimal(1))


async def test_sigterm_answers_what_has_arrived_and_the_next_process_has_the_same_book(
    nats_server: EmbeddedServer, tmp_path: Path
) -> None:
    book = tmp_path / "venue.sqlite"
    process = await start(nats_server.url, book, "venue.slow_share=1", "venue.slow_s=300")
    line = await ready(process)
    assert re.search(r"the venue paper serves account process on nats://127\.0\.0\.1:\d+, book .*venue\.sqlite", line)
    client = client_of(nats_server)
    await client.connect(print)
    asking = [asyncio.create_task(client.submit(buy(f"order-{n}"))) for n in range(5)]
    await client.status()
    await asyncio.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    await asyncio.gather(*asking)
    assert (await ended(process))[0] == 0

    process = await start(nats_server.url, book)
    await ready(process)
    assert {each.client_order_id for each in await client.fetch_open_orders()} == {f"order-{n}" for n in range(5)}
    await client.close()
    process.send_signal(signal.SIGINT)
    assert (await ended(process))[0] == 0


async def test_a_second_process_on_the_same_book_is_refused_with_a_sentence(
    nats_server: EmbeddedServer, tmp_path: Path
) -> None:
    first = await start(nats_server.url, tmp_path / "venue.sqlite")
    await ready(first)
    code, said = await ended(await start(nats_server.url, tmp_path / "venue.sqlite"))
    assert code == 5
    assert "another process has it" in said
    assert "Traceback" not in said
    first.send_signal(signal.SIGTERM)
    assert (await ended(first))[0] == 0


@pytest.mark.parametrize(
    ("url", "environ", "code", "sentence"),
    [
        ("nats://127.0.0.1:1", {}, 4, "cannot connect to NATS"),
        ("nats://127.0.0.1:1", {CRASH_VARIABLE: "submit.somewhere"}, 2, "known are submit.received"),
    ],
)
async def test_what_is_wrong_is_said_in_one_sentence(
    tmp_path: Path, url: str, environ: dict[str, str], code: int, sentence: str
) -> None:
    found, said = await ended(await start(url, tmp_path / "venue.sqlite", **environ))
    assert found == code
    assert sentence in " ".join(said.split())
    assert "Traceback" not in said
