"""A process that starts before its server, or before the log is set up, waits for them as long as it was told."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from botplatform.bootstrap import PARTITIONED, groups
from botplatform.bus.jetstream.connection import connect_nats
from botplatform.bus.jetstream.setup import setup
from botplatform.bus.server import EmbeddedServer
from botplatform.cli import waiting as waiting_module
from botplatform.cli.waiting import wait_for_exchange, wait_for_log, wait_for_server
from botplatform.errors import BusError, ExchangeError, StreamError
from botplatform.settings import BusSettings, ExchangeSettings, ExecutionSettings, NatsSettings, Settings


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


def at(port: int) -> Settings:
    """Return settings that lead to a server on this machine."""
    nats = NatsSettings(url=f"nats://127.0.0.1:{port}", connect_timeout_s=0.5)
    return Settings(nats=nats, bus=BusSettings(partitions=2))


async def test_it_goes_on_once_another_process_has_set_the_log_up() -> None:
    settings = at(free_port())
    waiting = asyncio.create_task(wait_for_log(settings, "signals", 30))
    async with EmbeddedServer(port=int(settings.nats.url.rpartition(":")[2])):
        await wait_for_server(settings, "setup", 30)
        assert not waiting.done()
        async with await connect_nats(settings.nats) as connection:
            await setup(connection, settings.bus, groups(settings), PARTITIONED)
        await asyncio.wait_for(waiting, 30)


async def test_the_last_reason_is_raised_when_the_time_is_over() -> None:
    with pytest.raises(BusError, match="cannot connect"):
        await wait_for_log(at(free_port()), "signals", 0.1)
    async with EmbeddedServer() as server:
        with pytest.raises(StreamError, match="run `botplatform setup`"):
            await wait_for_log(at(server.port), "signals", 0.1)


async def test_execution_goes_on_once_the_venue_answers(tmp_path: Path) -> None:
    async with EmbeddedServer() as server:
        given = {"exchange": ExchangeSettings(kind="paper_venue"), "execution": ExecutionSettings(request_timeout_s=1)}
        settings = at(server.port).model_copy(update=given)
        with pytest.raises(ExchangeError, match="is `botplatform venue` running"):
            await wait_for_exchange(settings, "execution", 0.1)
        waiting = asyncio.create_task(wait_for_exchange(settings, "execution", 60))
        command = (sys.executable, "-m", "botplatform.cli", "venue", "--book", str(tmp_path / "book.sqlite"))
        serving = await asyncio.create_subprocess_exec(*command, "--set", f"nats.url={server.url}")
        try:
            await asyncio.wait_for(waiting, 60)
        finally:
            serving.terminate()
            assert await serving.wait() == 0


async def test_no_seconds_and_no_server_to_wait_for_end_it_at_once() -> None:
    await wait_for_log(at(free_port()), "signals", 0)
    await wait_for_log(Settings(bus=BusSettings(backend="memory")), "signals", 30)


def test_sigterm_ends_a_process_that_waits() -> None:
    command = (sys.executable, "-m", "botplatform.cli", "run", "--wait", "60", "--engine", "signals")
    url = f"nats.url=nats://127.0.0.1:{free_port()}"
    with subprocess.Popen([*command, "--set", url], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "waiting" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 128 + signal.SIGTERM


class Starting:
    """A venue of somebody else: its first calls fail in a way of its own, hang, or arrive."""

    venue = "elsewhere"

    def __init__(self) -> None:
        self.calls: list[str] = []

    async def connect(self, _on_report: object) -> None:
        self.calls.append("connect")
        if self.calls.count("connect") == 1:
            raise KeyError("symbols")
        if self.calls.count("connect") == 2:
            await asyncio.Event().wait()

    async def close(self) -> None:
        self.calls.append("close")
        if self.calls.count("close") < 3:
            raise OSError("it was never open")


async def test_a_venue_that_fails_or_hangs_while_it_starts_is_closed_and_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exchange = Starting()
    monkeypatch.setattr(waiting_module, "build_exchange", lambda *_args, **_more: exchange)
    settings = Settings(
        exchange=ExchangeSettings(kind="elsewhere:Exchange"), execution=ExecutionSettings(request_timeout_s=0.1)
    )
    async with asyncio.timeout(30):
        await wait_for_exchange(settings, "execution", 30)
    assert exchange.calls == ["connect", "close"] * 3
