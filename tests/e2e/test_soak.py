"""Ten minutes at a steady rate of ticks and orders: memory stays flat, and the log is clean at the end.

What a process keeps is bounded by number (the latest finished orders, alerts, marks, points of a curve), so its memory
grows until all of that is full, and not after. A strategy that trades without pause fills it in the first four
minutes, where the built-in ones would take hours; from the half on nothing may grow, neither the memory of the
process nor the number of blocks that Python has handed out, which does not depend on how they lie.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import statistics
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from botplatform.audit import audit_log
from botplatform.bootstrap import PARTITIONED, groups
from botplatform.bus.jetstream.bus import JetStreamEventBus
from botplatform.bus.server import EmbeddedServer
from botplatform.core.events import Event
from botplatform.settings import load_settings

SOAK_S: Final = float(os.environ.get("SOAK_SECONDS", "600"))
EVERY_S: Final = 5.0
PATIENCE_S: Final = 60.0
SYMBOLS: Final = 10
RATE: Final = 10
"""Ticks a second of each symbol."""
LATE_GROWTH: Final = 1.02
"""The most that memory and blocks may grow from the third quarter to the last: what a checkpoint takes for a moment."""
GROWTH: Final = 1.10
"""The most that they may grow from the second quarter to the last: what fills up last, and noise of the allocator."""
SUSTAINED: Final = 0.7
"""The least share of the ticks that has to come. A feed gives up what a stalled machine keeps it from for longer than a
second; with fewer ticks than this, what is bounded is not full at half time, and nothing is proved."""

TRADER: Final = """
from botplatform.strategies import Decided, Strategy, View, close_long, open_long

class Trader(Strategy, kw_only=True):
    '''Opens and closes in turn, more than once a second in each symbol.'''

    notional: int = 1000
    _decided_ns: int = 0

    def decide(self, view: View) -> Decided:
        if view.timestamp_ns - self._decided_ns < 700_000_000:
            return None
        long = view.position.long
        if long.exposure and not long.closable:
            return None
        self._decided_ns = view.timestamp_ns
        return close_long(long.closable) if long.closable else open_long(view.size_of(self.notional))
"""
COUNTING: Final = """
import os, signal, sys
from pathlib import Path
from botplatform.cli import main

def count(*_: object) -> None:
    new = Path(os.environ["BLOCKS_FILE"] + ".new")
    new.write_text(str(sys.getallocatedblocks()))
    new.rename(os.environ["BLOCKS_FILE"])

signal.signal(signal.SIGUSR1, count)
main()
"""
"""The platform as the command runs it, and on a signal it counts the blocks that Python has handed out."""


class Sample(NamedTuple):
    """What the process takes at one moment."""

    resident_kib: int
    blocks: int


def resident_kib(pid: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1])


class Running(NamedTuple):
    """The platform in a process of its own."""

    process: asyncio.subprocess.Process
    folder: Path

    @property
    def told(self) -> str:
        """The end of what it said on standard error."""
        return (self.folder / "stderr").read_text()[-2000:]

    async def wait_for(self, what: Callable[[], bool]) -> None:
        """Wait until something is so, while it runs."""
        async with asyncio.timeout(PATIENCE_S):
            while not what():
                assert self.process.returncode is None, self.told
                await asyncio.sleep(0.01)

    async def sample(self) -> Sample:
        """Look at its memory."""
        blocks_file = self.folder / "blocks"
        blocks_file.unlink(missing_ok=True)
        self.process.send_signal(signal.SIGUSR1)
        await self.wait_for(blocks_file.exists)
        return Sample(resident_kib(self.process.pid), int(blocks_file.read_text()))

    async def stop(self) -> None:
        """Stop it in order."""
        self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE_S):
            await self.process.wait()
        assert self.process.returncode == 0, self.told


@asynccontextmanager
async def running(folder: Path, overrides: Sequence[str]) -> AsyncIterator[Running]:
    arguments = [part for each in overrides for part in ("--set", each)]
    environ = {**os.environ, "BLOCKS_FILE": str(folder / "blocks")}
    with (folder / "stderr").open("wb") as said:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", COUNTING, *arguments, "run", env=environ, stderr=said
        )
    platform = Running(process, folder)
    try:
        await platform.wait_for(lambda: "running" in platform.told)
        yield platform
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def medians(values: Sequence[int]) -> list[float]:
    """Return the median of each quarter."""
    quarter = len(values) // 4
    return [statistics.median(values[n * quarter : (n + 1) * quarter]) for n in range(4)]


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc, which only Linux has")
async def test_memory_is_flat_at_a_steady_rate(tmp_path: Path) -> None:
    (tmp_path / "trader.py").write_text(TRADER)
    ticks = 0

    async def count(_event: Event) -> None:
        nonlocal ticks
        ticks += 1

    async with EmbeddedServer(tmp_path / "nats") as server:
        overrides = [
            f"symbols={','.join(f'SYM{number:02}' for number in range(SYMBOLS))}",
            f'strategies=[{{"name": "trader", "use": "{tmp_path}/trader.py:Trader"}}]',
            f"nats.url={server.url}",
            f"storage.path={tmp_path}/store.sqlite",
            f"feed.rate={RATE}",
            "bus.tick_ttl_s=60",
            "log.level=error",
        ]
        settings = load_settings(None, overrides, environ={})
        async with await JetStreamEventBus.connect(
            settings.nats, settings.bus, groups=groups(settings), partitioned=PARTITIONED
        ) as bus:
            async with running(tmp_path, overrides) as platform:
                bus.subscribe("market.snapshot", count)
                await bus.ready()
                samples: list[Sample] = []
                begun, ticks = asyncio.get_running_loop().time(), 0
                for _ in range(int(SOAK_S / EVERY_S)):
                    await asyncio.sleep(EVERY_S)
                    samples.append(await platform.sample())
                share = ticks / (RATE * SYMBOLS * (asyncio.get_running_loop().time() - begun))
                await platform.stop()
            report = await audit_log(bus)
    resident = medians([sample.resident_kib for sample in samples])
    blocks = medians([sample.blocks for sample in samples])
    print(f"resident, by quarter: {', '.join(f'{each / 1024:.1f}' for each in resident)} MiB")
    print(f"blocks, by quarter: {', '.join(f'{each / 1000:.0f}' for each in blocks)} thousand")
    print(f"{share:.1%} of the ticks came")
    assert report.clean, report
    assert share >= SUSTAINED, "this machine cannot keep the rate up"
    for second, third, last in ((resident[1], resident[2], resident[3]), (blocks[1], blocks[2], blocks[3])):
        assert last < third * LATE_GROWTH, samples
        assert last < second * GROWTH, samples
