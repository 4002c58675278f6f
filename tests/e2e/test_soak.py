"""Ten minutes at a steady rate: memory stays flat, and the log is clean at the end."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import statistics
import sys
from pathlib import Path

import pytest

from botplatform.audit import audit_log
from botplatform.bootstrap import PARTITIONED, groups
from botplatform.bus.jetstream.bus import JetStreamEventBus
from botplatform.bus.server import EmbeddedServer
from botplatform.settings import load_settings

SOAK_S = float(os.environ.get("SOAK_SECONDS", "600"))
EVERY_S = 5.0
GROWTH = 1.10
"""The most that memory may grow from the second quarter to the last: noise of the allocator, not a leak."""


def resident_kib(pid: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1])


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc, which only Linux has")
async def test_memory_is_flat_at_a_steady_rate(tmp_path: Path) -> None:
    async with EmbeddedServer(tmp_path / "nats") as server:
        overrides = [
            f"symbols={','.join(f'SYM{number:02}' for number in range(10))}",
            f"nats.url={server.url}",
            f"storage.path={tmp_path}/store.sqlite",
            "feed.rate=10",
            "bus.tick_ttl_s=60",
            "log.level=error",
        ]
        settings = load_settings(None, overrides, environ={})
        async with await JetStreamEventBus.connect(
            settings.nats, settings.bus, groups=groups(settings), partitioned=PARTITIONED
        ) as bus:
            arguments = [part for each in overrides for part in ("--set", each)]
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "botplatform.cli", *arguments, "run", stderr=asyncio.subprocess.PIPE
            )
            assert process.stderr is not None
            assert b"running" in await process.stderr.readline()
            measured: list[int] = []
            for _ in range(int(SOAK_S / EVERY_S)):
                await asyncio.sleep(EVERY_S)
                assert process.returncode is None
                measured.append(resident_kib(process.pid))
            quarter = len(measured) // 4
            early, late = statistics.median(measured[quarter : 2 * quarter]), statistics.median(measured[-quarter:])
            print(f"resident: {early / 1024:.0f} MiB in the second quarter, {late / 1024:.0f} MiB in the last")
            process.send_signal(signal.SIGTERM)
            _, errors = await process.communicate()
            assert process.returncode == 0, errors.decode()
            report = await audit_log(bus)
            assert report.clean, report
            assert late < early * GROWTH, measured
