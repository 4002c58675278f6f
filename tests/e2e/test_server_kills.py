"""The server is killed under load, twice; two processes of all engines and a publisher wait it out."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from benches.processes import running, started
from botplatform.audit import audit_log
from botplatform.bootstrap import PARTITIONED, PROCESSING, build_engine, build_market_data, groups
from botplatform.bus.jetstream.bus import JetStreamEventBus
from botplatform.bus.jetstream.setup import list_groups
from botplatform.bus.server import EmbeddedServer
from botplatform.core.events import Event
from botplatform.core.seam import SystemClock
from botplatform.feeds.synthetic import SyntheticMarket
from botplatform.runtime.replay import LogReplay
from botplatform.settings import Settings, load_settings

SYMBOLS = tuple(f"SYM{number:02}" for number in range(12))
PATIENCE_S = 120.0


class Servers:
    """A server that is killed and comes back on the same port, with the same storage."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.running = EmbeddedServer(directory)

    async def start(self) -> None:
        await self.running.start()

    async def kill(self) -> None:
        port = self.running.port
        os.kill(self.running.pid, signal.SIGKILL)
        self.running.stop()
        await asyncio.sleep(0.5)
        self.running = EmbeddedServer(self.directory, port=port)
        await self.running.start()


async def publish(bus: JetStreamEventBus, settings: Settings, count: int, rate: float) -> None:
    clock = SystemClock()
    engine = build_market_data(settings, bus.log_id())
    market = SyntheticMarket(SYMBOLS, seed=5, rate=10, start_ns=clock.now_ns(), limit=count)
    began, batch = clock.monotonic_ns(), list[Event]()
    for sent, snapshot in enumerate(market, 1):
        batch += engine.take(snapshot, clock.now_ns())
        if len(batch) >= 32:
            await bus.publish_all(batch)
            batch = []
            await asyncio.sleep(max(0.0, sent / rate - (clock.monotonic_ns() - began) / 1e9))
    await bus.publish_all(batch)


async def settled(bus: JetStreamEventBus, stream: str, processes: list[asyncio.subprocess.Process]) -> None:
    """Wait until everything is handled, for as long as less and less is left."""
    left = await unhandled(bus, stream)
    while True:
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                await bus.wait_settled()
                return
        assert [process.returncode for process in processes] == [None, None], said(processes)
        before, left = left, await unhandled(bus, stream)
        assert left < before, f"nothing was handled for {PATIENCE_S:g} s, with {left} left: {said(processes)}"


def said(processes: list[asyncio.subprocess.Process]) -> str:
    """Return the end of what the processes have said."""
    buffers = [process.stderr._buffer for process in processes if process.stderr is not None]  # type: ignore[attr-defined]  # without waiting
    return "\n".join(bytes(buffer).decode()[-3000:] for buffer in buffers)


async def unhandled(bus: JetStreamEventBus, stream: str) -> int:
    found = await list_groups(bus.connection, stream)
    return sum(info["num_pending"] + info["num_ack_pending"] for info in found.values())


@pytest.mark.parametrize(
    ("count", "rate", "kills"),
    [(3_000, 250, 2), pytest.param(60_000, 400, 12, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])],
)
async def test_nothing_is_lost_doubled_or_out_of_order_when_the_server_is_killed(
    tmp_path: Path, count: int, rate: float, kills: int
) -> None:
    servers = Servers(tmp_path / "nats")
    await servers.start()
    processes: list[asyncio.subprocess.Process] = []
    try:
        overrides = [
            f"symbols={','.join(SYMBOLS)}",
            f"nats.url={servers.running.url}",
            f"storage.path={tmp_path}/store.sqlite",
            "bus.checkpoint_every=100",
            "bus.lease_s=10",  # the server is killed here, not the owners: they may be slow
            "execution.max_decision_age_s=60",
            "log.level=error",
        ]
        settings = load_settings(None, overrides, environ={})
        async with await JetStreamEventBus.connect(
            settings.nats, settings.bus, groups=groups(settings), partitioned=PARTITIONED
        ) as bus:
            processes = [await started(overrides, *running(*PROCESSING, "storage")) for _ in range(2)]
            load = asyncio.create_task(publish(bus, settings, count, rate))
            for _ in range(kills):
                await asyncio.sleep(count / rate / (kills + 1))
                await servers.kill()
            await load
            await settled(bus, settings.bus.stream, processes)
            assert [process.returncode for process in processes] == [None, None]
            report = await audit_log(bus, grace_s=0)
            assert report.clean, report
            log = [delivery.event async for delivery in bus.replay(["*"])]
        assert sum(event.type == "market.snapshot" for event in log) == count
        assert any(event.type == "order.filled" for event in log)
        replay = LogReplay(build_engine(name, settings) for name in PROCESSING)
        for event in log:
            replay.feed(event)
        assert replay.finish().differences == []
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
                await process.wait()
        servers.running.stop()
