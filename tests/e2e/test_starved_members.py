"""Two processes that never have the processor for as long as their lease: the partitions come to rest all the same.

One of the two is always stopped (SIGSTOP), in turn, for longer than the lease. Each would take the other's partitions,
and give them back, without end.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from botplatform.bootstrap import PARTITIONED, groups
from botplatform.bus.jetstream.bus import JetStreamEventBus
from botplatform.bus.jetstream.kv import Bucket
from botplatform.bus.server import EmbeddedServer
from botplatform.settings import load_settings

LEASE_S = 0.6
TURN_S = 0.9
CALM_TURNS = 6
"""Turns in which no partition may change hands for them to count as at rest."""
PATIENCE_S = 90.0
RUN = "import botplatform.cli; botplatform.cli.main()"


class Owners:
    """Who owns which partition of signals, as the log's server has it."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    async def epochs(self) -> int:
        """Return a number that grows whenever a partition gets an owner."""
        return sum(each["epoch"] for each in await self._read())

    async def counts(self) -> list[int]:
        """Return how many partitions each owner has."""
        return sorted(Counter(each["member"] for each in await self._read() if each["member"]).values())

    async def _read(self) -> list[dict[str, Any]]:
        entries = await self._bucket.entries()
        return [msgspec.json.decode(entry.value) for key, entry in entries.items() if key.startswith("signals.")]

    async def divided(self, counts: list[int]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while await self.counts() != counts:  # noqa: ASYNC110  # what is waited for is in other processes
                await asyncio.sleep(0.05)


async def starve(processes: list[asyncio.subprocess.Process]) -> None:
    """Stop one of two processes at any time, in turn."""
    turn = 0
    while True:
        processes[turn % 2].send_signal(signal.SIGCONT)
        processes[(turn + 1) % 2].send_signal(signal.SIGSTOP)
        turn += 1
        await asyncio.sleep(TURN_S)


async def rest(owners: Owners) -> tuple[float, int]:
    """Wait until the partitions are at rest; return after how many seconds, and after how many takings."""
    began, first = time.monotonic(), await owners.epochs()
    before, since = first, began
    while time.monotonic() - since < CALM_TURNS * TURN_S:
        await asyncio.sleep(0.05)
        now = await owners.epochs()
        if now != before:
            before, since = now, time.monotonic()
        assert time.monotonic() - began < PATIENCE_S, f"{before - first} takings, and no end"
    return since - began, before - first


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_partitions_of_two_starved_processes_come_to_rest_and_are_shared_again_afterwards(tmp_path: Path) -> None:
    async with EmbeddedServer() as server:
        overrides = [
            f"nats.url={server.url}",
            f"bus.lease_s={LEASE_S}",
            "bus.partitions=8",
            "bus.by_type=false",
            "health.port=0",
            "log.level=warning",
        ]
        settings = load_settings(None, tuple(overrides), environ={})
        environment = {name: value for name, value in os.environ.items() if not name.startswith("BOTPLATFORM_")}
        arguments = [part for each in overrides for part in ("--set", each)]
        processes: list[asyncio.subprocess.Process] = []
        async with await JetStreamEventBus.connect(
            settings.nats, settings.bus, groups=groups(settings), partitioned=PARTITIONED
        ) as bus:
            owners = Owners(Bucket(bus.connection, "partitions"))
            try:
                for number in range(2):
                    with (tmp_path / f"{number}.txt").open("wb") as said:
                        processes.append(
                            await asyncio.create_subprocess_exec(
                                *(sys.executable, "-c", RUN, *arguments, "run", "--engine", "signals"),
                                stderr=said,
                                env=environment,
                            )
                        )
                await owners.divided([4, 4])
                starving = asyncio.create_task(starve(processes))
                try:
                    seconds, takings = await rest(owners)
                finally:
                    starving.cancel()
                    for process in processes:
                        process.send_signal(signal.SIGCONT)
                print(f"at rest after {seconds:.1f} s and {takings} takings")
                await owners.divided([4, 4])
                assert [process.returncode for process in processes] == [None, None]
            finally:
                for process in processes:
                    with suppress(ProcessLookupError):
                        process.kill()
                    await process.wait()
